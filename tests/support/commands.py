"""Run commands in a project, and change its parameters."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

DVC = (sys.executable, "-m", "dvc")


def run(folder: Path, *command: str, fails: bool = False, **variables: str) -> str:
    """Run a command with the tests' Python first on PATH; its output. It must succeed, or fail if `fails`."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, **variables}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment)
    output = done.stdout + done.stderr
    assert (done.returncode != 0) == fails, output
    return output


def set_key(params: dict[str, Any], dotted: str, value: Any) -> None:
    """Change one key, which must exist."""
    *parents, last = dotted.split(".")
    place = params
    for key in parents:
        place = place[key]
    assert last in place, dotted
    place[last] = value


def set_keys(path: Path, values: dict[str, Any], source: Path | None = None) -> None:
    """Write a parameters file with changes (dotted keys and their values) to itself, or to `source`."""
    params = yaml.safe_load((source or path).read_text())
    for dotted, value in values.items():
        set_key(params, dotted, value)
    path.write_text(yaml.safe_dump(params, sort_keys=False))
