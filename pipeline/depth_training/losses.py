"""The loss of Li et al. (CVPR 2019): scale-invariant error, multi-scale gradient matching, edge-aware smoothness.

Scales are made as in the MannequinChallenge release: every second pixel of the previous scale, without filtering. If a
scale is too small for a term (one pixel wide: no slopes; below 3x3: no inner pixels), the term is zero there; the
released code returns NaN or fails.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.hourglass.config import DepthLossConfig

_EPSILON = 1e-6  # so that a batch without any known depth gives 0 instead of 0 / 0


class DepthLosses(NamedTuple):
    """Weighted terms of the loss, each a scalar, and their sum."""

    total: Tensor
    data: Tensor
    gradient: Tensor
    first_order: Tensor
    second_order: Tensor


def depth_loss(log_depth: Tensor, frames: Tensor, depth: Tensor, config: DepthLossConfig) -> DepthLosses:
    """All terms with their weights.

    Args:
        log_depth: B,H,W estimate.
        frames: B,3,H,W in [0, 1].
        depth: B,H,W true depth; 0 if unknown.
        config: Weights and number of scales.
    """
    mask = (depth > 0).to(log_depth.dtype)
    residual = log_depth - torch.where(depth > 0, depth, torch.ones_like(depth)).log()
    data = scale_invariant_error(residual, mask)
    gradient, first, second = (torch.zeros_like(data) for _ in range(3))
    for scale in range(config.scales):
        step = 2**scale
        estimate, image = log_depth[:, ::step, ::step], frames[:, :, ::step, ::step]
        gradient = gradient + gradient_matching(residual[:, ::step, ::step], mask[:, ::step, ::step])
        first = first + first_order_smoothness(estimate, image) / step
        second = second + second_order_smoothness(estimate, image) / step
    terms = (config.data * data, config.gradient * gradient, config.first_order * first, config.second_order * second)
    return DepthLosses(sum(terms, torch.zeros_like(data)), *terms)


def scale_invariant_error(residual: Tensor, mask: Tensor) -> Tensor:
    """Variance of the log-depth error over the known pixels of each frame, mean of the frames.

    Equals half the mean squared difference of the errors of all pairs of pixels, so a common factor of the depth does
    not change it.

    Args:
        residual: B,H,W log of the estimate minus log of the true depth.
        mask: B,H,W of 0 and 1; 1 if the true depth is known.

    Returns:
        Scalar.
    """
    count = mask.sum((1, 2)) + _EPSILON
    known = residual * mask
    return (known.square().sum((1, 2)) / count - (known.sum((1, 2)) / count).square()).mean()


def gradient_matching(residual: Tensor, mask: Tensor) -> Tensor:
    """Mean absolute difference of the log-depth error between pixels at distance two, if both are known.

    Args:
        residual: B,H,W as above.
        mask: B,H,W as above.

    Returns:
        Scalar; the mean is over both directions and all of the batch; 0 if no two such pixels are known.
    """
    down = (residual[:, 2:] - residual[:, :-2]).abs()
    right = (residual[:, :, 2:] - residual[:, :, :-2]).abs()
    both_down = mask[:, 2:] * mask[:, :-2]
    both_right = mask[:, :, 2:] * mask[:, :, :-2]
    count = both_down.sum() + both_right.sum() + _EPSILON
    return ((down * both_down).sum() + (right * both_right).sum()) / count


def first_order_smoothness(log_depth: Tensor, frames: Tensor) -> Tensor:
    """Mean slope of the log-depth, weighted down at edges of the frame.

    Args:
        log_depth: B,H,W.
        frames: B,3,H,W in [0, 1].

    Returns:
        Scalar: mean over the pixels that have a right and a lower neighbour of |slope| exp(-|edge|), the two directions
        summed; |edge| is the mean of the channels. 0 if there is no such pixel (a side of 1).
    """
    down = (log_depth[:, 1:] - log_depth[:, :-1]).abs() * _damping(frames[:, :, 1:] - frames[:, :, :-1])
    right = (log_depth[:, :, 1:] - log_depth[:, :, :-1]).abs() * _damping(frames[:, :, :, 1:] - frames[:, :, :, :-1])
    return _mean(down[:, :, :-1] + right[:, :-1])


def second_order_smoothness(log_depth: Tensor, frames: Tensor) -> Tensor:
    """Mean curvature of the log-depth, weighted down where the frame has curvature.

    Args:
        log_depth: B,H,W.
        frames: B,3,H,W in [0, 1].

    Returns:
        Scalar: mean over the inner pixels of |Laplacian| exp(-|Laplacian of the frame|), the latter the mean of the
        channels; 0 if there is no inner pixel (a side below 3).
    """
    return _mean(_laplacian(log_depth).abs() * _damping(_laplacian(frames)))


def _mean(x: Tensor) -> Tensor:
    """Mean; 0 for an empty tensor."""
    return x.mean() if x.numel() else x.sum()


def _damping(change: Tensor) -> Tensor:
    """B,3,H,W -> B,H,W in (0, 1]."""
    return torch.exp(-change.abs().mean(1))


def _laplacian(x: Tensor) -> Tensor:
    """...,H,W -> ...,H-2,W-2: four times a pixel minus its four neighbours."""
    inner = x[..., 1:-1, 1:-1]
    return 4 * inner - x[..., :-2, 1:-1] - x[..., 2:, 1:-1] - x[..., 1:-1, :-2] - x[..., 1:-1, 2:]
