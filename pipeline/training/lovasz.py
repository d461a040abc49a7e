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
    # void pixels have error 0: they are ordered last and m_i g_i = 0, so they change nothing
    errors = (truth - probabilities).abs() * counts
    losses = every_class(errors, truth, present) if errors.is_cuda else present_classes(errors, truth, present)
    return losses.sum(dim=1) / present.sum(dim=1).clamp(min=1)


def present_classes(errors: Tensor, truth: Tensor, present: Tensor) -> Tensor:
    """Eq. (7) of the classes that are present, the only ones that are sorted.

    Args:
        errors: N,C,P, the m of Eq. (4).
        truth: N,C,P in {0, 1}.
        present: N,C bool.

    Returns:
        N,C; 0 for the other classes.
    """
    rows = _lovasz_extension(errors[present], truth[present])
    return errors.new_zeros(present.shape).index_put(present.nonzero(as_tuple=True), rows)


def every_class(errors: Tensor, truth: Tensor, present: Tensor) -> Tensor:
    """The same by sorting all classes: on a GPU choosing some would wait for the device to say which."""
    rows = _lovasz_extension(errors.flatten(0, 1), truth.flatten(0, 1))
    return rows.view(present.shape) * present


def _lovasz_extension(errors: Tensor, truth: Tensor) -> Tensor:
    """R,P to R: Eq. (7)."""
    errors, order = errors.sort(dim=1, descending=True)
    return (errors * jaccard_gradient(truth.gather(1, order))).sum(dim=1)
