"""Read ahead of and write behind a computation, in threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice, repeat
from types import TracebackType
from typing import TypeVar, cast

T = TypeVar("T")
R = TypeVar("R")


def read_ahead(items: Iterable[T], read: Callable[[T], R], count: int, threads: int) -> Iterator[R]:
    """Results of `read` in the order of the items, with at most `count` of them read in advance.

    Args:
        items: what to read.
        read: reads one item; called in threads.
        count: largest number of results that wait.
        threads: number of threads.

    Raises:
        Exception: raised by `read`, at the item that caused it.
    """
    source = iter(items)
    with ThreadPoolExecutor(threads, "read") as pool:
        ready = deque(pool.submit(read, item) for item in islice(source, count))
        try:
            while ready:
                result = ready.popleft().result()
                ready.extend(pool.submit(read, item) for item in islice(source, 1))
                yield result
        finally:
            for future in ready:
                future.cancel()


def prefetch(items: Iterable[T], count: int) -> Iterator[T]:
    """The items, produced in a thread, with at most `count` of them waiting.

    Raises:
        Exception: raised while producing an item, at that item.
    """
    source, end = iter(items), object()
    for item in read_ahead(repeat(None), lambda _: next(source, end), count, threads=1):
        if item is end:
            return
        yield cast(T, item)


class WriteBehind:
    """Calls that run in threads, at most `count` of them waiting; leaving the block waits for all.

    Args:
        count: largest number of calls that wait.
        threads: number of threads.
    """

    def __init__(self, count: int, threads: int) -> None:
        self._count = count
        self._pool = ThreadPoolExecutor(threads, "write")
        self._waiting: deque[Future[None]] = deque()

    def put(self, write: Callable[[], None]) -> None:
        """Schedule a call of `write`; blocks while too many calls wait.

        Raises:
            Exception: raised by an earlier call.
        """
        while len(self._waiting) >= self._count:
            self._waiting.popleft().result()
        self._waiting.append(self._pool.submit(write))

    def __enter__(self) -> WriteBehind:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True)
        if kind is None:
            for future in self._waiting:
                future.result()
