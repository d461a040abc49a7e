"""Masks as users draw them: what is read as ids, and what is refused with the way to mend it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pipeline.core.errors import UserError
from pipeline.core.images import DAVIS_PALETTE, VOID, encode_mask
from pipeline.footage.drawn_masks import parse_masks, read_mask, read_masks
from tests.support.tiny_archives import make_toy

IDS = make_toy(1, 3).masks[0]  # ids 1 to 3 on background
# colours of the first ids by the rule of VOC: the low bits of the id are the high bits of red, green and blue
COLOURS = np.array([[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0]], np.uint8)


def indexed(ids: NDArray[np.uint8], palette: NDArray[np.uint8]) -> Image.Image:
    image = Image.fromarray(ids, mode="P")
    image.putpalette(palette.tobytes())
    return image


def transparent(ids: NDArray[np.uint8]) -> Image.Image:
    """Objects in their colours; elsewhere white that is not seen."""
    rgb = np.where((ids > 0)[..., None], COLOURS[ids], 255).astype(np.uint8)
    return Image.fromarray(np.dstack([rgb, np.where(ids > 0, 255, 0).astype(np.uint8)]))


PERMUTED = np.array([2, 3, 0, 1])  # the index each id has got
FORMS: dict[str, Callable[[], Image.Image]] = {
    "indexed": lambda: indexed(IDS, DAVIS_PALETTE),
    "indexed, other colours": lambda: indexed(IDS, np.array([[0, 0, 0], [9, 8, 7], [90, 80, 70], [1, 2, 3]], np.uint8)),
    "indexed, white ground": lambda: indexed(
        IDS, np.array([[255, 255, 255], [9, 8, 7], [1, 2, 3], [4, 5, 6]], np.uint8)
    ),
    "indexed, one colour twice": lambda: indexed(IDS, np.array([[0, 0, 0], [9, 8, 7], [9, 8, 7], [9, 8, 7]], np.uint8)),
    "indexed, DAVIS' colours in another order": lambda: indexed(
        PERMUTED[IDS].astype(np.uint8), COLOURS[np.argsort(PERMUTED)]
    ),
    "grey": lambda: Image.fromarray(IDS),
    "grey, opaque": lambda: Image.fromarray(np.dstack([IDS, np.full_like(IDS, 255)]), mode="LA"),
    "16 bits": lambda: Image.fromarray(IDS.astype(np.uint16)),
    "RGB": lambda: Image.fromarray(COLOURS[IDS]),
    "RGBA": lambda: Image.fromarray(np.dstack([COLOURS[IDS], np.full_like(IDS, 255)])),
    "RGBA on transparent": lambda: transparent(IDS),
}


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_ids(tmp_path: Path, form: str) -> None:
    FORMS[form]().save(tmp_path / "mask.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png"), IDS)


@pytest.mark.parametrize("form", ["grey", "binary", "16 bits", "RGB", "indexed", "RGBA on transparent"])
def test_black_and_white_is_one_object(tmp_path: Path, form: str, capsys: pytest.CaptureFixture[str]) -> None:
    inside = IDS == 2
    white = np.where(inside, 255, 0).astype(np.uint8)
    {
        "grey": lambda: Image.fromarray(white),
        "binary": lambda: Image.fromarray(white).convert("1"),
        "16 bits": lambda: Image.fromarray(white.astype(np.uint16) * 257),
        "RGB": lambda: Image.fromarray(np.dstack([white] * 3)),
        "indexed": lambda: indexed(white, np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)),
        "RGBA on transparent": lambda: Image.fromarray(np.dstack([np.full((*white.shape, 3), 255, np.uint8), white])),
    }[form]().save(tmp_path / "white.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "white.png"), inside)
    assert ("black and white" in capsys.readouterr().out) == (form != "binary")


def test_void_stays_void_beside_ids(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ids = IDS.copy()
    ids[:5] = VOID
    (tmp_path / "mask.png").write_bytes(encode_mask(ids))
    Image.fromarray(DAVIS_PALETTE[ids]).save(tmp_path / "rgb.png")
    for name in ("mask.png", "rgb.png"):
        np.testing.assert_array_equal(read_mask(tmp_path / name), ids)
    assert "black and white" not in capsys.readouterr().out


def test_an_unusual_form_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for form, said in (
        ("indexed", ""),
        ("RGB", "colour image in DAVIS' colours"),
        ("indexed, DAVIS' colours in another order", "at other indices"),
        ("indexed, white ground", "index 0 in #ffffff: it is background"),
    ):
        FORMS[form]().save(tmp_path / "mask.png")
        read_mask(tmp_path / "mask.png")
        printed = capsys.readouterr().out
        assert said in printed if said else not printed


def soft(levels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(cv2.resize(cv2.resize(levels, None, fx=3, fy=3), None, fx=0.7, fy=0.7), np.uint8)


RED, GREEN = np.array([255, 0, 0], np.uint8), np.array([0, 128, 0], np.uint8)
DISC = np.where(IDS == 1, 200, 0).astype(np.uint8)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (Image.fromarray(np.zeros_like(IDS)), "holds no object"),
        (Image.fromarray(np.arange(48 * 64).reshape(48, 64).astype(np.uint8)), "254 different values .*-threshold 50%"),
        (Image.fromarray(soft(DISC)), "different values .*smoothed"),
        (Image.fromarray(soft(np.where(IDS == 1, 255, 0).astype(np.uint8))), "different values .*smoothed"),
        (Image.fromarray(make_toy(1).frames[0]), "holds .* colours, as a picture"),
        (
            Image.fromarray(np.where((IDS == 1)[..., None], RED, (IDS == 2)[..., None] * GREEN).astype(np.uint8)),
            r"holds #ff0000; .*magick \S*/mask.png -fill '#800000' -opaque '#ff0000' mask.png$",
        ),
        (
            Image.fromarray(np.where((IDS == 1)[..., None], RED, 255).astype(np.uint8)),
            r"-fill '#800000' -opaque '#ff0000' -fill '#000000' -opaque '#ffffff' mask.png$",
        ),
        (Image.fromarray(np.dstack([COLOURS[IDS], soft(DISC)[:1, :1] * 0 + 7 + IDS])), "half-transparent"),
        (Image.fromarray(np.dstack([IDS, IDS + 7]), mode="LA"), "half-transparent"),
        (Image.fromarray(IDS.astype(np.uint16) * 300), "16-bit values up to 900"),
    ],
    ids=["empty", "smooth", "soft", "soft white", "picture", "red", "paper", "cut-out", "grey cut-out", "deep"],
)
def test_refused(tmp_path: Path, image: Image.Image, message: str) -> None:
    image.save(tmp_path / "mask.png")
    with pytest.raises(UserError, match=message) as error:
        read_mask(tmp_path / "mask.png")
    assert "\n" not in str(error.value) and str(tmp_path / "mask.png") in str(error.value)


def test_the_command_for_other_colours_gives_the_ids(tmp_path: Path) -> None:
    """Followed step by step, as -opaque replaces one colour exactly; a colour of DAVIS that is there stays free."""
    strange = np.array([[0, 0, 0], [0, 0, 1], [128, 0, 0], [7, 0, 0]], np.uint8)
    Image.fromarray(strange[IDS]).save(tmp_path / "mask.png")
    with pytest.raises(UserError) as error:
        read_mask(tmp_path / "mask.png")
    words = str(error.value).rsplit("magick ", 1)[1].replace("'", "").split()
    rgb = strange[IDS]
    for new, old in zip(words[2::4], words[4::4]):
        a, b = (np.array([int(word[i : i + 2], 16) for i in (1, 3, 5)], np.uint8) for word in (new, old))
        rgb[(rgb == b).all(axis=-1)] = a
    Image.fromarray(rgb).save(tmp_path / "mended.png")
    mended = read_mask(tmp_path / "mended.png")
    found = [np.unique(mended[np.equal(IDS, i)]).tolist() for i in range(4)]
    assert found[0] == [0] and all(len(ids) == 1 for ids in found)
    assert len({ids[0] for ids in found}) == 4


def test_unfit_files(tmp_path: Path) -> None:
    Image.fromarray(IDS).save(tmp_path / "mask.jpg")
    Image.fromarray(IDS).save(tmp_path / "mask.bmp")
    Image.fromarray(IDS).save(tmp_path / "animated.png", save_all=True, append_images=[Image.fromarray(IDS[::-1])])
    (tmp_path / "cut.png").write_bytes(encode_mask(IDS)[:-30])
    (tmp_path / "renamed.png").write_bytes((tmp_path / "mask.jpg").read_bytes())
    for name, message in (
        ("nowhere.png", "cannot be read"),
        ("mask.jpg", "a JPEG, which blurs ids"),
        ("renamed.png", "a JPEG, which blurs ids"),
        ("mask.bmp", "no PNG"),
        ("cut.png", "cannot be decoded"),
        ("animated.png", "animated"),
    ):
        with pytest.raises(UserError, match=rf"{name} .*{message}"):
            read_mask(tmp_path / name)


def test_masks_of_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("one.png", "late.png", "7:own.png"):
        (tmp_path / name).write_bytes(encode_mask(IDS))
    one, late = Path("one.png"), Path("late.png")
    assert parse_masks(["one.png", "40:late.png"]) == {0: one, 40: late}
    assert parse_masks(["007:one.png"]) == {7: one}
    assert parse_masks(["7:own.png"]) == {0: Path("7:own.png")}, "a file that is there is a file"
    np.testing.assert_array_equal(read_masks(["one.png", "40:late.png"])[40], IDS)
    assert capsys.readouterr().out == "frame 0: objects 1, 2, 3\nframe 40: objects 1, 2, 3\n"
    for arguments, message in (
        (["nowhere.png"], "nowhere.png does not exist"),
        (["5:nowhere.png"], "^nowhere.png does not exist"),
        (["-1:one.png"], "-1:one.png does not exist"),
        (["one.png", "late.png"], "two masks are given for frame 0, one.png and late.png"),
        (["3:one.png", "03:late.png"], "two masks are given for frame 3"),
    ):
        with pytest.raises(UserError, match=message):
            parse_masks(arguments)
