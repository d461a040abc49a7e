"""Stages run with the python of .venv however DVC is started, also from a shell in which nothing is activated."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
BARE = {"HOME": os.environ.get("HOME", "/"), "PATH": "/usr/bin:/bin"}


def run(folder: Path, *command: str | Path, **environment: str) -> str:
    done = subprocess.run(
        [str(part) for part in command], cwd=folder, capture_output=True, text=True, env=BARE | environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


def interpreter(path: Path, name: str) -> Path:
    """A program that prints its name and its arguments."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'#!/bin/sh\necho {name} "$@"\n')
    path.chmod(0o755)
    return path


def test_every_stage_uses_it() -> None:
    definition = yaml.safe_load((ROOT / "dvc.yaml").read_text())
    assert definition["vars"] == [{"python": "sh .dvc/python"}]
    for name, stage in definition["stages"].items():
        assert stage.get("do", stage)["cmd"].startswith("${python} -m pipeline."), name


def test_which_python_is_chosen(tmp_path: Path) -> None:
    script, main = ROOT / ".dvc" / "python", tmp_path / "main checkout"
    interpreter(tmp_path / "path" / "python3", "third")
    path = f"{tmp_path / 'path'}:/usr/bin:/bin"
    (tmp_path / "elsewhere").mkdir()
    assert run(tmp_path / "elsewhere", "/bin/sh", script, "-m", "x", PATH=f"{tmp_path / 'path'}") == "third -m x"
    interpreter(tmp_path / "path" / "python", "second")
    assert run(tmp_path / "elsewhere", "/bin/sh", script, "-m", "x", PATH=path) == "second -m x"
    interpreter(main / ".venv" / "bin" / "python", "first")
    # in a temporary folder of an experiment, with the main checkout named by DVC
    assert run(tmp_path / "elsewhere", "/bin/sh", script, "-m", "x y", PATH=path, DVC_ROOT=str(main)) == "first -m x y"
    assert run(main, "/bin/sh", script, "a", PATH=path) == "first a"
    named = str(interpreter(tmp_path / "named", "named"))
    assert run(main, "/bin/sh", script, "a", PATH=path, STAGE_PYTHON=named) == "named a"


def test_without_any_python_it_says_so(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = subprocess.run(
        ["/bin/sh", str(ROOT / ".dvc" / "python")],
        cwd=tmp_path,
        env={"PATH": str(tmp_path / "empty")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 127
    assert done.stderr == "error: found neither .venv nor python; expected one of them; run make setup\n"


@pytest.mark.slow
def test_dvc_in_a_bare_shell(tmp_path: Path) -> None:
    """`repro`, an experiment in the workspace and one in a temporary folder, as the README has them."""
    folder = tmp_path / "project"
    (folder / ".dvc").mkdir(parents=True)
    (folder / ".venv").symlink_to(sys.prefix)
    run(folder, "git", "init", "-q")
    run(folder, "git", "config", "user.name", "toy")
    run(folder, "git", "config", "user.email", "toy@example.org")
    dvc = (folder / ".venv/bin/python", "-m", "dvc")
    run(folder, *dvc, "init", "-q", "-f")
    (folder / ".dvc" / "python").write_bytes((ROOT / ".dvc" / "python").read_bytes())
    (folder / "write.py").write_text("import json, sys, yaml\njson.dump(sys.prefix, open('out.json', 'w'))\n")
    stage = {"cmd": "${python} write.py", "params": ["x"], "metrics": ["out.json"]}
    definition = {"vars": [{"python": "sh .dvc/python"}], "stages": {"write": stage}}
    (folder / "dvc.yaml").write_text(yaml.safe_dump(definition))
    (folder / "params.yaml").write_text("x: 1\n")
    (folder / ".gitignore").write_text("/.venv\n/out.json\n")
    run(folder, "git", "add", "-A")
    run(folder, "git", "commit", "-qm", "toy")
    run(folder, *dvc, "repro")
    assert str(Path(sys.prefix).name) in (folder / "out.json").read_text()
    run(folder, "git", "add", "-A")
    run(folder, "git", "commit", "-qm", "reproduced")
    run(folder, *dvc, "exp", "run", "-S", "x=2")
    run(folder, *dvc, "exp", "run", "--temp", "-S", "x=3")
    assert len(run(folder, *dvc, "exp", "list", "--name-only").splitlines()) >= 2
