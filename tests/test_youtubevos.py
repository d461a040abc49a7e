from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.core.errors import UserError
from pipeline.datasets.youtubevos import open_youtubevos
from tests.support.tiny_archives import Toy, make_toy, write_folder, write_tar, write_zip, youtubevos_files

ALL = tuple(f"{5 * t:05d}" for t in range(6))


def _late(toy: Toy) -> Toy:
    """Object 2 appears at the third annotated frame."""
    masks = toy.masks.copy()
    masks[:2][masks[:2] == 2] = 0
    return toy._replace(masks=masks)


@pytest.fixture
def files() -> dict[str, bytes]:
    videos = {"00a1": _late(make_toy(6, 2)), "00b2": make_toy(6, 1)}
    return youtubevos_files(videos, {"00a1": {"1": ALL, "2": ALL[2:]}, "00b2": {"1": ALL}})


def test_late_objects_from_any_container(tmp_path: Path, files: dict[str, bytes]) -> None:
    short = {name.removeprefix("train/"): data for name, data in files.items()}
    opened = [
        write_zip(tmp_path / "a" / "train.zip", files).parent,
        write_tar(tmp_path / "train.tar", files),
        write_folder(tmp_path / "b", files),
        write_folder(tmp_path / "c", short),
        write_tar(tmp_path / "d.tar", {f"data/vos/{name}": data for name, data in files.items()}),
        write_zip(tmp_path / "e.zip", {**files, **{name.replace("train/", "valid/"): b"" for name in files}}),
        write_folder(tmp_path / "f", {name.replace(".jpg", ".JPG"): data for name, data in files.items()}),
        write_tar(tmp_path / "g.tar", {**files, "train/JPEGImages/00a1/._00000.jpg": b"x", "train/._meta.json": b"x"}),
    ]
    for raw in opened:
        source = open_youtubevos(raw, "train")
        assert [v.name for v in source.videos] == ["00a1", "00b2"], raw
        video = source.videos[0]
        assert video.frames == video.annotated == ALL
        assert dict(video.first_seen) == {1: "00000", 2: "00010"}
        assert (video.kind, source.videos[1].kind) == ("multi", "single")
        assert source.frame(video, "00010").shape == (48, 64, 3)
        np.testing.assert_array_equal(source.mask(video, "00010"), make_toy(6, 2).masks[2])
        assert 2 not in source.mask(video, "00005")


def test_frames_between_annotations_and_valid_split(tmp_path: Path) -> None:
    """All frames are listed; masks exist only where objects first appear; there are other splits, too."""
    toy = _late(make_toy(6, 2))
    files = youtubevos_files({"v": toy}, {"v": {"1": ["00000"], "2": ["00010"]}}, root="valid/")
    kept = {n: d for n, d in files.items() if "Annotations" not in n or n.endswith(("00000.png", "00010.png"))}
    beside = youtubevos_files({"w": toy}, {"w": {"1": ["00000"]}}, root="train/")
    video = open_youtubevos(write_zip(tmp_path / "both.zip", kept | beside), "valid").videos[0]
    assert (video.name, video.frames, video.annotated) == ("v", ALL, ("00000", "00010"))
    assert dict(video.first_seen) == {1: "00000", 2: "00010"}


def test_first_frame_without_mask_gives_way_to_the_next(tmp_path: Path, files: dict[str, bytes]) -> None:
    del files["train/Annotations/00b2/00000.png"]
    video = open_youtubevos(write_zip(tmp_path / "train.zip", files), "train").videos[1]
    assert video.annotated == ALL[1:]
    assert dict(video.first_seen) == {1: "00005"}


def test_says_when_frame_numbers_are_of_another_release(
    tmp_path: Path, files: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    open_youtubevos(write_zip(tmp_path / "train.zip", files), "train")
    assert capsys.readouterr().out == ""
    ids = [f"{t:05d}" for t in range(6)]
    dense = youtubevos_files({"v": make_toy(6, 1)}, {"v": {"1": ids}}, every=1)
    open_youtubevos(write_zip(tmp_path / "dense.zip", dense), "train")
    said = capsys.readouterr().out
    assert "multiples of 5" in said
    assert said.count("\n") == 1


def test_refuses_what_is_missing(tmp_path: Path, files: dict[str, bytes]) -> None:
    def fault(change: dict[str, bytes | None]) -> str:
        changed = {name: data for name, data in (files | change).items() if data is not None}
        path = write_zip(tmp_path / "train.zip", changed)
        with pytest.raises(UserError) as error:
            open_youtubevos(path, "train")
        assert "\n" not in str(error.value)
        assert str(path) in str(error.value)
        return str(error.value)

    meta = json.loads(files["train/meta.json"])
    assert "meta.json" in fault({"train/meta.json": None})
    assert "cannot be interpreted" in fault({"train/meta.json": b"{"})
    assert "cannot be interpreted" in fault({"train/meta.json": b'{"videos": {"v": {}}}'})
    assert "lists no video" in fault({"train/meta.json": b'{"videos": {}}'})
    assert "00b2" in fault({n: None for n in files if "JPEGImages/00b2" in n})
    assert "object 1 has no mask" in fault({n: None for n in files if "Annotations/00b2" in n})
    assert "mask 00099.png has no frame" in fault({"train/Annotations/00b2/00099.png": b""})
    meta["videos"]["00b2"]["objects"]["7"] = {"frames": ["00099"]}
    assert "object 7" in fault({"train/meta.json": json.dumps(meta).encode()})


def test_videos_outside_meta_are_named(
    tmp_path: Path, files: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    meta = json.loads(files["train/meta.json"])
    del meta["videos"]["00b2"]
    files["train/meta.json"] = json.dumps(meta).encode()
    source = open_youtubevos(write_zip(tmp_path / "train.zip", files), "train")
    assert [v.name for v in source.videos] == ["00a1"]
    assert "00b2" in capsys.readouterr().out
