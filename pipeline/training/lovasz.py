"""The Lovász loss, Eq. (4)-(8)."""

from __future__ import annotations

import torch
from torch import Tensor


def jaccard_gradient(truth: Tensor) -> Tensor:
    """g(m) of Eq. (8): the growth of the Jaccard loss, Eq. (6), as pixels join the mispredicted set.

    Args:
        truth: R,P in {0, 1}; each row is the class's true mask with pixels ordered by decreasing error.

    Returns:
        R,P; entry i is Delta({pi_1..pi_i}) - Delta({pi_1..pi_i-1}).
    """
    total = truth.sum(dim=1, keepdim=True)
    missed = truth.cumsum(dim=1)  # true pixels among the first i: no longer in the intersection
    added = (1 - truth).cumsum(dim=1)  # false pixels among the first i: now in the union
    delta = 1 - (total - missed) / (total + added)
    return torch.cat([delta[:, :1], delta[:, 1:] - delta[:, :-1]], dim=1)


def lovasz_softmax(probabilities: Tensor, labels: Tensor, void: int) -> Tensor:
    """Lovász-softmax of each image, averaged over the classes present in it, Eq. (4).

    Args:
        probabilities: N,C,H,W.
        labels: int64 N,H,W; class ids, or `void` for pixels that are ignored.
        void: the label of such pixels.

    Returns:
        N losses; 0 if no class is present.
    """
    n, c, h, w = probabilities.shape
    probabilities = probabilities.float().flatten(2)  # N,C,P
    labels = labels.flatten(1)
    counts = (labels != void)[:, None]  # N,1,P
    truth = (labels[:, None] == torch.arange(c, device=labels.device)[:, None]).float()  # N,C,P
    present = truth.sum(dim=2) > 0  # N,C
    errors = ((truth - probabilities).abs() * counts)[present]  # R,P: rows of classes that are present
    # void pixels have error 0: they are ordered last and m_i g_i = 0, so they change nothing
    errors, order = errors.sort(dim=1, descending=True)
    rows = (errors * jaccard_gradient(truth[present].gather(1, order))).sum(dim=1)  # Eq. (7)
    losses = probabilities.new_zeros(n, c).index_put(present.nonzero(as_tuple=True), rows)
    return losses.sum(dim=1) / present.sum(dim=1).clamp(min=1)
