from __future__ import annotations

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pipeline.core.errors import UserError
from pipeline.core.images import encode_jpeg, encode_mask, object_ids
from pipeline.datasets.davis import davis_splits, open_davis
from pipeline.datasets.video import Video
from tests.support.tiny_archives import Toy, davis_files, make_toy, write_folder, write_tar, write_zip

NAME = "DAVIS-2017-trainval-480p.zip"


def test_reads_frames_masks_and_objects(davis_raw: Path) -> None:
    source = open_davis(davis_raw, "train")
    assert [v.name for v in source.videos] == ["bear", "dogs"]
    bear, dogs = source.videos
    assert dogs.frames == dogs.annotated == tuple(f"{t:05d}" for t in range(6))
    assert dict(dogs.first_seen) == {1: "00000", 2: "00000"}
    assert (bear.kind, dogs.kind) == ("single", "multi")
    toy = make_toy(6, 2)
    np.testing.assert_array_equal(source.mask(dogs, "00003"), toy.masks[3])
    frame = source.frame(dogs, "00003")
    assert frame.dtype == np.uint8
    assert np.abs(frame.astype(int) - toy.frames[3]).mean() < 4  # JPEG


def test_archive_folder_and_tar_read_alike(davis_raw: Path, tmp_path: Path) -> None:
    toy = make_toy(3, 2)
    files = davis_files({"a": toy}, {"2017/val": ["a"]}, root="DAVIS/")
    bare = davis_files({"a": toy}, {"2017/val": ["a"]}, root="")
    opened = [
        write_zip(tmp_path / "renamed.zip", files),
        write_zip(tmp_path / "bare.zip", bare),
        write_tar(tmp_path / "davis.tar", {"./" + name: data for name, data in files.items()}),
        write_folder(tmp_path / "folder", files),
        write_folder(tmp_path / "folder", files) / "DAVIS",
        write_zip(tmp_path / "only" / "any-name.zip", files).parent,
    ]
    for raw in opened:
        source = open_davis(raw, "val")
        assert [v.name for v in source.videos] == ["a"], raw
        np.testing.assert_array_equal(source.mask(source.videos[0], "00002"), toy.masks[2])


def test_opening_decodes_no_mask(tmp_path: Path) -> None:
    files = davis_files({"a": make_toy(2, 1)}, {"2017/train": ["a"]})
    files["DAVIS/Annotations/480p/a/00000.png"] = b"no image"
    source = open_davis(write_zip(tmp_path / NAME, files), "train")
    with pytest.raises(UserError, match=r"a/00000\.png"):
        len(source.videos[0].first_seen)


def test_2016_merges_objects_and_keeps_void(tmp_path: Path) -> None:
    toy = make_toy(2, 3)
    toy.masks[0, :2] = 255
    splits = {"2016/val": ["a"], "2017/val": ["a"]}
    path = write_zip(tmp_path / NAME, davis_files({"a": toy}, splits))
    merged, separate = open_davis(path, "val", 2016), open_davis(path, "val", 2017)
    mask = merged.mask(merged.videos[0], "00000")
    np.testing.assert_array_equal(np.unique(mask), [0, 1, 255])
    np.testing.assert_array_equal(mask == 255, toy.masks[0] == 255)
    assert dict(merged.videos[0].first_seen) == {1: "00000"}
    assert list(separate.videos[0].first_seen) == [1, 2, 3]


@pytest.mark.parametrize("split", ["test-dev", "test-challenge"])
def test_test_splits_have_one_mask(tmp_path: Path, split: str) -> None:
    files = davis_files({"a": make_toy(4, 2)}, {f"2017/{split}": ["a"]}, masks=1)
    trainval = davis_files({"b": make_toy(2, 1)}, {"2017/val": ["b"]})
    write_zip(tmp_path / f"DAVIS-2017-{split}-480p.zip", files)
    write_zip(tmp_path / NAME, trainval)  # both may lie in one folder
    video = open_davis(tmp_path, split).videos[0]
    assert (len(video.frames), video.annotated) == (4, ("00000",))
    assert dict(video.first_seen) == {1: "00000", 2: "00000"}
    assert open_davis(tmp_path, "val").videos[0].name == "b"


def test_refuses_what_is_missing(tmp_path: Path) -> None:
    toy = make_toy(3, 1)
    whole = davis_files({"a": toy}, {"2017/train": ["a"], "2017/val": []})

    def fault(change: dict[str, bytes | None], split: str = "train") -> str:
        files = {name: data for name, data in (whole | change).items() if data is not None}
        path = write_zip(tmp_path / NAME, files)
        with pytest.raises(UserError) as error:
            open_davis(path, split)
        assert "\n" not in str(error.value)
        assert str(path) in str(error.value)
        return str(error.value)

    assert "Annotations/480p/a/00001.png" in fault({"DAVIS/Annotations/480p/a/00001.png": None})
    assert "mask 00009.png has no frame" in fault({"DAVIS/Annotations/480p/a/00009.png": b""})
    assert "sequence b" in fault({"DAVIS/ImageSets/2017/train.txt": b"a\nb\n"})
    assert "val.txt is empty" in fault({}, "val")
    assert "ImageSets/2017/test-dev.txt" in fault({}, "test-dev")
    assert "ImageSets/2017/train.txt" in fault({"DAVIS/ImageSets/2017/train.txt": None})


