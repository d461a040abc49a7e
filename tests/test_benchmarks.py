"""The benchmarks still run; their figures are not looked at."""

from __future__ import annotations

import importlib
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

gpu = importlib.import_module("benchmarks.gpu")  # mypy does not check the benchmarks
ROOT = Path(__file__).resolve().parents[1]
SMALL = ["--height", "48", "--width", "64", "--objects", "1"]


@pytest.mark.slow
def test_readers_run(tmp_path: Path) -> None:
    line = ["benchmarks.readers", "--files", "60", "--reads", "50", "--folder", str(tmp_path / "made")]
    done = subprocess.run([sys.executable, "-m", *line], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [row.split()[0] for row in done.stdout.splitlines()[1:]] == ["zip", "tar", "shards", "folder"]
    assert not (tmp_path / "made").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "line",
    [
        ["benchmarks.inference", "--network", "lite", "--precision", "fp32", "--length", "3", "--cold"],
        [
            *("benchmarks.inference", "--network", "lite", "--precision", "fp32", "--length", "3"),
            *("--video", "examples/clip.mp4", "--mask", "examples/mask.png"),
        ],
        ["benchmarks.floor", "--network", "lite", "--precision", "fp32", "--slots", "2", "--repeat", "1"],
    ],
    ids=["inference", "video", "floor"],
)
def test_runs(line: list[str]) -> None:
    done = subprocess.run([sys.executable, "-m", *line, *SMALL], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert ("frames/s" if "inference" in line[0] else "memory read") in done.stdout


@pytest.mark.slow
def test_a_day_with_a_gpu_runs_through_on_a_cpu(tmp_path: Path) -> None:
    out = tmp_path / "results.json"
    done = subprocess.run(
        ["bash", "benchmarks/gpu.sh", str(out), "--toy", "--minutes", "60"],
        cwd=ROOT,
        env={**os.environ, "PYTHON": sys.executable},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    content = json.loads(out.read_text())
    assert content["faults"] == content["left_out"] == []
    assert {"agreement", "step stm ours fp32", "step paper batch 2 bf16", "loading", "depth"} <= content.keys()


def test_the_check_of_the_results_finds_what_is_wrong() -> None:
    step = {"batch": 12, "seconds_per_step": 0.5, "first_loss": 0.4}
    good = {
        "agreement": {"logits_differ_at_most": 1e-3, "equal_pixels": 0.9999},
        "step stm theirs fp32": step,
        "step stm ours fp32": {**step, "first_loss": 0.40001},
        "step paper batch 12 bf16": step,
        "loading": {"clips_per_core_second": {"with_depth": 4.0}},
    }
    assert gpu.faults(good) == []
    assert gpu.cores_needed(good) == {"step paper batch 12 bf16": 6.0}
    assert gpu.faults({**good, "depth": {"failed": "out of memory"}}) == ["depth failed"]
    assert gpu.faults({**good, "agreement": {"logits_differ_at_most": 1.0}}) == ["CPU and device disagree"]
    assert len(gpu.faults({**good, "step stm ours fp32": {**step, "first_loss": 0.5}})) == 1
    assert len(gpu.faults({**good, "inference 1 objects": {"frames_per_second": math.nan}})) == 1
    assert gpu.faults({}) == ["no training step was measured"]
