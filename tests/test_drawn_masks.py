"""Masks as users draw them: what is read as ids, and what is refused with the way out."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable
from itertools import permutations
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pipeline.core.errors import UserError
from pipeline.core.images import DAVIS_PALETTE, VOID, encode_mask
from pipeline.footage.drawn_masks import read_mask
from pipeline.footage.palettes import KnownColours
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
        ("indexed, white ground", "its white part is background"),
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
        (Image.fromarray(np.arange(48 * 64).reshape(48, 64).astype(np.uint8)), "254 different values .*-threshold 50%"),
        (Image.fromarray(soft(DISC)), "different values .*smoothed.*-threshold 39%"),
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
    ids=["smooth", "soft", "soft white", "picture", "red", "paper", "cut-out", "grey cut-out", "deep"],
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
    Image.fromarray(rgb).save(tmp_path / "recoloured.png")
    recoloured = read_mask(tmp_path / "recoloured.png")
    found = [np.unique(recoloured[np.equal(IDS, i)]).tolist() for i in range(4)]
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
        ("mask.bmp", "not a PNG"),
        ("cut.png", "cannot be decoded"),
        ("animated.png", "animated"),
    ):
        with pytest.raises(UserError, match=rf"{name} .*{message}"):
            read_mask(tmp_path / name)


# --- what a person sees decides, not the order of the palette ---

BIRD = IDS == 2


def png_of(path: Path, image: Image.Image, **options: Any) -> Path:
    image.save(path, **options)
    return path


def drawing(colours: list[tuple[int, int, int]]) -> Image.Image:
    """Background and objects 1 to 3 in the given colours; ids beyond the list are background."""
    table = np.array([*colours, *[colours[0]] * (4 - len(colours))], np.uint8)
    return Image.fromarray(table[IDS])


def by_order(colours: list[tuple[int, int, int]], order: list[int]) -> Image.Image:
    """The same drawing, indexed, with its colours at given places of the palette."""
    palette = np.zeros((len(order), 3), np.uint8)
    palette[order] = colours
    return indexed(np.array(order, np.uint8)[np.where(len(colours) > IDS, IDS, 0)], palette)


BLACK, WHITE, RED_, GREEN_, BLUE_ = (0, 0, 0), (255, 255, 255), (255, 0, 0), (0, 255, 0), (0, 0, 255)


@pytest.mark.parametrize(
    "colours",
    [(BLACK, WHITE), ((3, 2, 1), (250, 251, 252)), ((2, 2, 2), (254, 254, 254))],
    ids=["pure", "shifted", "nearly"],
)
@pytest.mark.parametrize("order", [[0, 1], [1, 0], [3, 9]])
def test_white_is_the_object_at_any_index(
    tmp_path: Path, colours: tuple[tuple[int, int, int], tuple[int, int, int]], order: list[int]
) -> None:
    palette = np.full((max(order) + 1, 3), 77, np.uint8)
    palette[order] = colours
    path = png_of(tmp_path / "mask.png", indexed(np.where(BIRD, order[1], order[0]).astype(np.uint8), palette))
    np.testing.assert_array_equal(read_mask(path), BIRD)


@pytest.mark.parametrize("method", [0, 1, 2, None])
def test_black_and_white_through_pillow(tmp_path: Path, method: int | None) -> None:
    """`quantize` and ADAPTIVE put white first, or last, or anywhere."""
    image = Image.fromarray(np.dstack([np.where(BIRD, 255, 0).astype(np.uint8)] * 3))
    few = image.convert("P", palette=Image.Palette.ADAPTIVE, colors=2) if method is None else image.quantize(2, method)
    np.testing.assert_array_equal(read_mask(png_of(tmp_path / "mask.png", few)), BIRD)
    web = image.convert("P", palette=Image.Palette.WEB)
    np.testing.assert_array_equal(read_mask(png_of(tmp_path / "web.png", web)), BIRD)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_few_bits(tmp_path: Path, bits: int) -> None:
    """Grey values of 2 and 4 bits are the ids that are stored, not what they become when stretched to 8 bits."""
    top = min(3, 2**bits - 1)
    ids = np.minimum(IDS, top).astype(np.uint8)
    cv2.imwrite(str(tmp_path / "mask.png"), ids)
    header = bytearray((tmp_path / "mask.png").read_bytes()[:29])
    header[24] = bits
    rows = np.unpackbits(ids[..., None], axis=-1)[..., -bits:].reshape(len(ids), -1)  # most significant bit first
    packed = np.hstack([np.zeros((len(ids), 1), np.uint8), np.packbits(rows, axis=1)]).tobytes()

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    png = bytes(header[:8]) + chunk(b"IHDR", bytes(header[16:29])) + chunk(b"IDAT", zlib.compress(packed))
    (tmp_path / "mask.png").write_bytes(png + chunk(b"IEND", b""))
    expected = np.where(ids == top, 1, 0) if set(np.unique(ids)) == {0, top} else ids
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png"), expected)


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_black_is_background_at_any_index(
    tmp_path: Path, order: tuple[int, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """Two objects in red and green: each is one object, whatever its number, and the line says which has which."""
    path = png_of(tmp_path / "mask.png", by_order([BLACK, RED_, GREEN_], list(order)))
    found = read_mask(path)
    assert [np.unique(found[i == IDS]).tolist() for i in (0, 3)] == [[0], [0]]
    ids = [int(found[i == IDS][0]) for i in (1, 2)]
    assert sorted(ids) == [1, 2] and all((found[i == IDS] == ids[i - 1]).all() for i in (1, 2))
    printed = capsys.readouterr().out
    if order[0] == 0:
        assert ids == [order[1], order[2]] and not printed, "index 0 is background: the indices are ids"
    else:
        assert f"#ff0000 object {ids[0]}" in printed and f"#00ff00 object {ids[1]}" in printed


@pytest.mark.parametrize("clear", [0, 1, 2])
def test_transparent_is_background_at_any_index(tmp_path: Path, clear: int) -> None:
    rest = [i for i in range(3) if i != clear]
    palette = np.array([RED_, GREEN_, BLUE_], np.uint8)
    indices = np.array([clear, *rest, clear], np.uint8)[IDS]
    alpha = bytes(0 if i == clear else 255 for i in range(3))
    for name, transparency in (("whole.png", clear), ("alpha.png", alpha)):
        path = png_of(tmp_path / name, indexed(indices, palette), transparency=transparency)
        np.testing.assert_array_equal(read_mask(path), np.where(IDS == 3, 0, IDS))
    half = bytes(alpha[i] or 0 if i == clear else 128 for i in range(3))
    with pytest.raises(UserError, match="half-transparent"):
        read_mask(png_of(tmp_path / "half.png", indexed(indices, palette), transparency=half))


def test_a_transparent_grey(tmp_path: Path) -> None:
    """Grey values and 16-bit ones have one value that is transparent."""
    values = np.where(IDS == 0, 9, IDS).astype(np.uint8)
    for name, image in (("8.png", Image.fromarray(values)), ("16.png", Image.fromarray(values.astype(np.uint16)))):
        np.testing.assert_array_equal(read_mask(png_of(tmp_path / name, image, transparency=9)), IDS)


def test_permuted_greys_are_grey_values(tmp_path: Path) -> None:
    greys = [(0, 0, 0), (1, 1, 1), (2, 2, 2), (3, 3, 3)]
    path = png_of(tmp_path / "mask.png", by_order(greys, [2, 0, 3, 1]))
    np.testing.assert_array_equal(read_mask(path), IDS)


def test_objects_on_white_paper(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = png_of(tmp_path / "mask.png", by_order([WHITE, RED_, GREEN_], [2, 0, 1]))
    np.testing.assert_array_equal(read_mask(path), np.where(IDS == 3, 0, IDS))
    assert "its white part is background" in capsys.readouterr().out


def test_no_colour_that_could_be_background(tmp_path: Path) -> None:
    for order in ([0, 1], [1, 0]):
        path = png_of(tmp_path / "mask.png", by_order([RED_, GREEN_], order))
        with pytest.raises(UserError, match=r"holds #.*, which all look like objects; expected a background in black"):
            read_mask(path)


def test_palettes_that_say_nothing(tmp_path: Path) -> None:
    """All black, or black from some id on: the indices are ids, as nothing else tells objects apart."""
    for name, palette in (("black.png", np.zeros((4, 3), np.uint8)), ("short.png", COLOURS * [[1], [1], [0], [0]])):
        palette = palette.astype(np.uint8)
        np.testing.assert_array_equal(read_mask(png_of(tmp_path / name, indexed(IDS, palette))), IDS)


def test_a_colour_is_one_object_in_all_masks(tmp_path: Path) -> None:
    """As reduced colours come in another order in each file."""
    known, drawn = KnownColours(), [BLACK, RED_, GREEN_, BLUE_]
    first = read_mask(png_of(tmp_path / "first.png", by_order(drawn, [0, 1, 2, 3])), known)
    np.testing.assert_array_equal(first, IDS)
    for order in ([0, 3, 1, 2], [3, 2, 1, 0], [1, 0, 3, 2]):
        np.testing.assert_array_equal(read_mask(png_of(tmp_path / "x.png", by_order(drawn, order)), known), IDS)
    late = by_order([BLACK, GREEN_], [0, 1])  # object 1 of this picture is green, which was object 2
    np.testing.assert_array_equal(read_mask(png_of(tmp_path / "late.png", late), known), np.where(IDS == 1, 2, 0))
    other = by_order([BLACK, (9, 99, 199)], [0, 1])  # an index that is an id, in a colour of its own
    np.testing.assert_array_equal(read_mask(png_of(tmp_path / "other.png", other), known), IDS == 1)


# --- tiny and many objects ---


def tiled(side: int, count: int, gap: int) -> NDArray[np.uint8]:
    """Squares with ids from 1, a gap between them."""
    across, step = 12, side + gap
    ids = np.zeros((step * (count // across + 2), step * (across + 1)), np.uint8)
    for i in range(count):
        top, left = step * (i // across) + 1, step * (i % across) + 1
        ids[top : top + side, left : left + side] = i + 1
    return ids


@pytest.mark.parametrize(("side", "count", "gap"), [(1, 100, 1), (2, 4, 3), (2, 100, 1), (1, 2, 0), (6, 100, 2)])
def test_tiny_objects_are_taken(tmp_path: Path, side: int, count: int, gap: int) -> None:
    ids = tiled(side, count, gap)
    (tmp_path / "davis.png").write_bytes(encode_mask(ids))
    own = (np.arange(256)[:, None] * (37, 91, 151) % 256).astype(np.uint8)  # 256 different colours, black first
    Image.fromarray(DAVIS_PALETTE[ids]).save(tmp_path / "rgb.png")
    indexed(ids, own).save(tmp_path / "own.png")
    Image.fromarray(ids).save(tmp_path / "grey.png")
    for name in ("davis.png", "rgb.png", "own.png", "grey.png"):
        np.testing.assert_array_equal(read_mask(tmp_path / name), ids)


def test_a_packed_crowd(tmp_path: Path) -> None:
    """Thin ids that touch may be the steps of a soft border, except in DAVIS' colours, which nothing mixes."""
    ids = tiled(1, 60, 0)
    (tmp_path / "davis.png").write_bytes(encode_mask(ids))
    np.testing.assert_array_equal(read_mask(tmp_path / "davis.png"), ids)
    Image.fromarray(ids).save(tmp_path / "grey.png")
    with pytest.raises(UserError, match=r"60 different values .*thin and touch: save the mask in DAVIS' colours"):
        read_mask(tmp_path / "grey.png")


