"""One process or several under torchrun: who takes which part of the batch, and how gradients meet."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from pipeline.core.errors import UserError


@dataclass(frozen=True)
class Processes:
    """This process among those that share a batch.

    Attributes:
        rank: from 0.
        count: number of processes.
        device: of this process.
    """

    rank: int
    count: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this process writes files and messages."""
        return self.rank == 0

    def share(self, batch: int) -> range:
        """Places in the global batch that are this process'.

        Raises:
            UserError: the batch cannot be shared evenly.
        """
        if batch % self.count:
            raise UserError(
                f"batch is {batch} over {self.count} processes; expected a multiple; change runtime.processes"
            )
        return range(self.rank, batch, self.count)

    def wrap(self, network: nn.Module) -> nn.Module:
        """The network whose gradients are averaged over all processes."""
        if self.count == 1:
            return network
        ids = [self.device.index] if self.device.type == "cuda" else None
        return DistributedDataParallel(network, device_ids=ids)

    def mean(self, values: dict[str, float]) -> dict[str, float]:
        """Mean of named numbers over all processes."""
        if self.count == 1:
            return values
        packed = torch.tensor(list(values.values()), dtype=torch.float64, device=self.device)
        dist.all_reduce(packed)
        return dict(zip(values, (packed / self.count).tolist(), strict=True))

    def wait(self) -> None:
        """Let every process reach this point."""
        if self.count > 1:
            dist.barrier()


def join_processes(device: torch.device) -> Processes:
    """Join torchrun's group, or stand alone outside of it."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return Processes(int(os.environ.get("RANK", "0")), count, device)
