"""One process, or several under torchrun: who is who, who does what, and how they agree."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist

from pipeline.core.errors import UserError

T = TypeVar("T")

_PATIENCE = timedelta(days=30)  # one process may wait for another's last sequence or file, however long it takes


@dataclass(frozen=True)
class Processes:
    """This process among its equals.

    Attributes:
        rank: from 0.
        count: number of processes.
    """

    rank: int
    count: int

    @property
    def first(self) -> bool:
        """Whether this process decides, writes files and reports."""
        return self.rank == 0

    def share(self, batch: int) -> range:
        """Places in a global batch that are this process'.

        Raises:
            UserError: the batch cannot be shared evenly.
        """
        if batch % self.count:
            raise UserError(
                f"batch is {batch} over {self.count} processes; expected a multiple; change runtime.processes"
            )
        return range(self.rank, batch, self.count)

    def mean(self, values: dict[str, float]) -> dict[str, float]:
        """Mean of named numbers over all processes, in every process."""
        if self.count == 1:
            return values
        packed = torch.tensor(list(values.values()), dtype=torch.float64)
        dist.all_reduce(packed)
        return dict(zip(values, (packed / self.count).tolist(), strict=True))

    def agree(self, value: T) -> T:
        """The first process' value, in every process, once all have come this far."""
        if self.count == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def gather(self, values: list[T]) -> list[T]:
        """The values of all processes, in every process, once all have come this far."""
        if self.count == 1:
            return values
        parts: list[list[T]] = [[] for _ in range(self.count)]
        dist.all_gather_object(parts, values)
        return [value for part in parts for value in part]


@contextmanager
def join_processes() -> Iterator[Processes]:
    """Join torchrun's group for the length of the block; outside of torchrun stand alone."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Processes(0, 1)
        return
    # gloo for what lies on the CPU (numbers, objects), NCCL for gradients on GPUs
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=_PATIENCE)
    try:
        yield Processes(dist.get_rank(), count)
    finally:
        dist.destroy_process_group()
