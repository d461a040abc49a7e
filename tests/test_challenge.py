"""Splits that only a challenge's server scores: from the published archive to what the server accepts."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline import depth as depth_stage
from pipeline import download, evaluate, infer, report, score
from pipeline.core.checkpoint import save_checkpoint
from pipeline.core.errors import UserError
from pipeline.core.images import decode_mask
from pipeline.core.manifest import read_manifest
from pipeline.datasets.config import Split
from pipeline.datasets.depth_maps import DepthMaps
from pipeline.datasets.splits import dataset_of, open_split
from pipeline.dstm.checkpoint import KIND
from pipeline.dstm.config import to_plain
from pipeline.sources.config import CocoSource, DataConfig
from pipeline.sources.requests import Request, requests_of
from pipeline.sources.store import Store
from tests.support.tiny_archives import (
    Toy,
    davis_files,
    make_toy,
    write_depth,
    write_folder,
    write_zip,
    youtubevos_files,
)
from tests.support.toy_inference import CONFIG, CPU, PLAIN, make_network

NONE = DataConfig("none", "none", "none", CocoSource("none", "none"), "none", "none", "none")
VIDEOS = {"bear": make_toy(6, 1, 40, 56), "dogs": make_toy(11, 2, 40, 56)}
LATE = "00003"  # where object 2 of `dogs` appears


def davis(split: str) -> dict[str, bytes]:
    return davis_files(VIDEOS, {f"2017/{split}": list(VIDEOS)}, masks=1)


def youtubevos_valid() -> dict[str, bytes]:
    """All frames exist; masks only in frames where objects first appear, each with the new objects only."""
    late = VIDEOS["dogs"].masks.copy()
    late[0][late[0] == 2] = 0
    late[3][late[3] == 1] = 0
    videos = {**VIDEOS, "dogs": VIDEOS["dogs"]._replace(masks=late)}
    files = youtubevos_files(
        videos, {"bear": {"1": ["00000"]}, "dogs": {"1": ["00000"], "2": [LATE]}}, "valid/", every=1
    )
    kept = [f"valid/Annotations/{name}.png" for name in ("bear/00000", "dogs/00000", f"dogs/{LATE}")]
    return {name: data for name, data in files.items() if "Annotations" not in name or name in kept}


def bring(root: Path, source: str) -> Path:
    """Run the download stage; returns the raw folder."""
    data = replace(NONE, challenge=source)
    download.run("challenge", data, "data", root / "embedded", root / "raw", Store(root / "store"), root)
    return root / "raw"


def segment(root: Path, split: Split, videos: dict[str, Toy] = VIDEOS) -> Path:
    """Run the infer stage with a tiny random network; returns the submission's folder."""
    network = make_network()
    save_checkpoint(root / "dstm.pt", KIND, to_plain(network.switches, network.config), network.state_dict())
    write_depth(root / "depth", videos)
    config = replace(CONFIG, split=split)
    scratch, submission = root / ".scratch/infer", root / "submission"
    infer.run(
        root / "raw", root / "depth", root / "dstm.pt", root / "masks", scratch, PLAIN, config, CPU, 1, submission
    )
    return submission


def check(*arguments: str | Path) -> None:
    """`evaluate --check`, which raises a UserError at any fault."""
    evaluate.run(evaluate.parse_arguments([*map(str, arguments), "--check"]))


