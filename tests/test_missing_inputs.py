"""Each stage, started without its inputs or with one of them broken, ends with one line and exit code 1."""

from __future__ import annotations

import importlib
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.core.runtime import run_main

ROOT = Path(__file__).resolve().parents[1]
STAGES: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
NEEDS_INPUT = {name: stage for name, stage in STAGES.items() if name != "render"}  # which reads nothing


def started(stage: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """Run a stage in a folder that holds params.yaml; returns its error."""
    definition = NEEDS_INPUT[stage]
    items = list(definition.get("foreach", [None]))
    words = definition.get("do", definition)["cmd"].replace("pipeline.launch ", "").split()
    module = next(word for word in words if word.startswith("pipeline."))
    monkeypatch.chdir(folder)
    monkeypatch.setenv("DVC_ROOT", str(folder))
    monkeypatch.setattr(sys, "argv", [module, *(item for item in items[:1] if item)])
    capsys.readouterr()
    assert run_main(importlib.import_module(module).main) == 1
    said = capsys.readouterr()
    lines = [line for line in said.err.splitlines() if line]
    assert len(lines) == 1 and lines[0].startswith("error: "), said.err
    return lines[0]


@pytest.mark.parametrize("stage", NEEDS_INPUT)
def test_nothing_is_there(
    stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(ROOT / "params.yaml", tmp_path)
    error = started(stage, tmp_path, monkeypatch, capsys)
    assert str(tmp_path) in error, "names the file that is missing"


@pytest.mark.parametrize("stage", sorted(NEEDS_INPUT.keys() - {"depth"}))  # which leaves a set without frames out
def test_inputs_are_empty(
    stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Folders without a file, checkpoints without a byte."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    definition = NEEDS_INPUT[stage].get("do", NEEDS_INPUT[stage])
    item = next(iter(NEEDS_INPUT[stage].get("foreach", [""])))
    kind = NEEDS_INPUT[stage]["foreach"][item] if isinstance(NEEDS_INPUT[stage].get("foreach"), dict) else item
    for dep in definition["deps"]:
        if not dep.startswith("pipeline"):
            path = tmp_path / dep.replace("${profile}", "sample").replace("${key}", item).replace("${item}", kind)
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix:
                path.write_bytes(b"")
            else:
                path.mkdir()
    started(stage, tmp_path, monkeypatch, capsys)


def test_without_parameters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for stage in NEEDS_INPUT:
        assert "params.yaml does not exist" in started(stage, tmp_path, monkeypatch, capsys)
