"""Training stages that are killed at random moments end with the bytes of a run that never was."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline import pretrain, train, train_depth
from tests.support.forked import LOG, fork_all, kill_after, wait
from tests.support.toy_project import (
    SAMPLE,
    TOY,
    children,
    finish,
    kill,
    make_project,
    set_params,
    start,
    wait_for,
)
from tests.test_train_depth import write_frames

DEPTH_TOY = {
    "runtime.save_every": 1,
    f"{SAMPLE}.train_depth.epochs": 3,
    f"{SAMPLE}.train_depth.frozen_epochs": 1,
    f"{SAMPLE}.train_depth.batch": 4,
    f"{SAMPLE}.train_depth.statistics_batch": 4,
    f"{SAMPLE}.train_depth.statistics_batches": 2,
    f"{SAMPLE}.hourglass.width": 0.125,
}


def outputs(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in [*folder.glob("models/*/*.pt"), *folder.glob("metrics/*")]}


def run_whole(folder: Path, main: Callable[[], None], processes: int = 1) -> float:
    """Run a stage to its end; returns the CPU seconds of the first process."""
    codes, cpu = wait(fork_all(folder, main, processes))
    assert codes == [0] * processes, (folder / LOG).read_text()
    assert not list((folder / ".scratch").rglob("*.pt")), "the resume state is removed"
    return cpu


def run_killed(folder: Path, main: Callable[[], None], cpu: float, kills: int, processes: int = 1) -> None:
    """Kill a stage at random moments of the `cpu` seconds that it takes, start it again each time, then let it end."""
    for _ in range(kills):
        if not kill_after(fork_all(folder, main, processes), random.uniform(0, cpu)):
            break
    run_whole(folder, main, processes)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_killed_pretraining_and_training_end_as_if_never_killed(tmp_path: Path, processes: int) -> None:
    whole, killed = (make_project(tmp_path / name) for name in ("whole", "killed"))
    for main in (pretrain.main, train.main):
        cpu = run_whole(whole, main, processes)
        run_killed(killed, main, cpu, 4, processes)
    assert set(outputs(whole)) == {"pretrain.pt", "dstm.pt", "pretrain.csv", "train.csv"}
    assert outputs(whole) == outputs(killed)
    assert "resuming at step" in (killed / LOG).read_text()


@pytest.mark.slow
def test_killed_depth_training_ends_as_if_never_killed(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        write_frames(folder / "data" / "sample" / "raw" / "mannequin", {"train/a": 14, "train/b": 12, "val/c": 2})
        set_params(folder, DEPTH_TOY)
    run_killed(killed, train_depth.main, run_whole(whole, train_depth.main), 6)
    assert set(outputs(whole)) == {"depth.pt", "depth.json"}
    assert outputs(whole) == outputs(killed)
    assert "resuming after step" in (killed / LOG).read_text()


@pytest.mark.slow
def test_processes_stop_together(tmp_path: Path) -> None:
    """A signal that reaches one process stops both after the same step; the next run continues from there."""
    whole = make_project(tmp_path / "whole", runtime__processes=2)
    finish(start(whole, "pipeline.launch", "pipeline.pretrain"))
    folder = make_project(tmp_path / "stopped", runtime__processes=2, runtime__save_every=0)
    process = start(folder, "pipeline.launch", "pipeline.pretrain")
    assert wait_for(process, "training in")
    time.sleep(1.0)
    os.kill(children(process.pid)[-1], signal.SIGTERM)
    output, _ = process.communicate(timeout=3600)
    assert process.returncode != 0 and "interrupted; run the same command again" in output
    again = finish(start(folder, "pipeline.launch", "pipeline.pretrain"))
    assert "resuming at step" in again
    assert outputs(folder) == outputs(whole)


@pytest.mark.slow
def test_an_error_in_one_process_ends_all(tmp_path: Path) -> None:
    """Here one process is killed while the other waits for it in an exchange; nothing is left running."""
    folder = make_project(tmp_path, runtime__processes=2)
    process = start(folder, "pipeline.launch", "pipeline.pretrain")
    assert wait_for(process, "training in")
    ranks = children(process.pid)
    assert len(ranks) == 2
    os.kill(ranks[1], signal.SIGKILL)
    process.communicate(timeout=3600)
    assert process.returncode != 0
    assert not any(Path(f"/proc/{rank}").exists() for rank in ranks)


@pytest.mark.slow
def test_no_process_outlives_the_launcher(tmp_path: Path) -> None:
    folder = make_project(tmp_path, runtime__processes=2)
    process = start(folder, "pipeline.launch", "pipeline.pretrain")
    assert wait_for(process, "training in")
    ranks = children(process.pid)
    kill(process)
    for _ in range(100):
        if not any(Path(f"/proc/{rank}").exists() for rank in ranks):
            break
        time.sleep(0.1)
    assert not any(Path(f"/proc/{rank}").exists() for rank in ranks)


@pytest.mark.slow
def test_a_changed_setting_starts_afresh_and_says_so(tmp_path: Path) -> None:
    folder = make_project(tmp_path, runtime__stop_after=2)
    output = finish(start(folder, "pipeline.launch", "pipeline.pretrain"), code=1)
    assert "stopped after step 2 of 6, as runtime.stop_after 2 asks" in output
    set_params(folder, {**TOY, f"{SAMPLE}.pretrain.lr": 1.0e-4})
    output = finish(start(folder, "pipeline.launch", "pipeline.pretrain"))
    assert "is the state of a run with other settings or inputs (pretrain.lr)" in output and "resuming" not in output
    set_params(folder, TOY)
    assert "resuming at step 2 of 6" in finish(start(folder, "pipeline.launch", "pipeline.pretrain"))