@pytest.mark.parametrize("split", ["test-dev", "test-challenge"])
def test_davis_from_archive_to_submission(tmp_path: Path, split: Split) -> None:
    write_zip(tmp_path / "mine.zip", davis(split))
    raw = bring(tmp_path, "mine.zip")
    assert [file["name"] for file in read_manifest(raw)] == [f"DAVIS-2017-{split}-480p.zip"]
    assert [source.name for source in depth_stage.open_videos("challenge", raw)] == [f"davis-2017-{split}"]

    archive = segment(tmp_path, split) / f"{split}.zip"
    check("--davis", raw, "--split", split, "--results", archive)
    with zipfile.ZipFile(archive) as opened:
        assert len(opened.namelist()) == 17
        np.testing.assert_array_equal(decode_mask(opened.read("dogs/00000.png"), ""), VIDEOS["dogs"].masks[0])
        assert opened.read("dogs/00010.png") == (tmp_path / "masks/dogs/00010.png").read_bytes()

    score.run(raw, tmp_path / "masks", split, tmp_path / "metrics", 1)
    assert json.loads((tmp_path / "metrics/scores.json").read_text()) == {"J&F": None}
    per_object, maps = tmp_path / "metrics/per_object.csv", DepthMaps(tmp_path / "depth")
    report.run(open_split(raw, split), maps, tmp_path / "masks", per_object, tmp_path / "report")
    assert sorted(p.name for p in (tmp_path / "report/pictures").iterdir()) == ["first.jpg", "last.jpg"]


def test_youtubevos_with_a_late_object(tmp_path: Path) -> None:
    write_folder(tmp_path / "extracted", youtubevos_valid())
    raw = bring(tmp_path, "extracted/valid")
    assert [file["name"] for file in read_manifest(raw)] == ["valid"]
    assert [source.name for source in depth_stage.open_videos("challenge", raw)] == ["youtubevos-valid"]

    archive = segment(tmp_path, "youtubevos-valid") / "youtubevos-valid.zip"
    check("--youtubevos", raw, "--results", archive)
    check("--youtubevos", raw, "--results", tmp_path / "masks")
    assert len(list((tmp_path / "masks").rglob("*.png"))) == 17, "every frame is propagated"
    with zipfile.ZipFile(archive) as opened:
        judged = {"bear": (0, 5), "dogs": (0, 5, 10)}
        assert opened.namelist() == [f"Annotations/{v}/{t:05d}.png" for v, frames in judged.items() for t in frames]
    masks = [decode_mask((tmp_path / f"masks/dogs/{t:05d}.png").read_bytes(), "") for t in range(4)]
    assert all(mask.max() == 1 for mask in masks[:3]), "object 2 is not there yet"
    assert (masks[3][VIDEOS["dogs"].masks[3] == 2] == 2).all(), "and comes with its own mask"


def test_a_scored_split_has_no_submission(tmp_path: Path) -> None:
    write_zip(tmp_path / "raw/DAVIS-2017-trainval-480p.zip", davis_files(VIDEOS, {"2017/val": list(VIDEOS)}))
    (only,) = segment(tmp_path, "val").iterdir()
    assert (only.name, "nothing is submitted" in only.read_text()) == ("EMPTY.txt", True)
    assert (dataset_of("val"), dataset_of("youtubevos-valid")) == ("davis", "challenge")


def test_sources(tmp_path: Path) -> None:
    def of(value: str) -> Request:
        (request,) = requests_of("challenge", replace(NONE, challenge=value), "data")
        return request

    assert [(of(split).value, of(split).expected[0].url) for split in ("test-dev", "test-challenge")] == [
        ("published", f"https://data.vision.ee.ethz.ch/csergi/share/davis/DAVIS-2017-{split}-480p.zip")
        for split in ("test-dev", "test-challenge")
    ]
    with pytest.raises(UserError, match=r"data\.challenge is embedded; expected none, test-dev, test-challenge, the"):
        of("embedded")
    with pytest.raises(UserError, match=r"data\.challenge is youtubevos-valid, but .* registration"):
        bring(tmp_path, "youtubevos-valid")
    with pytest.raises(UserError, match=r"'test-def' not found .* expected none, test-dev"):
        bring(tmp_path, "test-def")
    write_zip(tmp_path / "val.zip", davis_files(VIDEOS, {"2017/val": list(VIDEOS)}))
    with pytest.raises(UserError, match=r"no DAVIS/ImageSets/2017/test-dev\.txt and no .* or valid\.tar; correct"):
        bring(tmp_path, "val.zip")


def test_a_switched_off_data_set_is_named(tmp_path: Path) -> None:
    raw = bring(tmp_path, "none")
    with pytest.raises(UserError, match=r"data\.challenge is none\); expected the archive of test-dev"):
        open_split(raw, "test-dev")