@pytest.mark.parametrize("side", [1, 6])
def test_more_objects_than_a_run_takes(tmp_path: Path, side: int) -> None:
    path = png_of(tmp_path / "mask.png", Image.fromarray(tiled(side, 120, 2)))
    with pytest.raises(UserError, match=r"holds 120 objects; expected at most 100 in a mask; .*several runs$"):
        read_mask(path)


@pytest.mark.parametrize(("peak", "deep"), [(40, False), (200, False), (255, False), (90, True)])
def test_the_threshold_of_a_soft_mask_leaves_the_object(tmp_path: Path, peak: int, deep: bool) -> None:
    """The command of the line by its definition: white is what lies above a share of the largest value there can be."""
    smooth = cv2.GaussianBlur(np.where(IDS == 1, peak, 0).astype(np.uint8), (7, 7), 2)
    path = png_of(tmp_path / "soft.png", Image.fromarray(smooth.astype(np.uint16 if deep else np.uint8)))
    with pytest.raises(UserError, match="smoothed") as error:
        read_mask(path)
    percent = re.search(r"-threshold ([0-9.]+)%", str(error.value))
    assert percent
    hard = smooth > float(percent[1]) / 100 * (65535 if deep else 255)
    inside = IDS == 1
    assert (hard & inside).sum() / (hard | inside).sum() > 0.9
