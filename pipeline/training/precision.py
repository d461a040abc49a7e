"""The type of the arithmetic in training, and the scaled loss that float16 needs."""

from __future__ import annotations

from typing import Literal

import torch

from pipeline.core.kernels.onednn import arithmetic


def training_dtype(precision: Literal["bf16", "fp16", "fp32"], device: torch.device) -> torch.dtype:
    """The type to compute in.

    Args:
        precision: `bf16` gives float16 on a GPU that does not compute in bfloat16, and float32 on such a CPU.
        device: of the computation.
    """
    if precision == "fp16":
        return torch.float16
    if precision == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.float16
    return arithmetic(precision, device)


def make_scaler(dtype: torch.dtype, device: torch.device) -> torch.amp.GradScaler:
    """Scales the loss so that gradients do not vanish in float16; for other types it does nothing.

    A step whose scaled gradients overflow is left out, and the scale is lowered; this is not an error.
    """
    return torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
