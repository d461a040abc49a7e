from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.core.errors import UserError
from pipeline.core.images import encode_mask
from pipeline.score import run
from tests.support.tiny_archives import Toy, davis_files, make_toy, write_folder, write_zip

VIDEOS = {"single-000": make_toy(6, 1), "multi-000": make_toy(5, 2), "lookalike-000": make_toy(5, 2)}


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    write_zip(tmp_path / "raw/DAVIS-2017-trainval-480p.zip", davis_files(VIDEOS, {"2017/val": list(VIDEOS)}))
    return tmp_path / "raw"


def write_masks(folder: Path, videos: dict[str, Toy], shift: int = 0) -> Path:
    files = {
        f"{name}/{t:05d}.png": encode_mask(np.roll(mask, shift, axis=1))
        for name, toy in videos.items()
        for t, mask in enumerate(toy.masks)
    }
    return write_folder(folder, files)


def test_figures_of_the_stage(tmp_path: Path, raw: Path) -> None:
    masks = write_masks(tmp_path / "masks", VIDEOS, shift=2)
    for jobs, metrics in ((1, tmp_path / "one"), (2, tmp_path / "two")):
        run(raw, masks, "val", metrics, jobs)
    scores = json.loads((tmp_path / "one/scores.json").read_text())
    assert list(scores) == ["J&F", "J", "F", "copy_first", "by_kind"]
    assert list(scores["J"]) == list(scores["F"]) == ["mean", "recall", "decay"]
    assert list(scores["by_kind"]) == ["single", "multi", "lookalike"]
    assert 0.5 < scores["J&F"] < 1
    assert scores["J&F"] == pytest.approx((scores["J"]["mean"] + scores["F"]["mean"]) / 2)
    with open(tmp_path / "one/per_object.csv") as file:
        rows = list(csv.DictReader(file))
    assert [(r["sequence"], r["object"], r["kind"]) for r in rows][:2] == [
        ("single-000", "1", "single"),
        ("multi-000", "1", "multi"),
    ]
    assert scores["J&F"] == pytest.approx(np.mean([float(r["J&F"]) for r in rows]))
    assert scores["copy_first"]["J&F"] == pytest.approx(np.mean([float(r["copy_first_J&F"]) for r in rows]))
    for name in ("scores.json", "per_object.csv"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_true_masks_are_perfect(tmp_path: Path, raw: Path) -> None:
    run(raw, write_masks(tmp_path / "masks", VIDEOS), "val", tmp_path / "metrics", 1)
    scores = json.loads((tmp_path / "metrics/scores.json").read_text())
    assert scores["J&F"] == 1
    assert scores["copy_first"]["J&F"] < 1


def test_unfit_masks_write_nothing(tmp_path: Path, raw: Path) -> None:
    masks = write_masks(tmp_path / "masks", VIDEOS)
    (masks / "multi-000/00002.png").unlink()
    with pytest.raises(UserError, match=r"multi-000/00002\.png is missing"):
        run(raw, masks, "val", tmp_path / "metrics", 1)
    (masks / "other").mkdir()
    with pytest.raises(UserError, match="masks/other belongs to no sequence"):
        run(raw, masks, "val", tmp_path / "metrics", 1)
    assert not (tmp_path / "metrics").exists()


def test_nothing_to_score_on_a_server_split(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    files = davis_files(VIDEOS, {"2017/test-dev": list(VIDEOS)}, masks=1)
    write_zip(raw / "DAVIS-2017-test-dev-480p.zip", files)
    run(raw, tmp_path / "masks", "test-dev", tmp_path / "metrics", 1)
    assert json.loads((tmp_path / "metrics/scores.json").read_text()) == {"J&F": None}
    assert len((tmp_path / "metrics/per_object.csv").read_text().splitlines()) == 1


def test_results_numbered_from_another_frame_are_refused(tmp_path: Path, raw: Path) -> None:
    masks = write_masks(tmp_path / "masks", VIDEOS)
    for path in sorted((masks / "multi-000").iterdir(), reverse=True):
        path.rename(path.with_name(f"{int(path.stem) + 1:05d}.png"))
    with pytest.raises(UserError, match=r"multi-000/00005\.png belongs to no frame of multi-000, and frame 00000"):
        run(raw, masks, "val", tmp_path / "metrics", 1)
    assert not (tmp_path / "metrics").exists()
