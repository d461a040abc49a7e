"""The stage `render`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline import render
from pipeline.core.errors import UserError
from pipeline.sample.config import StillCounts
from tests.support.toy_world import NONE, TOY

SMALL = replace(
    TOY,
    davis=replace(TOY.davis, frames=2),
    youtubevos=replace(TOY.youtubevos, train=replace(NONE, lookalike=2)),
    stills=StillCounts(msra10k=1, coco=4, voc=1),
    mannequin=replace(TOY.mannequin, val=NONE),
)


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_bytes_depend_neither_on_the_run_nor_on_the_workers(tmp_path: Path) -> None:
    render.run(SMALL, tmp_path / "alone", workers=1)
    render.run(SMALL, tmp_path / "pool", workers=2)
    assert contents(tmp_path / "alone") == contents(tmp_path / "pool")


def test_another_seed_gives_another_world(tmp_path: Path) -> None:
    render.run(SMALL, tmp_path / "embedded", workers=1)
    before = contents(tmp_path / "embedded")
    render.run(replace(SMALL, seed=SMALL.seed + 1), tmp_path / "embedded", workers=1)
    after = contents(tmp_path / "embedded")
    assert before.keys() == after.keys()
    assert {name for name in before if before[name] == after[name]} == {"challenge/manifest.json"}  # without a sample


def test_a_profile_on_published_data_gets_empty_manifests(tmp_path: Path) -> None:
    render.run(None, tmp_path / "embedded", workers=2)
    files = contents(tmp_path / "embedded")
    assert set(files) == {f"{dataset}/manifest.json" for dataset in render.DATASETS}
    assert all(json.loads(data) == {"files": []} for data in files.values())


def test_a_failure_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError):
        render.run(replace(SMALL, min_pixels=10**6), tmp_path / "embedded", workers=1)
    assert list(tmp_path.iterdir()) == []
