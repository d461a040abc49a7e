"""Run commands in a project, and change its parameters."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

DVC = (sys.executable, "-m", "dvc")


def run(folder: Path, *command: str, fails: bool = False) -> str:
    """Run a command with the tests' Python first on PATH; its output. It must succeed, or fail if `fails`."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment)
    output = done.stdout + done.stderr
    assert (done.returncode != 0) == fails, output
    return output
