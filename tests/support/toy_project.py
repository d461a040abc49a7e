"""A folder in which the training stages run as commands: tiny data in the published layouts, tiny networks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.support.commands import set_keys
from tests.support.tiny_archives import davis_files, make_toy, write_simulated, write_zip

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = "profiles.sample"
TOY: dict[str, Any] = {
    "model.depth": False,
    "runtime.save_every": 1,
    f"{SAMPLE}.network.width": 0.125,
    f"{SAMPLE}.network.norm": "group",  # with batch norm the result would depend on the number of processes
    f"{SAMPLE}.network.key_channels": 8,
    f"{SAMPLE}.network.value_channels": 8,
    f"{SAMPLE}.network.decoder_channels": 8,
    f"{SAMPLE}.training.batch": 2,
    f"{SAMPLE}.training.clips.augment.crop": 48,
    f"{SAMPLE}.pretrain.epochs": 2,
    f"{SAMPLE}.pretrain.steps_per_epoch": 3,
    f"{SAMPLE}.train.epochs": 2,
    f"{SAMPLE}.train.steps_per_epoch": 3,
}


def make_project(folder: Path, **changes: Any) -> Path:
    """Params and data for `pretrain` and `train`.

    Args:
        folder: to fill.
        changes: further dotted keys of params.yaml, with __ for the dots.
    """
    data = folder / "data" / "sample"
    for name in ("coco", "voc"):
        (data / "simulated" / name).mkdir(parents=True)
        (data / "simulated" / name / "clips.csv").write_text("name,image,n_objects\n")
    write_simulated(data / "simulated" / "msra10k", {f"clip{i}": make_toy(3, 1 + i % 2) for i in range(4)})
    sequences = {"bear": make_toy(5, 1), "dogs": make_toy(6, 2), "fish": make_toy(4, 2)}
    splits = {"2017/train": ["bear", "dogs"], "2017/val": ["fish"], "2016/val": ["fish"]}
    write_zip(data / "raw" / "davis" / "DAVIS-2017-trainval-480p.zip", davis_files(sequences, splits))
    for name in ("davis", "youtubevos"):
        (data / "raw" / name).mkdir(parents=True, exist_ok=True)
        files = [path.name for path in (data / "raw" / name).glob("*.zip")]
        content = {"files": [{"name": file, "bytes": 0, "sha256": ""} for file in files]}
        (data / "raw" / name / "manifest.json").write_text(json.dumps(content))
    set_params(folder, {**TOY, **{key.replace("__", "."): value for key, value in changes.items()}})
    return folder


def set_params(folder: Path, changes: dict[str, Any]) -> None:
    """The project's params.yaml with changes, dotted keys and their values."""
    set_keys(folder / "params.yaml", changes, ROOT / "params.yaml")


def start(folder: Path, module: str, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    """Start `python -m module` in the folder, in a session of its own."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "DVC_ROOT": str(folder), **environment}
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        cwd=folder,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str], code: int = 0) -> str:
    """Wait for the end and return the output."""
    output, _ = process.communicate(timeout=3600)
    assert process.returncode == code, output
    return output


def wait_for(process: subprocess.Popen[str], text: str) -> bool:
    """Read the output up to a line that contains the text; whether there is one."""
    assert process.stdout is not None
    return any(text in line for line in process.stdout)


def kill(process: subprocess.Popen[str]) -> None:
    """End a process and its group with SIGKILL, as a full machine or a preemption does."""
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def children(pid: int) -> list[int]:
    """The processes that a process has started."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.append(int(stat.parent.name))
    return sorted(found)
