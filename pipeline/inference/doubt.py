"""Measure how certain the network is about each object in each frame, so that a person knows which frames to check."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Doubt(NamedTuple):
    """One object in one frame.

    Attributes:
        object: its id.
        confidence: mean probability of the object over its pixels, in [0, 1]; 0 if it has none.
        doubt: expected number of wrong pixels, as a share of the object's expected size, in [0, 1]: 0 if every pixel is
            certain, 1 if the object is unlikely in every pixel but not excluded.
    """

    object: int
    confidence: float
    doubt: float


def measure_doubt(probabilities: Tensor, ids: list[int]) -> list[Doubt]:
    """Doubt about each object.

    Args:
        probabilities: K+1,h,w float32, background at index 0.
        ids: the ids of the K objects.

    Returns:
        One entry per object, in the order of `ids`. A pixel that belongs to an object with probability p is wrong with
        probability min(p, 1 - p).
    """
    objects = probabilities[1:]
    winner = probabilities.max(dim=0).indices
    numbers = torch.arange(1, len(ids) + 1, device=winner.device)[:, None, None]
    own = (winner == numbers).float()
    confidence = (objects * own).sum(dim=(1, 2)) / own.sum(dim=(1, 2)).clamp(min=1)
    wrong = torch.minimum(objects, 1 - objects).sum(dim=(1, 2)) / objects.sum(dim=(1, 2)).clamp(min=1)
    return [Doubt(*row) for row in zip(ids, confidence.tolist(), wrong.tolist())]
