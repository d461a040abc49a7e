"""ReLU in place, fast also for bfloat16 on a CPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def rectify(x: Tensor) -> Tensor:
    """ReLU, overwriting its input.

    The bits of a bfloat16, read as an integer, have its sign and are 0 for zero. So the integers' maximum with 0 is the
    same thing, and on a CPU it takes a fifth of the time.
    """
    if x.dtype != torch.bfloat16 or x.device.type != "cpu":
        return F.relu_(x)
    result: Tensor = _Rectify.apply(x)
    return result


class _Rectify(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x.view(torch.int16).clamp_(min=0)
        ctx.mark_dirty(x)
        ctx.save_for_backward(x)
        return x

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return torch.ops.aten.threshold_backward(gradients[0], x, 0)
