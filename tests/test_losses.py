"""The Lovász loss against Eq. (5)-(8) computed set by set, and the other terms by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch

from pipeline.datasets.clips import Batch
from pipeline.dstm.network import Unrolled
from pipeline.training.config import LossSwitches
from pipeline.training.losses import Objective, carried_cross_entropy, cross_entropy
from pipeline.training.lovasz import every_class, lovasz_softmax, present_classes
from tests.support.toy_training import TRAINING


def jaccard_loss(mispredicted: set[int], truth: set[int]) -> float:
    """Delta of Eq. (6) for a set of mispredicted pixels."""
    union = truth | mispredicted
    return len(mispredicted) / len(union) if union else 0.0


def naive_extension(errors: list[float], truth: set[int]) -> float:
    """Eq. (7) and (8): pixels join the mispredicted set one by one in decreasing order of error."""
    order = sorted(range(len(errors)), key=lambda i: -errors[i])
    total, so_far = 0.0, set[int]()
    for i in order:
        total += errors[i] * (jaccard_loss(so_far | {i}, truth) - jaccard_loss(so_far, truth))
        so_far.add(i)
    return total


def naive_lovasz(probabilities: np.ndarray, labels: np.ndarray, void: int) -> float:
    keep = labels != void
    p, y = probabilities[:, keep], labels[keep]
    classes = [c for c in range(len(p)) if (y == c).any()]
    losses = [
        naive_extension([abs(float(y[i] == c) - p[c, i]) for i in range(len(y))], set(np.flatnonzero(y == c)))
        for c in classes
    ]
    return sum(losses) / len(losses) if losses else 0.0


@pytest.mark.parametrize("seed", range(6))
def test_lovasz_equals_the_equations(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, c, h, w = 3, 3, 3, 4
    logits = rng.normal(size=(n, c, h, w))
    labels = rng.integers(0, c, (n, h, w))
    labels[0][labels[0] == 2] = 0  # a class that is not present
    labels[1, 0, :2] = 255  # void
    labels[2] = 255 if seed == 0 else labels[2]  # nothing to score
    probabilities = torch.tensor(logits).softmax(1)
    got = lovasz_softmax(probabilities, torch.tensor(labels), 255)
    wanted = [naive_lovasz(probabilities[i].flatten(1).numpy(), labels[i].ravel(), 255) for i in range(n)]
    np.testing.assert_allclose(got.numpy(), wanted, atol=1e-6)


def test_lovasz_is_the_jaccard_loss_on_hard_predictions() -> None:
    """Where errors are 0 or 1 the extension equals the set function, for every prediction of four pixels."""
    labels = torch.tensor([[[0, 1], [1, 1]]])
    for prediction in product((0, 1), repeat=4):
        hard = torch.nn.functional.one_hot(torch.tensor(prediction).view(1, 2, 2), 2).permute(0, 3, 1, 2).float()
        per_class = []
        for c in (0, 1):
            truth = {i for i in range(4) if int(labels.flatten()[i]) == c}
            predicted = {i for i in range(4) if prediction[i] == c}
            per_class.append(1 - len(truth & predicted) / len(truth | predicted))
        assert float(lovasz_softmax(hard, labels, 255)) == pytest.approx(sum(per_class) / 2, abs=1e-6)


def test_lovasz_gradient_is_finite_and_moves_towards_the_truth() -> None:
    logits = torch.zeros(1, 2, 2, 2, requires_grad=True)
    lovasz_softmax(logits.softmax(1), torch.tensor([[[1, 0], [0, 0]]]), 255).sum().backward()
    assert logits.grad is not None and torch.isfinite(logits.grad).all()
    assert float(logits.grad[0, 1, 0, 0]) < 0 < float(logits.grad[0, 1, 1, 1])


def test_cross_entropy_leaves_void_out() -> None:
    logits = torch.tensor([[[[2.0, 9.0]], [[0.0, -9.0]]]])
    labels = torch.tensor([[[1, 255]]])
    assert float(cross_entropy(logits, labels)) == pytest.approx(math.log(1 + math.exp(2.0)), rel=1e-6)


def test_carried_masks_by_hand() -> None:
    """One object over the left half of a 4x4 frame seen at 2x2; the second slot is unused."""
    labels = torch.zeros(1, 1, 4, 4, dtype=torch.int64)
    labels[..., :2] = 1
    carried = torch.tensor([[[[[0.8, 0.3], [0.8, 0.3]], [[0.5, 0.5], [0.5, 0.5]]]]])
    got = carried_cross_entropy(carried, labels, torch.tensor([[True, False]]))
    assert got.tolist() == pytest.approx([-(math.log(0.801) + math.log(0.701)) / 2], rel=1e-5)


def test_void_does_not_count_in_the_carried_loss() -> None:
    """The lower half is void, a void corner of the upper half leaves the object's share of the rest at one."""
    labels = torch.zeros(2, 1, 4, 4, dtype=torch.int64)
    labels[0, 0, :, :2] = 1
    labels[0, 0, 2:] = 255
    labels[0, 0, 0, 0] = 255
    labels[1] = 255
    carried = torch.tensor([[0.8, 0.3], [0.1, 0.9]]).expand(2, 1, 1, 2, 2)
    got = carried_cross_entropy(carried, labels, torch.ones(2, 1, dtype=torch.bool))
    assert got.tolist() == pytest.approx([-(0.75 * math.log(0.801) + math.log(0.701)) / 1.75, 0.0], rel=1e-5)


def test_switch_and_weights() -> None:
    config = replace(TRAINING, lovasz_weight=2.0, carried_weight=0.0)
    generator = torch.Generator().manual_seed(0)
    outcome = Unrolled(torch.randn(2, 2, 3, 8, 8, generator=generator), None)
    labels = torch.randint(0, 3, (2, 3, 8, 8), generator=generator)
    batch = Batch(torch.zeros(2, 3, 3, 8, 8), torch.zeros(2, 3, 1, 8, 8), labels, torch.ones(2, 2, dtype=torch.bool))
    on = Objective(LossSwitches(lovasz=True), config)(outcome, batch)
    off = Objective(LossSwitches(lovasz=False), config)(outcome, batch)
    assert set(off) == {"loss", "cross_entropy"} and float(off["loss"]) == float(off["cross_entropy"])
    assert float(on["loss"]) == pytest.approx(float(on["cross_entropy"] + 2 * on["lovasz"]), rel=1e-6)


def test_sorting_every_class_gives_what_sorting_the_present_ones_gives() -> None:
    generator = torch.Generator().manual_seed(0)
    truth = (torch.rand(3, 4, 50, generator=generator) < 0.3).float()
    truth[0, 1], truth[2] = 0, 0
    present = truth.sum(dim=2) > 0
    found = []
    for way in (present_classes, every_class):
        errors = torch.rand(3, 4, 50, generator=torch.Generator().manual_seed(1)).requires_grad_()
        losses = way(errors, truth, present)
        losses.sum().backward()
        assert errors.grad is not None
        found.append((losses.detach(), errors.grad))
    torch.testing.assert_close(found[0], found[1])
    assert not bool(found[1][0][~present].any()) and not bool(found[1][1][~present].any())
