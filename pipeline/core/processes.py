"""One process, or several under torchrun: rank, world size, sharing of work, and communication."""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import NoReturn, TypeVar, cast

import torch
import torch.distributed as dist
from torch.distributed.elastic.multiprocessing.errors import get_error_handler

from pipeline.core.errors import UserError
from pipeline.core.runtime import report_error
from pipeline.core.signals import end_with_parent

T = TypeVar("T")

_STEP = timedelta(minutes=10)  # what a process waits for the others in a training step: longer means that one hangs
_PATIENCE = timedelta(days=30)  # a process waits for another's last sequence or file for as long as that takes


@dataclass(frozen=True)
class Processes:
    """Rank of this process and number of processes.

    Attributes:
        rank: from 0.
        count: number of processes (world size).
        patient: the group in which processes wait for another's work; None: that of training steps.
    """

    rank: int
    count: int
    patient: dist.ProcessGroup | None = field(default=None, compare=False, repr=False)

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
        """Mean of named numbers over all processes, in every process; fails if a process does not answer in minutes."""
        if self.count == 1:
            return values
        packed = torch.tensor(list(values.values()), dtype=torch.float64)
        dist.all_reduce(packed)
        return dict(zip(values, (packed / self.count).tolist(), strict=True))

    def agree(self, value: T) -> T:
        """The value of rank 0, in every process; waits for all processes, however long that takes."""
        if self.count == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, group=self.patient)
        return box[0]

    def gather(self, values: list[T]) -> list[T]:
        """The values of all processes, in every process; waits for all processes, however long that takes."""
        if self.count == 1:
            return values
        parts: list[list[T]] = [[] for _ in range(self.count)]
        dist.all_gather_object(parts, values, group=self.patient)
        return [value for part in parts for value in part]


@contextmanager
def join_processes() -> Iterator[Processes]:
    """Join torchrun's process group inside the block; without torchrun, a single process.

    Among several processes, one that fails reports its error and exits at once, without a word to the others: they may
    be waiting for it in the middle of an exchange. torchrun then ends them, and so does the system if torchrun itself
    is killed.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Processes(0, 1)
        return
    end_with_parent()
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    # gloo for data on the CPU (numbers, objects), NCCL for gradients on GPUs
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=_STEP)
    patient = dist.new_group(backend="gloo", timeout=_PATIENCE)
    try:
        yield Processes(dist.get_rank(), count, cast(dist.ProcessGroup, patient))
    except BaseException as error:
        _leave(error)
    dist.destroy_process_group()


def _leave(error: BaseException) -> NoReturn:
    """Report an error to the user and to torchrun, and exit without waiting for anything."""
    code = report_error(error)
    if code is None:
        traceback.print_exception(error)
    if not isinstance(error, KeyboardInterrupt):
        get_error_handler().record_exception(error)
    os._exit(code or 1)
