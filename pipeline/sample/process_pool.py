"""Work in several processes, with results in order."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from types import TracebackType
from typing import TypeVar

import cv2

Item = TypeVar("Item")
Result = TypeVar("Result")


def _one_thread() -> None:
    """One thread per process: the processes already use all cores."""
    cv2.setNumThreads(1)


class WorkerPool:
    """Applies a function to items in order: in this process if `workers` is 1, otherwise in `workers` processes."""

    def __init__(self, workers: int) -> None:
        self._pool = (
            ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"), initializer=_one_thread)
            if workers > 1
            else None
        )

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Results in the order of `items`; `function` and items must be picklable."""
        if self._pool is None:
            return map(function, items)
        return self._pool.map(function, items, chunksize=2)

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
