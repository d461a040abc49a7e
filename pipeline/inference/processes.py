"""Several processes that share the sequences of a set (torchrun)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch.distributed as dist

T = TypeVar("T")

_PATIENCE = timedelta(days=30)  # one process may wait for the others' last sequence, however long it takes


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
        """Whether this process decides and assembles the result."""
        return self.rank == 0

    def agree(self, value: T) -> T:
        """The first process' value, in every process."""
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
    dist.init_process_group("gloo", timeout=_PATIENCE)
    try:
        yield Processes(dist.get_rank(), count)
    finally:
        dist.destroy_process_group()
