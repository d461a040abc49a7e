"""The benchmarks still run; their figures are not looked at."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

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
        ["benchmarks.floor", "--network", "lite", "--precision", "fp32", "--slots", "2", "--repeat", "1"],
    ],
    ids=["inference", "floor"],
)
def test_runs(line: list[str]) -> None:
    done = subprocess.run([sys.executable, "-m", *line, *SMALL], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert ("frames/s" if "inference" in line[0] else "memory read") in done.stdout
