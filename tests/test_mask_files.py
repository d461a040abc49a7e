"""The masks of a command line: files, frames given by number, and folders as annotation programs export them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from pipeline.core.errors import UserError
from pipeline.core.images import encode_mask
from pipeline.footage.footage import ImageFootage, VideoFootage, open_footage
from pipeline.footage.mask_files import read_masks
from tests.support.tiny_archives import make_toy
from tests.support.tiny_footage import counted, write_frames, write_mask, write_video

TOY = make_toy(12, 2)
EMPTY = np.zeros_like(TOY.masks[0])


@pytest.fixture
def images(tmp_path: Path) -> VideoFootage | ImageFootage:
    return open_footage(str(write_frames(tmp_path / "frames", TOY, "img_{}.jpg")))


@pytest.fixture
def film(tmp_path: Path) -> VideoFootage | ImageFootage:
    return open_footage(str(write_video(tmp_path / "clip.mp4", counted(12))))


def export(folder: Path, names: dict[str, int]) -> Path:
    """Masks of frames under the given names."""
    folder.mkdir()
    for name, index in names.items():
        (folder / name).write_bytes(encode_mask(TOY.masks[index]))
    return folder


def test_files(
    tmp_path: Path,
    images: ImageFootage,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("one.png", "late.png", "7:own.png"):
        (tmp_path / name).write_bytes(encode_mask(TOY.masks[0]))
    (tmp_path / "empty.png").write_bytes(encode_mask(EMPTY))
    (tmp_path / "folder").mkdir()
    one, late = Path("one.png"), Path("late.png")
    assert read_masks(["one.png", "40:late.png"], images).files == {0: one, 40: late}
    assert capsys.readouterr().out == "frame 0: objects 1, 2\nframe 40: objects 1, 2\n"
    assert read_masks(["007:one.png"], images).files == {7: one}
    assert read_masks(["7:own.png"], images).files == {0: Path("7:own.png")}, "a file that is there is a file"
    for arguments, message in (
        (["nowhere.png"], "^nowhere.png does not exist; expected .*folder of masks"),
        (["5:nowhere.png"], "^nowhere.png does not exist"),
        (["-1:one.png"], "-1:one.png does not exist"),
        (["one.png", "late.png"], "two masks are given for frame 0, one.png and late.png"),
        (["3:one.png", "03:late.png"], "two masks are given for frame 3"),
        (["empty.png"], "^empty.png holds no object; expected ids from 1"),
        (["one.png", "3:empty.png"], "^empty.png holds no object"),
        (["3:folder"], "^folder is a folder; .*without 3:"),
    ):
        with pytest.raises(UserError, match=message) as error:
            read_masks(arguments, images)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("pattern", ["img_{}.png", "IMG_{}.PNG", "img_{}.jpg.png"])
def test_a_folder_named_like_the_images(
    tmp_path: Path, images: ImageFootage, pattern: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = export(tmp_path / "masks", {pattern.format(i): i for i in (2, 10)})
    (folder / "labelmap.txt").write_text("# label:color_rgb:parts:actions")
    (folder / ".hidden.png").touch()
    (folder / pattern.format(3)).write_bytes(encode_mask(EMPTY))
    given = read_masks([str(folder)], images)
    assert {index: path.name for index, path in given.files.items()} == {i: pattern.format(i) for i in (2, 3, 10)}
    assert list(given.ids) == [2, 10], "img_10 is the eleventh frame, not the third"
    for index, mask in given.ids.items():
        np.testing.assert_array_equal(mask, TOY.masks[index])
    printed = capsys.readouterr().out.splitlines()
    assert printed == [
        f"{folder}: 1 left out that is not a PNG (labelmap.txt)",
        f"{folder}: masks for 2 frames, 2 to 10: objects 1, 2; 1 more without an object, which changes nothing",
    ]


@pytest.mark.parametrize("pattern", ["{:05d}.png", "{}.png", "frame_{:06d}.png", "clip2 {:03d}.png"])
def test_a_folder_with_the_numbers_of_a_video(tmp_path: Path, film: VideoFootage, pattern: str) -> None:
    """As this program names masks, and as programs that annotate videos number them, from 0."""
    folder = export(tmp_path / "masks", {pattern.format(i): i for i in (0, 9, 11)})
    given = read_masks([str(folder)], film)
    assert list(given.ids) == [0, 9, 11]
    np.testing.assert_array_equal(given.ids[9], TOY.masks[9])


def test_a_folder_beside_a_file(tmp_path: Path, images: ImageFootage) -> None:
    folder = export(tmp_path / "masks", {"img_4.png": 4})
    first = write_mask(tmp_path / "first.png", TOY.masks[0])
    assert list(read_masks([str(folder), str(first)], images).ids) == [0, 4]
    with pytest.raises(UserError, match=r"two masks are given for frame 4, .*img_4\.png and .*first\.png"):
        read_masks([str(folder), f"4:{first}"], images)


def test_unfit_folders(tmp_path: Path, images: ImageFootage, film: VideoFootage) -> None:
    empty = export(tmp_path / "empty", {})
    jpegs = export(tmp_path / "jpegs", {"img_0.jpg": 0, "img_1.jpg": 1})
    strays = export(tmp_path / "strays", {"img_0.png": 0, "img_12.png": 1, "other.png": 2})
    twice = export(tmp_path / "twice", {"img_0.png": 0, "img_0.jpg.png": 0})
    blank = export(tmp_path / "blank", {})
    for i in (1, 2):
        (blank / f"img_{i}.png").write_bytes(encode_mask(EMPTY))
    mixed = export(tmp_path / "mixed", {"a_1.png": 1, "b_2.png": 2})
    for folder, footage, message in (
        (empty, images, r"empty holds nothing; expected masks named like the frames, as img_0\.png$"),
        (jpegs, images, r"jpegs holds no PNG but img_0\.jpg, img_1\.jpg; expected"),
        (strays, images, r"strays holds 2 masks named after no frame \(img_12\.png, other\.png\); .*as img_0\.png"),
        (twice, images, r"img_0\.(jpg\.)?png are both named after frame 0"),
        (blank, images, r"blank holds no object"),
        (mixed, film, r"mixed holds 2 masks named after no frame \(a_1\.png, b_2\.png\); .*as 00000\.png"),
    ):
        with pytest.raises(UserError, match=message) as error:
            read_masks([str(folder)], footage)
        assert not re.search(r"\n", str(error.value))