def test_refuses_a_mask_of_another_size(tmp_path: Path, toy_video: Toy) -> None:
    files = davis_files({"a": toy_video}, {"2017/train": ["a"]})
    files["DAVIS/Annotations/480p/a/00002.png"] = encode_mask(toy_video.masks[2][:, :-1])
    source = open_davis(write_zip(tmp_path / NAME, files), "train")
    source.mask(source.videos[0], "00001")
    with pytest.raises(UserError, match=r"00002\.png is 63x48, its frame 64x48"):
        source.mask(source.videos[0], "00002")


def test_refuses_damaged_and_ambiguous_archives(davis_raw: Path) -> None:
    whole = (davis_raw / NAME).read_bytes()
    (davis_raw / NAME).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="not a readable zip"):
        open_davis(davis_raw, "train")
    (davis_raw / NAME).write_bytes(whole)
    shutil.copy(davis_raw / NAME, davis_raw / "other.zip")
    assert len(open_davis(davis_raw, "train").videos) == 2  # the published name wins
    (davis_raw / NAME).rename(davis_raw / "another.zip")
    with pytest.raises(UserError, match=r"another\.zip, other\.zip"):
        open_davis(davis_raw, "train")
    with pytest.raises(UserError, match="does not exist"):
        open_davis(davis_raw / "nowhere", "train")


def test_refuses_a_first_mask_without_object(tmp_path: Path) -> None:
    files = davis_files({"a": make_toy(2, 0)}, {"2017/train": ["a"]})
    source = open_davis(write_zip(tmp_path / NAME, files), "train")
    with pytest.raises(UserError, match="has no object"):
        len(source.videos[0].first_seen)


@pytest.mark.parametrize(
    ("name", "n_objects", "kind"),
    [
        ("single-000", 1, "single"),
        ("multi-012", 1, "multi"),
        ("lookalike-003", 2, "lookalike"),
        ("lookalikes", 1, "single"),
        ("dogs-jump", 3, "multi"),
    ],
)
def test_kind_of_video(name: str, n_objects: int, kind: str) -> None:
    seen = {k + 1: "00000" for k in range(n_objects)}
    assert Video(name, ("00000",), ("00000",), seen).kind == kind


def test_object_ids_leave_out_background_and_void() -> None:
    assert object_ids(np.array([[0, 255, 7], [2, 254, 7]], np.uint8)) == [2, 7, 254]
    assert object_ids(np.zeros((2, 2), np.uint8)) == []


def test_a_turned_frame_is_compared_as_displayed(tmp_path: Path, toy_video: Toy) -> None:
    """A frame stored lying with an EXIF orientation is shown upright, and its mask is upright."""
    lying = encode_jpeg(np.ascontiguousarray(np.rot90(toy_video.frames[0])))
    tiff = b"II*\0\x08\0\0\0" + b"\x01\0" + b"\x12\x01\x03\0\x01\0\0\0\x06\0\0\0" + b"\0\0\0\0"  # orientation 6
    exif = b"Exif\0\0" + tiff
    turned = lying[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + lying[2:]
    files = davis_files({"a": toy_video}, {"2017/train": ["a"]})
    files["DAVIS/JPEGImages/480p/a/00000.jpg"] = turned
    source = open_davis(write_zip(tmp_path / NAME, files), "train")
    video = source.videos[0]
    assert source.frame(video, "00000").shape[:2] == source.mask(video, "00000").shape == (48, 64)
    assert np.abs(source.frame(video, "00000").astype(int) - toy_video.frames[0]).mean() < 6


def binary(mask: NDArray[np.uint8]) -> bytes:
    """As the masks of DAVIS 2016: grey, 0 and 255."""
    buffer = io.BytesIO()
    Image.fromarray((mask > 0).astype(np.uint8) * 255).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("year", [None, 2016])
def test_the_archive_of_davis_2016_itself(tmp_path: Path, year: int | None, capsys: pytest.CaptureFixture[str]) -> None:
    """Its lists have a line for every frame, in a folder named by the resolution, and its masks are binary."""
    toys = {"bear": make_toy(3, 2), "dogs": make_toy(3, 1)}
    files = davis_files(toys, {})
    files = {name: data for name, data in files.items() if "Annotations" not in name}
    lines = []
    for name, toy in toys.items():
        for t in range(3):
            files[f"DAVIS/Annotations/480p/{name}/{t:05d}.png"] = binary(toy.masks[t])
            lines.append(f"/JPEGImages/480p/{name}/{t:05d}.jpg /Annotations/480p/{name}/{t:05d}.png \n")
    files["DAVIS/ImageSets/480p/train.txt"] = "".join(lines[:3]).encode()
    files["DAVIS/ImageSets/480p/val.txt"] = "".join(lines[3:]).encode()
    raw = write_zip(tmp_path / "raw" / "DAVIS-data.zip", files).parent
    source = open_davis(raw, "train", year)
    assert source.name == "davis-2016-train"
    (bear,) = source.videos
    assert bear.name == "bear" and dict(bear.first_seen) == {1: "00000"}
    np.testing.assert_array_equal(source.mask(bear, "00001"), toys["bear"].masks[1] > 0)
    assert davis_splits(raw) == ["train", "val"]
    assert ("reading it as DAVIS 2016" in capsys.readouterr().out) == (year is None)
    with pytest.raises(UserError, match=r"no ImageSets/2017/train\.txt"):
        open_davis(raw, "train", 2017)


def test_2017_is_preferred_to_2016(davis_raw: Path) -> None:
    assert open_davis(davis_raw, "val").name == "davis-2017-val"
    assert davis_splits(davis_raw) == ["train", "val"]
