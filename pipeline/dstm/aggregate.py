"""Soft aggregation of single-object predictions to one distribution over background and objects."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

_LIMIT = math.log((1 - 1e-7) / 1e-7)  # log-odds of a probability clamped to [1e-7, 1 - 1e-7]
_ABSENT = -1.0e4  # an unused object slot: no mass after the softmax


def soft_aggregate(odds: Tensor, objects: Tensor | None = None) -> Tensor:
    """Merge objects: background = prod(1 - p_k); the logits of the result are the log-odds of each.

    The clamp of STM, p in [1e-7, 1 - 1e-7], is applied to the value while the gradient passes unchanged, so that a
    confident mistake can still be unlearned.

    Args:
        odds: B,K,H,W log-odds of each object against everything else.
        objects: B,K bool, which slots are in use; all if None.

    Returns:
        B,K+1,H,W float32 logits; softmax over dim 1 gives probabilities, background at index 0.
    """
    odds = odds.float()
    absent = None if objects is None else ~objects[:, :, None, None]
    not_object = F.logsigmoid(-odds)  # log(1 - p_k)
    if absent is not None:
        not_object = not_object.masked_fill(absent, 0.0)
    background = not_object.sum(dim=1, keepdim=True).clamp(max=-1e-7)  # log of the product
    background_odds = background - torch.log(-torch.expm1(background))
    logits = torch.cat([_clamp(background_odds), _clamp(odds)], dim=1)
    if absent is not None:
        logits = torch.cat([logits[:, :1], logits[:, 1:].masked_fill(absent, _ABSENT)], dim=1)
    return logits


def _clamp(odds: Tensor) -> Tensor:
    return odds + (odds.clamp(-_LIMIT, _LIMIT) - odds).detach()
