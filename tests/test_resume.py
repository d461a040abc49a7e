"""Two generations of a training's state, and the folder they are in."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import torch

from pipeline.core.resume import enter_state_folder, load_state, older, remove_state, state_folder, store_state

KIND = "toy-training"


def store(path: Path, step: int) -> None:
    store_state(path, KIND, {}, {"w": torch.full((1000,), float(step))}, step=step)


def test_the_newest_state_is_used(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    assert load_state(path, KIND) is None
    for step in (1, 2, 3):
        store(path, step)
    newest = load_state(path, KIND)
    assert newest is not None and newest["step"] == 3
    before = load_state(older(path), KIND)
    assert before is not None and before["step"] == 2
    assert len(list(tmp_path.iterdir())) == 2
    remove_state(path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("damage", ["cut", "byte", "empty", "gone"])
def test_a_damaged_state_is_replaced_by_the_one_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    path = tmp_path / "state.pt"
    store(path, 1)
    store(path, 2)
    content = bytearray(path.read_bytes())
    if damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "byte":  # in the middle of the weights, which torch reads without noticing
        content[content.index(torch.tensor(2.0).numpy().tobytes() * 100)] ^= 1
        path.write_bytes(content)
    elif damage == "empty":
        path.write_bytes(b"")
    else:  # killed between the two renames
        path.unlink()
    found = load_state(path, KIND)
    assert found is not None and found["step"] == 1
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == (damage != "gone") and all("is damaged" in line for line in lines)


def test_a_new_folder_says_what_has_changed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    facts = {"train": {"lr": 1.0, "batch": 4}, "inputs": {"raw/davis": "a"}}
    folder = state_folder(tmp_path, facts)
    folder.mkdir()
    enter_state_folder(folder, facts)
    assert capsys.readouterr().out == ""
    store(folder / "state.pt", 1)
    enter_state_folder(folder, facts)
    assert capsys.readouterr().out == ""
    changed = {"train": {"lr": 2.0, "batch": 4}, "inputs": {"raw/davis": "b"}}
    other = state_folder(tmp_path, changed)
    assert other != folder
    other.mkdir()
    enter_state_folder(other, changed)
    line = capsys.readouterr().out
    assert line.startswith("starting afresh: ") and "(train.lr, inputs.raw/davis)" in line and str(folder) in line


def test_states_that_are_long_unused_are_removed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, days in (("old", 40), ("recent", 5)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "settings.json").write_text("{}")
        store(tmp_path / name / "state.pt", 1)
        long_ago = time.time() - 86400 * days
        for path in (tmp_path / name).iterdir():
            os.utime(path, (long_ago, long_ago))
    (tmp_path / "downloads").mkdir()
    folder = state_folder(tmp_path, {})
    folder.mkdir()
    enter_state_folder(folder, {})
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["downloads", "recent", folder.name])
    assert "unused for 30 days" in capsys.readouterr().out
