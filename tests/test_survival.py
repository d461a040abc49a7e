"""Training stages that are killed at random moments end with the bytes of a run that never was."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest

from tests.support.toy_project import (
    SAMPLE,
    TOY,
    children,
    finish,
    kill,
    make_project,
    run_with_kills,
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


def delays(count: int) -> list[float]:
    """Other moments in each run of the test; the result must not depend on them."""
    return [random.uniform(0, 6) for _ in range(count)]


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_killed_pretraining_and_training_end_as_if_never_killed(tmp_path: Path, processes: int) -> None:
    results = []
    for name, kills in (("whole", 0), ("killed", 3)):
        folder = make_project(tmp_path / name, runtime__processes=processes)
        for stage in ("pipeline.pretrain", "pipeline.train"):
            run_with_kills(folder, ["pipeline.launch", stage], delays(kills))
        assert not list((folder / ".scratch").rglob("*.pt")), "the resume state is removed"
        results.append(outputs(folder))
    assert set(results[0]) == {"pretrain.pt", "dstm.pt", "pretrain.csv", "train.csv"}
    assert results[0] == results[1]


@pytest.mark.slow
def test_killed_depth_training_ends_as_if_never_killed(tmp_path: Path) -> None:
    results = []
    for name, kills in (("whole", 0), ("killed", 4)):
        folder = tmp_path / name
        raw = folder / "data" / "sample" / "raw" / "mannequin"
        write_frames(raw, {"train/a": 14, "train/b": 12, "val/c": 2})
        set_params(folder, DEPTH_TOY)
        run_with_kills(folder, ["pipeline.train_depth"], [delay / 2 for delay in delays(kills)])
        assert not list((folder / ".scratch").rglob("*.pt"))
        results.append(outputs(folder))
    assert set(results[0]) == {"depth.pt", "depth.json"}
    assert results[0] == results[1]


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
    output, _ = process.communicate(timeout=120)
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
    process.communicate(timeout=120)
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
    assert "stopped after step 2 of 12, as runtime.stop_after 2 asks" in output
    set_params(folder, {**TOY, f"{SAMPLE}.pretrain.lr": 1.0e-4})
    output = finish(start(folder, "pipeline.launch", "pipeline.pretrain"))
    assert "is the state of a run with other settings or inputs (pretrain.lr)" in output and "resuming" not in output
    set_params(folder, TOY)
    assert "resuming at step 2 of 12" in finish(start(folder, "pipeline.launch", "pipeline.pretrain"))
