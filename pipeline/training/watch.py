"""What a person sees of a training under way: a bar or regular lines, the curves, TensorBoard's events."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import torch
from tqdm import tqdm

from pipeline.core.errors import UserError
from pipeline.core.runtime import log
from pipeline.training.config import TrainingConfig
from pipeline.training.curves import write_curves

T = TypeVar("T")

LINE_EVERY = 30.0
"""Seconds between two lines of the log if the output is not a terminal."""


class Watch:
    """Follows a training in the first process; in the others it does nothing.

    Args:
        config: of the stage.
        total: steps of the whole training.
        first: steps that earlier runs have made.
        device: of the computation.
        curves: CSV file that is rewritten after each epoch; None: in another process than the first, nothing is shown.
        events: folder for TensorBoard's event files; None: none.

    Raises:
        UserError: event files are wanted and TensorBoard is not installed.
    """

    def __init__(
        self,
        config: TrainingConfig,
        total: int,
        first: int,
        device: torch.device,
        curves: Path | None,
        events: Path | None,
    ) -> None:
        self._config, self._total, self._device, self._curves = config, total, device, curves
        self._first = self._step = first
        self._start = self._line = time.monotonic()
        self._waited = 0.0
        self._sums: dict[str, float] = {}
        self._count = 0
        on = curves is not None
        self._bar = tqdm(total=total, initial=first, dynamic_ncols=True) if on and sys.stderr.isatty() else None
        self._writer = _open_writer(events) if on and events is not None else None

    def feed(self, batches: Iterable[T]) -> Iterator[T]:
        """The batches; the time that they keep the training waiting is counted."""
        source = iter(batches)
        while True:
            start = time.monotonic()
            try:
                batch = next(source)
            except StopIteration:
                return
            self._waited += time.monotonic() - start
            yield batch

    def step(self, number: int, lr: float, skip: int, losses: dict[str, float]) -> None:
        """Note that losses were read after a step.

        Args:
            number: steps so far.
            lr: learning rate of the last one.
            skip: largest skip between frames.
            losses: means over the steps since they were read before.
        """
        if self._curves is None:
            return
        made, self._step = number - self._step, number
        for name, value in losses.items():
            self._sums[name] = self._sums.get(name, 0.0) + made * value
        self._count += made
        if self._bar is not None:
            self._bar.set_postfix_str(_terms(losses), refresh=False)
            self._bar.update(made)
        if self._writer is not None:
            for name, value in {**losses, "lr": lr, "max_skip": skip, "data_wait": self._wait_share()}.items():
                self._writer.add_scalar(name, value, number)
        if self._bar is None and time.monotonic() - self._line >= LINE_EVERY:
            means = {name: value / self._count for name, value in self._sums.items()}
            epoch = 1 + (number - 1) * self._config.epochs // self._total
            log(
                f"step {number}/{self._total} (epoch {epoch}/{self._config.epochs}): {_terms(means)}; lr {lr:.3g}, "
                f"skip up to {skip}; {self._pace()}"
            )
            self._sums, self._count, self._line = {}, 0, time.monotonic()

    def epoch(self, history: list[dict[str, Any]]) -> None:
        """Show a finished epoch and rewrite the curves.

        Args:
            history: one row per epoch so far.
        """
        if self._curves is None:
            return
        write_curves(self._curves, history)
        row = history[-1]
        terms = {name: value for name, value in row.items() if name not in ("epoch", "step", "lr", "max_skip")}
        text = (
            f"epoch {row['epoch']:.0f}/{self._config.epochs} step {row['step']:.0f}: {_terms(terms)} ({self._pace()})"
        )
        if self._bar is None:
            log(text)
        else:
            self._bar.write(text, file=sys.stdout)
        if self._writer is not None:
            for name, value in terms.items():
                if value != value:  # not validated
                    continue
                self._writer.add_scalar(f"epoch/{name}", value, int(row["step"]))
            self._writer.flush()

    def close(self) -> None:
        """Leave the terminal and the event files in order."""
        if self._bar is not None:
            self._bar.close()
        if self._writer is not None:
            self._writer.close()

    def _wait_share(self) -> float:
        return self._waited / max(time.monotonic() - self._start, 1e-9)

    def _pace(self) -> str:
        seconds = (time.monotonic() - self._start) / max(1, self._step - self._first)
        left = seconds * (self._total - self._step)
        return (
            f"{seconds:.2f} s/step, {self._config.batch / seconds:.1f} clips/s, {100 * self._wait_share():.0f}% "
            f"waiting for clips, {self._memory():.1f} GiB, {_duration(left)} left"
        )

    def _memory(self) -> float:
        """Peak memory of this process in GiB: on a GPU of its tensors, on a CPU of everything."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device) / 2**30
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / 2 ** (30 if sys.platform == "darwin" else 20)


def _terms(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in values.items() if value == value)


def _duration(seconds: float) -> str:
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min" if minutes else f"{seconds:.0f} s"


def _open_writer(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UserError(
            "runtime.tensorboard is true, but tensorboard is not installed; expected it for event files; run pip "
            "install tensorboard, or set runtime.tensorboard to false"
        ) from None
    return SummaryWriter(str(folder))
