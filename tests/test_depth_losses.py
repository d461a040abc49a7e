from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.depth_training.losses import (
    depth_loss,
    first_order_smoothness,
    gradient_matching,
    scale_invariant_error,
    second_order_smoothness,
)
from pipeline.hourglass.config import DepthLossConfig

B, H, W = 2, 7, 9


@pytest.fixture
def residual() -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).normal(size=(B, H, W)))


@pytest.fixture
def mask() -> Tensor:
    return torch.from_numpy((np.random.default_rng(1).random((B, H, W)) < 0.6).astype(np.float64))


@pytest.fixture
def image() -> Tensor:
    return torch.from_numpy(np.random.default_rng(2).random((B, 3, H, W)))


def naive_error(residual: Tensor, mask: Tensor) -> float:
    """Half the mean, over all ordered pairs of known pixels, of the squared difference of their errors."""
    frames = []
    for b in range(residual.shape[0]):
        known = [float(r) for r, m in zip(residual[b].flatten(), mask[b].flatten()) if m]
        pairs = [(one - other) ** 2 for one in known for other in known]
        frames.append(sum(pairs) / len(pairs) / 2 if pairs else 0.0)
    return sum(frames) / len(frames)


def naive_gradient(residual: Tensor, mask: Tensor) -> float:
    total, count = 0.0, 0
    for b in range(residual.shape[0]):
        for y in range(residual.shape[1]):
            for x in range(residual.shape[2]):
                for dy, dx in ((2, 0), (0, 2)):
                    inside = y + dy < residual.shape[1] and x + dx < residual.shape[2]
                    if inside and mask[b, y, x] and mask[b, y + dy, x + dx]:
                        total += abs(float(residual[b, y + dy, x + dx] - residual[b, y, x]))
                        count += 1
    return total / count if count else 0.0


def naive_first(log_depth: Tensor, image: Tensor) -> float:
    total, count = 0.0, 0
    for b in range(log_depth.shape[0]):
        for y in range(log_depth.shape[1] - 1):
            for x in range(log_depth.shape[2] - 1):
                for dy, dx in ((1, 0), (0, 1)):
                    edge = sum(abs(float(image[b, c, y + dy, x + dx] - image[b, c, y, x])) for c in range(3)) / 3
                    total += abs(float(log_depth[b, y + dy, x + dx] - log_depth[b, y, x])) * math.exp(-edge)
                count += 1
    return total / count if count else 0.0


def naive_second(log_depth: Tensor, image: Tensor) -> float:
    def bend(plane: Tensor, y: int, x: int) -> float:
        around = plane[y - 1, x] + plane[y + 1, x] + plane[y, x - 1] + plane[y, x + 1]
        return abs(float(4 * plane[y, x] - around))

    total, count = 0.0, 0
    for b in range(log_depth.shape[0]):
        for y in range(1, log_depth.shape[1] - 1):
            for x in range(1, log_depth.shape[2] - 1):
                edge = sum(bend(image[b, c], y, x) for c in range(3)) / 3
                total += bend(log_depth[b], y, x) * math.exp(-edge)
                count += 1
    return total / count if count else 0.0


def test_scale_invariant_error(residual: Tensor, mask: Tensor) -> None:
    assert float(scale_invariant_error(residual, mask)) == pytest.approx(naive_error(residual, mask), rel=1e-5)


def test_gradient_matching(residual: Tensor, mask: Tensor) -> None:
    assert float(gradient_matching(residual, mask)) == pytest.approx(naive_gradient(residual, mask), rel=1e-5)


@pytest.mark.parametrize(
    ("ours", "naive"), [(first_order_smoothness, naive_first), (second_order_smoothness, naive_second)]
)
def test_smoothness(
    ours: Callable[[Tensor, Tensor], Tensor], naive: Callable[[Tensor, Tensor], float], residual: Tensor, image: Tensor
) -> None:
    assert float(ours(residual, image)) == pytest.approx(naive(residual, image))


