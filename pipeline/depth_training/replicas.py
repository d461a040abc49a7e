"""Copies of the depth network that share its weights, so that the parts of a batch run in parallel."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor

from pipeline.hourglass.network import Hourglass


def replicate(model: Hourglass, count: int) -> list[Hourglass]:
    """The model and copies of it that share its weights but have their own gradients and batch statistics.

    Args:
        model: The network; it is the first of the result.
        count: Number of replicas, the model included.
    """
    replicas = [model]
    for _ in range(count - 1):
        replica = copy.deepcopy(model)
        for mine, shared in zip(replica.parameters(), model.parameters()):
            mine.data = shared.data
        replicas.append(replica)
    return replicas


def average_gradients(replicas: Sequence[Hourglass]) -> None:
    """Give the first replica the mean of the gradients of all; a weight without gradient keeps none."""
    for parameters in zip(*(replica.parameters() for replica in replicas)):
        gradients = [p.grad for p in parameters if p.grad is not None]
        if gradients:
            parameters[0].grad = torch.stack(gradients).mean(0)


@torch.no_grad()
def average_statistics(replicas: Sequence[Hourglass]) -> None:
    """Give all replicas the mean of their running batch statistics."""
    if len(replicas) < 2:
        return
    statistics = [_running_statistics(replica) for replica in replicas]
    mean = [values.clone() for values in statistics[0]]
    for others in statistics[1:]:
        torch._foreach_add_(mean, others)
    torch._foreach_div_(mean, len(replicas))
    for values in statistics:
        torch._foreach_copy_(values, mean)


def _running_statistics(replica: Hourglass) -> list[Tensor]:
    return [buffer for buffer in replica.buffers() if buffer.is_floating_point()]
