"""Make the trained depth network independent of the last training steps.

One step changes the weights a lot, because the batches are small, and BatchNorm's running statistics are those of the
last few dozen frames. A feature that rarely occurs in these frames gets a small variance, and a frame in which it does
occur is then estimated far too near or too far. So the result is an average of the weights over many steps, and its
statistics are computed over as many frames as an epoch has.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from pipeline.hourglass.network import Hourglass


def averaged_copy(model: Hourglass, decay: float) -> AveragedModel:
    """A copy that follows the model as an exponential moving average of its weights and batch statistics.

    Args:
        model: The network that is trained.
        decay: Share of the average that a step keeps, in (0, 1); the average covers about 1 / (1 - decay) steps.

    Returns:
        The average; `update_parameters(model)` after each step, `.module` is the averaged network. The first update
        copies the model.
    """
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)


@torch.no_grad()
def recompute_statistics(model: Hourglass, batches: Iterable[Tensor], dtype: torch.dtype) -> None:
    """Replace BatchNorm's running statistics by their mean over some batches, without changing the weights.

    Args:
        model: The network; it is in evaluation mode afterwards. Without any batch it does not change.
        batches: Frames, float32 B,3,H,W in [0, 1], on the network's device, channels last in memory.
        dtype: Type to compute in, float32 or bfloat16.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    model.train()
    try:
        for i, frames in enumerate(batches):
            for norm in norms:
                norm.momentum = 1 / (
                    i + 1
                )  # the running mean of all batches so far; the first one replaces the old value
            with torch.autocast(frames.device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
                model(frames)
    finally:
        for norm, momentum in zip(norms, momenta):
            norm.momentum = momentum
        model.eval()
