"""The training objective: cross-entropy, Lovász loss and an optional term on the attention."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.core.images import VOID
from pipeline.datasets.clips import Batch
from pipeline.dstm.network import Unrolled
from pipeline.training.config import LossSwitches, TrainingConfig
from pipeline.training.lovasz import lovasz_softmax


class Objective:
    """Named losses of a batch; each is a mean over clips, so splitting a batch over processes does not change it.

    Args:
        switches: whether the Lovász loss is added.
        config: the weights.
    """

    def __init__(self, switches: LossSwitches, config: TrainingConfig) -> None:
        self.lovasz = switches.lovasz
        self.lovasz_weight = config.lovasz_weight
        self.carried_weight = config.carried_weight

    def __call__(self, outcome: Unrolled, batch: Batch) -> dict[str, Tensor]:
        """Compute the losses.

        Args:
            outcome: predictions for frames 2..T.
            batch: the clips, T frames.

        Returns:
            `loss` (the weighted sum) and each term.
        """
        logits = outcome.logits.float()
        b, t = logits.shape[:2]
        labels = batch.labels[:, 1:]
        terms = {"cross_entropy": cross_entropy(logits.flatten(0, 1), labels.flatten(0, 1)).mean()}
        total = terms["cross_entropy"]
        if self.lovasz:
            probabilities = logits.flatten(0, 1).softmax(dim=1)
            terms["lovasz"] = lovasz_softmax(probabilities, labels.flatten(0, 1), VOID).mean()
            total = total + self.lovasz_weight * terms["lovasz"]
        if self.carried_weight and outcome.carried is not None:
            terms["carried"] = carried_cross_entropy(outcome.carried, labels, batch.objects).mean()
            total = total + self.carried_weight * terms["carried"]
        return {"loss": total, **terms}


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy over the pixels of each image that are not void.

    Args:
        logits: N,C,H,W.
        labels: int64 N,H,W with void as 255.

    Returns:
        N losses.
    """
    pixels = F.cross_entropy(logits, labels, ignore_index=VOID, reduction="none").flatten(1)
    counts = (labels != VOID).flatten(1).sum(dim=1).clamp(min=1)
    return pixels.sum(dim=1) / counts


def carried_cross_entropy(carried: Tensor, labels: Tensor, objects: Tensor) -> Tensor:
    """Binary cross-entropy between the masks that the attention copies and the true masks at the same stride.

    The target of a feature pixel is the object's share of its image pixels that are not void; its weight is the share
    of image pixels that are not void.

    Args:
        carried: B,T-1,K,h,w in [0, 1].
        labels: int64 B,T-1,H,W with void as 255.
        objects: B,K bool, on any device.

    Returns:
        B losses, each the mean over the clip's frames, used object slots and feature pixels; 0 if all pixels are void.
    """
    b, t, k, h, w = carried.shape
    ids = torch.arange(1, k + 1, device=labels.device).view(1, 1, k, 1, 1)
    known = F.adaptive_avg_pool2d((labels != VOID).float(), (h, w))[:, :, None]  # B,T-1,1,h,w
    truth = F.adaptive_avg_pool2d((labels[:, :, None] == ids).float().flatten(0, 1), (h, w)).view(b, t, k, h, w)
    truth = truth / known.clamp(min=1e-6)
    # log(p + eps) instead of a clamp, which would stop the gradient exactly where the attention is wrong
    p, eps = carried.float(), 1e-3
    entropy = -(truth * torch.log(p + eps) + (1 - truth) * torch.log(1 - p + eps))
    used = objects.to(labels.device, non_blocking=True)
    weight = used[:, None, :, None, None].float() * known
    return (entropy * weight).flatten(1).sum(dim=1) / weight.flatten(1).sum(dim=1).clamp(min=1e-6)


@torch.no_grad()
def clip_jaccard(logits: Tensor, labels: Tensor, objects: Tensor) -> Tensor:
    """J of the predicted masks of training clips; void pixels do not count.

    Args:
        logits: B,T-1,K+1,H,W.
        labels: int64 B,T-1,H,W with void as 255.
        objects: B,K bool, on any device.

    Returns:
        float32 B, each the mean over the clip's frames and used object slots; 1 for an object that is neither there nor
        predicted.
    """
    ids = torch.arange(1, objects.shape[1] + 1, device=labels.device).view(1, 1, -1, 1, 1)
    known = (labels != VOID)[:, :, None]
    predicted, truth = (logits.argmax(dim=2)[:, :, None] == ids) & known, labels[:, :, None] == ids
    both, either = ((predicted & truth).sum(dim=(3, 4)), (predicted | truth).sum(dim=(3, 4)))  # B,T-1,K
    jaccard = torch.where(either > 0, both / either.clamp(min=1), 1.0)
    weight = objects.to(labels.device, non_blocking=True)[:, None].expand_as(jaccard).float()
    return (jaccard * weight).flatten(1).sum(dim=1) / weight.flatten(1).sum(dim=1).clamp(min=1)
