from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.core.archives import open_archive
from pipeline.core.errors import UserError
from pipeline.core.images import decode_mask, encode_mask
from pipeline.evaluate import parse_arguments, run
from tests.support.tiny_archives import davis_files, make_toy, write_folder, write_zip, youtubevos_files

VIDEOS = {"bear": make_toy(6, 1), "dogs": make_toy(5, 2)}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    splits = {"2017/val": list(VIDEOS), "2016/val": ["dogs"]}
    return write_zip(tmp_path / "DAVIS.zip", davis_files(VIDEOS, splits))


@pytest.fixture
def masks(tmp_path: Path) -> Path:
    files = {
        f"{name}/{t:05d}.png": encode_mask(np.roll(mask, 2, axis=1))
        for name, toy in VIDEOS.items()
        for t, mask in enumerate(toy.masks)
    }
    return write_folder(tmp_path / "masks", files)


def evaluate(*arguments: object) -> None:
    run(parse_arguments([str(argument) for argument in arguments]))


def test_table_and_files(root: Path, masks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, rows = tmp_path / "scores.json", tmp_path / "rows.csv"
    evaluate("--davis", root, "--results", masks, "--output", out, "--per-object", rows, "--jobs", 2)
    scores = json.loads(out.read_text())
    assert list(scores) == ["J&F", "J", "F", "by_kind", "sequences"]
    assert list(scores["sequences"]) == ["bear", "dogs"]
    lines = rows.read_text().splitlines()
    assert [line.split(",")[:3] for line in lines[1:]] == [
        ["bear", "1", "single"],
        ["dogs", "1", "multi"],
        ["dogs", "2", "multi"],
    ]
    assert all(line.endswith(",") for line in lines[1:])  # copying the first mask is not asked for
    printed = capsys.readouterr().out
    assert f"mean over objects {100 * scores['J&F']:5.1f}" in printed
    assert "3 objects in 2 sequences" in printed


def test_folders_and_zips_give_the_same(root: Path, masks: Path, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "extracted", davis_files(VIDEOS, {"2017/val": list(VIDEOS)}))
    files = {name: (masks / name).read_bytes() for name in open_archive(masks).names()}
    zipped = write_zip(tmp_path / "masks.zip", files)
    outs: list[Path] = []
    for data, results in ((root, masks), (folder / "DAVIS", zipped), (folder, masks)):
        outs.append(tmp_path / f"{len(outs)}.json")
        evaluate("--davis", data, "--results", results, "--output", outs[-1], "--jobs", 1)
    assert outs[0].read_text() == outs[1].read_text() == outs[2].read_text()


def test_2016_merges_objects(root: Path, masks: Path, tmp_path: Path) -> None:
    for name in ("bear", "dogs"):
        for path in (masks / name).iterdir():
            ids = decode_mask(path.read_bytes(), "")
            path.write_bytes(encode_mask(np.where(ids > 0, np.uint8(255), ids)))  # as DAVIS-2016 results are stored
    arguments = ("--davis", root, "--results", masks, "--year", 2016, "--output", tmp_path / "s.json")
    with pytest.raises(UserError, match="bear belongs to no sequence of davis-2016-val"):
        evaluate(*arguments)
    evaluate(*arguments, "--allow-extra")
    scores = json.loads((tmp_path / "s.json").read_text())
    assert list(scores["sequences"]) == ["dogs"]
    assert list(scores["by_kind"]) == ["single"]
    assert 0.5 < scores["J&F"] < 1


def test_youtubevos(tmp_path: Path) -> None:
    videos = {"a": make_toy(4, 2), "b": make_toy(3, 1)}
    for mask in videos["a"].masks[:2]:
        mask[mask == 2] = 0
    objects = {"a": {"1": ["00000", "00005"], "2": ["00010", "00015"]}, "b": {"1": ["00000", "00005", "00010"]}}
    data = write_zip(tmp_path / "valid.zip", youtubevos_files(videos, objects, "valid/"))
    files = {
        f"{name}/{5 * t:05d}.png": encode_mask(mask) for name, toy in videos.items() for t, mask in enumerate(toy.masks)
    }
    masks = write_folder(tmp_path / "masks", files)
    for unscored in ("a/00000.png", "b/00000.png"):
        (masks / unscored).unlink()
    evaluate("--youtubevos", data, "--results", masks, "--output", tmp_path / "s.json")
    assert json.loads((tmp_path / "s.json").read_text())["J&F"] == 1
    (masks / "b/00010.png").unlink()  # unlike DAVIS', the last frame counts
    with pytest.raises(UserError, match=r"b/00010\.png is missing"):
        evaluate("--youtubevos", data, "--results", masks)


def test_bad_results_are_named(root: Path, masks: Path) -> None:
    def refused(match: str) -> None:
        with pytest.raises(UserError, match=match):
            evaluate("--davis", root, "--results", masks, "--jobs", 1)

    whole = (masks / "dogs/00002.png").read_bytes()
    (masks / "dogs/00002.png").unlink()
    refused(r"masks/dogs/00002\.png is missing")
    Image.fromarray(VIDEOS["dogs"].frames[2]).save(masks / "dogs/00002.png")
    refused(r"masks/dogs/00002\.png is a mask of mode RGB")
    (masks / "dogs/00002.png").write_bytes(whole[:50])
    refused(r"masks/dogs/00002\.png cannot be decoded")
    (masks / "dogs/00002.png").write_bytes(encode_mask(np.full((48, 64), 3, np.uint8)))
    refused(r"masks/dogs/00002\.png has the id 3")
    (masks / "dogs/00002.png").write_bytes(encode_mask(np.zeros((64, 48), np.uint8)))
    refused(r"masks/dogs/00002\.png is 48x64; expected 64x48")
    (masks / "dogs").rename(masks.parent / "gone")
    refused(r"masks/dogs is missing; expected a folder for every sequence of the split; found bear")
    (masks / "Annotations").mkdir()
    refused("masks/Annotations belongs to no sequence")


def test_a_split_without_annotations_is_refused(tmp_path: Path, masks: Path) -> None:
    data = write_zip(tmp_path / "test.zip", davis_files(VIDEOS, {"2017/test-dev": list(VIDEOS)}, masks=1))
    with pytest.raises(UserError, match="no annotation beyond the first masks"):
        evaluate("--davis", data, "--split", "test-dev", "--results", masks)
    evaluate("--davis", data, "--split", "test-dev", "--results", masks, "--submission", tmp_path / "out.zip")
    assert len(open_archive(tmp_path / "out.zip").names()) == 11


def test_check(root: Path, masks: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluate("--davis", root, "--results", masks, "--check")
    assert "the 2 sequences of davis-2017-val are complete" in capsys.readouterr().out
    (masks / "notes.txt").write_text("")
    (masks / "bear/00000.png").unlink()
    with pytest.raises(UserError, match="has 2 faults, listed above"):
        evaluate("--davis", root, "--results", masks, "--check")
    printed = capsys.readouterr().out
    assert "masks/notes.txt: not expected" in printed
    assert "masks/bear/00000.png: missing" in printed


@pytest.mark.parametrize(
    "arguments",
    [
        ["--results", "m"],
        ["--davis", "d", "--youtubevos", "y", "--results", "m"],
        ["--youtubevos", "y", "--results", "m", "--year", "2016"],
        ["--davis", "d", "--results", "m", "--check", "--output", "s.json"],
        ["--davis", "d", "--results", "m", "--year", "2018"],
    ],
)
def test_contradicting_arguments(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        parse_arguments(arguments)
    assert stopped.value.code == 2
    assert "error:" in capsys.readouterr().err


def test_jobs_must_be_positive(root: Path, masks: Path) -> None:
    with pytest.raises(UserError, match="jobs is 0"):
        evaluate("--davis", root, "--results", masks, "--jobs", 0)


def test_official_is_optional(root: Path, masks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "davis2017", None)
    with pytest.raises(UserError, match="davis2017 cannot be imported"):
        evaluate("--davis", root, "--results", masks, "--official")


def test_official_differences(
    root: Path, masks: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A stand-in for the package checks the copies that it gets and returns one wrong value."""

    class Evaluation:
        def __init__(self, davis_root: str, task: str, gt_set: str, codalab: bool) -> None:
            self.root = Path(davis_root)
            assert (task, gt_set, codalab) == ("semi-supervised", "val", True)

        def evaluate(self, results: str) -> dict[str, Any]:
            assert (self.root / "ImageSets/2017/val.txt").read_text().split() == ["bear", "dogs"]
            truth = decode_mask((self.root / "Annotations/480p/dogs/00002.png").read_bytes(), "")
            guess = decode_mask(Path(results, "dogs/00002.png").read_bytes(), "")
            assert np.array_equal(truth, VIDEOS["dogs"].masks[2])
            assert np.array_equal(guess, np.roll(truth, 2, axis=1))
            names = ("bear_1", "dogs_1", "dogs_2")
            return {m: {k: [0.5] * 3 for k in "MRD"} | {"M_per_object": dict.fromkeys(names)} for m in "JF"}

    monkeypatch.setitem(sys.modules, "davis2017", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "davis2017.evaluation", SimpleNamespace(DAVISEvaluation=Evaluation))
    evaluate("--davis", root, "--results", masks, "--official", "--jobs", 1)
    printed = capsys.readouterr().out
    assert "compared with davis2017 over 3 objects" in printed
    assert "dogs 2 J-recall: ours 1.0, official 0.5" in printed
    assert "of 18 values differ by more than 1e-09" in printed
