"""Validation between epochs: the inference code in a process of its own, and the best weights so far."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from pipeline.core.checkpoint import load_checkpoint, save_checkpoint
from pipeline.core.errors import UserError
from pipeline.core.processes import Processes
from pipeline.dstm.checkpoint import KIND
from pipeline.dstm.config import to_plain
from pipeline.training.config import TrainingConfig
from pipeline.training.state import State

COLUMN = "validation"
"""The column of the curves that holds J&F; empty after epochs that were not validated."""


class Validation:
    """Validates the weights that a stage would write, every few epochs.

    Args:
        config: how often, on how many videos, and whether the best weights are kept.
        folder: of the resume state; the best weights so far are there.
        kept: folder that gets the best and the last weights at the end.
        processes: the first one validates, the others wait.
    """

    def __init__(self, config: TrainingConfig, folder: Path, kept: Path, processes: Processes) -> None:
        self._config, self._folder, self._kept, self._processes = config, folder, kept, processes
        self._best = folder / "best.weights"

    def after_epoch(self, state: State) -> None:
        """Validate if it is due; adds the column to the epoch's row.

        Args:
            state: after the last step of an epoch, whose row is the last of the history.

        Raises:
            UserError: the videos cannot be segmented.
        """
        every = self._config.validate_every
        if not every:
            return
        row = state.history[-1]
        epoch = int(row["epoch"])
        if epoch % every and epoch != self._config.epochs:
            row[COLUMN] = float("nan")
            return
        row[COLUMN] = self._processes.agree(self._score(state) if self._processes.first else 0.0)

    def _score(self, state: State) -> float:
        """J&F of the present weights, which are kept if they are the best so far."""
        fresh = self._folder / "fresh.weights"
        save_checkpoint(fresh, KIND, _config(state), state.weights())
        score = self._run(fresh)
        before = [row[COLUMN] for row in state.history[:-1] if row[COLUMN] == row[COLUMN]]
        if not before or score > max(before):
            fresh.replace(self._best)
        return score

    def _run(self, checkpoint: Path) -> float:
        """J&F of a checkpoint, by a process of its own."""
        answer, videos = self._folder / "validation.json", self._config.validate_videos
        arguments = [str(checkpoint), f"--videos={videos}", f"--output={answer}", "--with-parent"]
        done = subprocess.run(
            [sys.executable, "-m", "pipeline.validate", *arguments],
            env=_alone(os.environ),
            capture_output=True,
            text=True,
            start_new_session=True,  # a signal to all processes of the training does not reach it
        )
        if done.returncode:
            line = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise UserError(
                f"validation failed ({line.removeprefix('error: ')[:200]}); expected J&F on val videos; fix this, or "
                "set validate_every to 0"
            )
        return float(json.loads(answer.read_text())["J&F"])

    def finish(self, state: State) -> None:
        """Give the network the last or the best weights; keep both in a folder if there were any validations."""
        weights = state.weights()
        if self._best.is_file() and self._processes.first:
            self._kept.mkdir(parents=True, exist_ok=True)
            save_checkpoint(self._kept / "last.pt", KIND, _config(state), weights)
            shutil.copyfile(self._best, self._kept / "best.pt")
            if self._config.keep == "best":
                weights = load_checkpoint(self._best, KIND)["state_dict"]
        state.network.load_state_dict(weights)


def _config(state: State) -> dict[str, Any]:
    return to_plain(state.network.switches, state.network.config)


def _alone(environment: Any) -> dict[str, str]:
    """The environment of a process that is none of torchrun's."""
    torchrun = ("RANK", "WORLD_SIZE", "GROUP_", "ROLE_", "LOCAL_WORLD_SIZE", "MASTER_", "TORCHELASTIC_")
    return {key: value for key, value in environment.items() if not key.startswith(torchrun)}