@pytest.mark.parametrize(("height", "width"), [(48, 64), (20, 33), (40, 3), (2, 50), (1, 7), (1, 1)], ids=str)
def test_total_over_five_scales(height: int, width: int) -> None:
    """Also where the coarse scales have no inner pixel, no slope or a single pixel: those add nothing."""
    rng = np.random.default_rng([3, height, width])
    log_depth = torch.from_numpy(rng.normal(size=(B, height, width))).requires_grad_()
    image = torch.from_numpy(rng.random((B, 3, height, width)))
    depth = torch.from_numpy(rng.uniform(1, 9, (B, height, width)) * (rng.random((B, height, width)) < 0.7))
    depth[:, 0, 0] = 2.0
    mask = (depth > 0).double()
    residual = log_depth.detach() - depth.clamp(min=1e-9).log()
    losses = depth_loss(log_depth, image, depth, DepthLossConfig(1.5, 0.75, 0.075, 0.1, 5))
    gradient = first = second = 0.0
    for scale in range(5):
        step, weight = 2**scale, 0.5**scale
        estimate, frames = log_depth.detach()[:, ::step, ::step], image[:, :, ::step, ::step]
        gradient += 0.75 * naive_gradient(residual[:, ::step, ::step], mask[:, ::step, ::step])
        first += 0.075 * weight * naive_first(estimate, frames)
        second += 0.1 * weight * naive_second(estimate, frames)
    known = [residual[b][depth[b] > 0] for b in range(B)]
    data = 1.5 * sum(float(r.var(unbiased=False)) for r in known) / B
    for got, expected in zip(losses[1:], (data, gradient, first, second)):
        assert float(got.detach()) == pytest.approx(expected, rel=1e-5, abs=1e-5)
    assert float(losses.total.detach()) == pytest.approx(data + gradient + first + second, rel=1e-5, abs=1e-5)
    losses.total.backward()
    assert log_depth.grad is not None and torch.isfinite(log_depth.grad).all()


def test_values_by_hand() -> None:
    """A 3x3 frame: every term from a few additions."""
    log_depth = torch.tensor([[[0.0, 0.0, 1.0], [0.0, 2.0, 0.0], [4.0, 0.0, 0.0]]], dtype=torch.float64)
    known = torch.tensor([[[1.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]], dtype=torch.float64)
    plain = torch.full((1, 3, 3, 3), 0.5, dtype=torch.float64)
    # errors 0, 1, 2, 4 where known: mean of squares 21/4, mean 7/4
    assert float(scale_invariant_error(log_depth, known)) == pytest.approx(21 / 4 - (7 / 4) ** 2, rel=1e-5)
    # known two apart: top row 0 and 1, left column 0 and 4
    assert float(gradient_matching(log_depth, known)) == pytest.approx((1 + 4) / 2, rel=1e-5)
    # right slopes of the four pixels with both neighbours: 0, 1, 2, 2; down slopes: 0, 2, 4, 2
    assert float(first_order_smoothness(log_depth, plain)) == pytest.approx((0 + 1 + 2 + 2 + 0 + 2 + 4 + 2) / 4)
    assert float(second_order_smoothness(log_depth, plain)) == pytest.approx(4 * 2)
    edged = plain.clone()
    edged[0, 0, 1, 1] = 0.8  # one of three channels: the mean edge is 0.1, the mean curvature 0.4
    right = 0 + 1 + 2 * math.exp(-0.1) + 2 * math.exp(-0.1)
    down = 0 + 2 * math.exp(-0.1) + 4 + 2 * math.exp(-0.1)
    assert float(first_order_smoothness(log_depth, edged)) == pytest.approx((right + down) / 4)
    assert float(second_order_smoothness(log_depth, edged)) == pytest.approx(8 * math.exp(-0.4))


def test_a_common_factor_of_depth_costs_nothing(residual: Tensor, mask: Tensor) -> None:
    for term in (scale_invariant_error, gradient_matching):
        assert float(term(residual + math.log(7), mask)) == pytest.approx(float(term(residual, mask)), rel=1e-5)


def test_unknown_pixels_do_not_matter(residual: Tensor, mask: Tensor) -> None:
    spoilt = torch.where(mask > 0, residual, torch.full_like(residual, 1e3))
    for term in (scale_invariant_error, gradient_matching):
        assert float(term(spoilt, mask)) == pytest.approx(float(term(residual, mask)), rel=1e-5)


def test_nothing_known_gives_zero_and_finite_gradients() -> None:
    log_depth = torch.randn(1, 48, 48, requires_grad=True)
    losses = depth_loss(
        log_depth, torch.rand(1, 3, 48, 48), torch.zeros(1, 48, 48), DepthLossConfig(1.0, 0.75, 0.0, 0.0, 5)
    )
    losses.total.backward()
    assert float(losses.total.detach()) == 0.0
    assert log_depth.grad is not None and torch.isfinite(log_depth.grad).all()


def test_edges_of_the_frame_pay_for_edges_of_depth() -> None:
    log_depth = torch.zeros(1, 8, 8)
    log_depth[:, :, 4:] = 1
    flat = torch.zeros(1, 3, 8, 8)
    edged = flat.clone()
    edged[:, :, :, 4:] = 1
    for term in (first_order_smoothness, second_order_smoothness):
        assert float(term(log_depth, edged)) == pytest.approx(float(term(log_depth, flat)) / math.e, rel=1e-5)
