"""One process, or several under torchrun: rank, world size, sharing of work, and communication."""

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

_PATIENCE = timedelta(days=30)  # a process waits for another's last sequence or file for as long as that takes


@dataclass(frozen=True)
class Processes:
    """Rank of this process and number of processes.

    Attributes:
        rank: from 0.
        count: number of processes (world size).
    """

    rank: int
    count: int

    @property
    def first(self) -> bool:
        """Whether this is rank 0, which decides, writes files and logs."""
        return self.rank == 0

    def share(self, batch: int) -> range:
        """Indices in a global batch that belong to this process.

        Raises:
            UserError: the batch cannot be divided evenly.
        """
        if batch % self.count:
            raise UserError(
                f"batch is {batch} over {self.count} processes; expected a multiple of it; change runtime.processes"
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
        """The value of rank 0, in every process; waits for all processes."""
        if self.count == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def gather(self, values: list[T]) -> list[T]:
        """The values of all processes, in every process; waits for all processes."""
        if self.count == 1:
            return values
        parts: list[list[T]] = [[] for _ in range(self.count)]
        dist.all_gather_object(parts, values)
        return [value for part in parts for value in part]


@contextmanager
def join_processes() -> Iterator[Processes]:
    """Join torchrun's process group inside the block; without torchrun, a single process."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Processes(0, 1)
        return
    # gloo for data on the CPU (numbers, objects), NCCL for gradients on GPUs
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=_PATIENCE)
    try:
        yield Processes(dist.get_rank(), count)
    finally:
        dist.destroy_process_group()
