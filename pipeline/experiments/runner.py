"""Run experiments with `dvc exp run --temp`, several at a time, so that a killed ablation can be continued.

DVC's own queue is not used, because it cannot keep apart two rows that need the same training: both would start it, and
the second one would fail at the lock of the first. `--queue` of the command hands rows to that queue nevertheless.
"""

from __future__ import annotations

import fcntl
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.core.errors import UserError
from pipeline.core.runtime import log
from pipeline.experiments.rows import Experiment, as_argument

_POLL_S, _STOP_S = 0.5, 20.0
# What a run prints that must wait for another one: of our stages' locks, and of DVC's own.
_BUSY = re.compile(r"is locked by another run of this stage|Unable to acquire lock|Lock.*is held by")
_STARTED = re.compile(r"^(Running stage|Stage) '", re.MULTILINE)  # DVC has taken this run, so another one may start


def command(experiment: Experiment, *options: str) -> list[str]:
    """The `dvc exp run` of an experiment.

    Args:
        experiment: name and changes of parameters.
        options: `--temp` or `--queue`.
    """
    changes = [part for key, value in experiment.overrides.items() for part in ("-S", f"{key}={as_argument(value)}")]
    return [sys.executable, "-m", "dvc", "exp", "run", *options, "-n", experiment.name, *changes]


def environment() -> dict[str, str]:
    """This process' environment with the folder of its Python first on PATH, where DVC looks for programs."""
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"}


@dataclass
class _Running:
    """A row that is being run, by this call or by an earlier one that was killed (`process` is then None)."""

    experiment: Experiment
    process: subprocess.Popen[bytes] | None
    begun: float = field(default_factory=time.monotonic)


class Runner:
    """Runs experiments and keeps a log file of each.

    While an experiment runs, its `dvc` holds a lock on a file, so that a later call waits for it instead of starting it
    a second time.

    Args:
        root: the project's folder.
        logs: folder for log and lock files, outside every DVC output.
        finished: whether an experiment is among those that DVC has saved.
        clean: removes an experiment of the same name whose parameters or code are older.
        wait_s: seconds until an experiment is tried again that had to wait for another one's stage.
    """

    def __init__(
        self,
        root: Path,
        logs: Path,
        finished: Callable[[Experiment], bool],
        clean: Callable[[Experiment], None],
        wait_s: float = 20.0,
    ) -> None:
        self._root, self._logs = root, logs
        self._finished, self._clean, self._wait_s = finished, clean, wait_s
        self._running: list[_Running] = []
        self._not_before: dict[str, float] = {}

    def log_file(self, experiment: Experiment) -> Path:
        """Everything that DVC and the stages printed for an experiment."""
        return self._logs / f"{experiment.name}.log"

    def failure(self, experiment: Experiment) -> str | None:
        """Why an experiment failed when it was last run, one line; None if it did not."""
        path = self._logs / f"{experiment.name}.failed"
        return path.read_text().strip() if path.is_file() else None

    def run(self, experiments: Sequence[Experiment], jobs: int) -> None:
        """Run experiments in this order, at most one per seed at a time (rows of a seed share their depth network).

        One that fails is logged and left out. After Ctrl-C or SIGTERM the running ones are stopped.

        Args:
            experiments: those that are not finished.
            jobs: largest number at a time.

        Raises:
            UserError: `jobs` is below 1.
        """
        if jobs < 1:
            raise UserError(f"--jobs is {jobs}; expected the number of rows to run at a time, at least 1")
        self._logs.mkdir(parents=True, exist_ok=True)
        waiting, total = list(experiments), len(experiments)
        previous = signal.signal(signal.SIGTERM, _interrupt)
        try:
            while waiting or self._running:
                for entry in [entry for entry in self._running if self._has_ended(entry)]:
                    self._running.remove(entry)
                    if not self._settle(entry):
                        waiting.append(entry.experiment)
                chosen = self._next(waiting) if len(self._running) < jobs else None
                if chosen is None:
                    time.sleep(_POLL_S)
                    continue
                waiting.remove(chosen)
                log(f"{total - len(waiting)} of {total}: {chosen.name}")
                self._start(chosen)
        finally:
            self._stop()
            signal.signal(signal.SIGTERM, previous)

    def _next(self, waiting: Sequence[Experiment]) -> Experiment | None:
        """The first that may start now: its seed is free, its time has come, and the last one is past its start."""
        if any(not self._past_start(entry) for entry in self._running):
            return None
        seeds = {entry.experiment.seed for entry in self._running}
        now = time.monotonic()
        free = (e for e in waiting if e.seed not in seeds and now >= self._not_before.get(e.name, 0.0))
        return next(free, None)

    def _past_start(self, entry: _Running) -> bool:
        """DVC hands a new run over through a list that two starts at once would mix up."""
        path = self.log_file(entry.experiment)
        return entry.process is None or _STARTED.search(path.read_text(errors="replace")) is not None

    def _start(self, experiment: Experiment) -> None:
        (self._logs / f"{experiment.name}.failed").unlink(missing_ok=True)
        with open(self._lock(experiment), "a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                log(f"{experiment.name}: still running from an earlier call; waiting for it")
                self._running.append(_Running(experiment, None))
                return
            self._clean(experiment)
            with open(self.log_file(experiment), "wb") as output:
                process = subprocess.Popen(
                    command(experiment, "--temp"),
                    cwd=self._root,
                    env=environment(),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    pass_fds=(lock.fileno(),),  # the lock lasts as long as this process
                    start_new_session=True,
                )
        self._running.append(_Running(experiment, process))

    def _lock(self, experiment: Experiment) -> Path:
        return self._logs / f"{experiment.name}.lock"

    def _has_ended(self, entry: _Running) -> bool:
        if entry.process is not None:
            return entry.process.poll() is not None
        with open(self._lock(entry.experiment), "a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
        return True

    def _settle(self, entry: _Running) -> bool:
        """Record how an experiment ended; False if it must be run again."""
        experiment, name = entry.experiment, entry.experiment.name
        if self._finished(experiment):
            log(f"{name}: finished after {time.monotonic() - entry.begun:.0f} s")
            return True
        text = self.log_file(experiment).read_text(errors="replace")
        if entry.process is None or _BUSY.search(text):  # killed, or another row runs a stage that this one needs
            if entry.process is not None:
                log(f"{name}: another run has locked a stage that this row needs; trying again in {self._wait_s:.0f} s")
                self._not_before[name] = time.monotonic() + self._wait_s
            return False
        reason = _last_error(text)
        (self._logs / f"{name}.failed").write_text(f"{reason}\n")
        log(f"{name}: failed: {reason} (all of its output: {self.log_file(experiment)})")
        return True

    def _stop(self) -> None:
        """End the experiments that this call started, with their stages."""
        processes = [entry.process for entry in self._running if entry.process is not None]
        for sent in (signal.SIGINT, signal.SIGKILL):
            for process in processes:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, sent)
            deadline = time.monotonic() + _STOP_S
            while any(process.poll() is None for process in processes) and time.monotonic() < deadline:
                time.sleep(_POLL_S)
        self._running = []


def _last_error(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    for start in ("error: ", "ERROR: "):
        for line in reversed(lines):
            if line.startswith(start):
                return line.removeprefix(start)[:300]
    return (lines or ["no output"])[-1][:300]


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt
