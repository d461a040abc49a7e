"""DVC stores each output once: its cache and the working tree hold the same file under two names."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DVC_YAML = """
stages:
  write:
    cmd: mkdir -p folder/deep && echo first > folder/one && echo second > folder/deep/two && echo third > single
    outs:
    - folder
    - single
"""


def dvc(folder: Path, *arguments: str) -> None:
    done = subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stage with a folder and a file, run once with the configuration of this repository."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "probe").write_text("")
    try:
        os.link(folder / "probe", folder / "second name")
    except OSError:
        pytest.skip(f"the file system of {folder} has no hard links")
    dvc(folder, "init", "-q", "--no-scm")
    (folder / ".dvc" / "config").write_bytes((ROOT / ".dvc" / "config").read_bytes())
    (folder / ".dvc" / "config.local").write_text("[core]\n    no_scm = true\n")
    (folder / "dvc.yaml").write_text(DVC_YAML)
    dvc(folder, "repro", "-q")
    return folder


def cached(folder: Path) -> dict[int, Path]:
    """Files of the cache by inode."""
    return {path.stat().st_ino: path for path in (folder / ".dvc" / "cache").rglob("*") if path.is_file()}


def test_an_output_and_its_cache_entry_are_one_file(project: Path) -> None:
    for name, text in (("folder/one", "first\n"), ("folder/deep/two", "second\n"), ("single", "third\n")):
        path = project / name
        assert path.stat().st_nlink == 2, f"{name} is stored twice"
        assert cached(project)[path.stat().st_ino].read_text() == text


def test_so_it_is_after_a_checkout(project: Path) -> None:
    (project / "folder" / "deep" / "two").unlink()
    dvc(project, "checkout", "-q")
    path = project / "folder" / "deep" / "two"
    assert path.stat().st_nlink == 2 and path.stat().st_ino in cached(project)


def test_linked_outputs_are_protected(project: Path) -> None:
    """Nobody writes into one by accident: the cache would hold other content than its name says."""
    assert not (project / "folder" / "one").stat().st_mode & 0o222
