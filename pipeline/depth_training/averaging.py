"""Make the trained depth network independent of the last training steps.

Without this, BatchNorm's running statistics come from the last few dozen frames. A feature that rarely occurs in them
gets a small variance, so a frame in which it does occur is estimated far too near or too far, and which features these
are changes with the seed and the CPU. So the statistics are recomputed over as many frames as an epoch has, in batches
large enough to contain rare features, and the last epochs are trained with them. The weights are averaged over many
steps, because the batches are small.
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
        batches: Frames, float32 B,3,H,W in [0, 1], on the network's device, channels last in memory. The larger the
            batches, the more of the variance between frames is counted.
        dtype: Type to compute in, float32 or bfloat16.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    model.train()
    try:
        for i, frames in enumerate(batches):
            for norm in norms:
                norm.momentum = 1 / (i + 1)  # a mean of all batches so far; the first one replaces the old value
            with torch.autocast(frames.device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
                model(frames)
    finally:
        for norm, momentum in zip(norms, momenta):
            norm.momentum = momentum
        model.eval()
