"""Object ids of indexed PNGs: the visible colours decide, not the order in which a program stored them."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.core.errors import UserError
from pipeline.core.images import DAVIS_PALETTE, VOID
from pipeline.core.runtime import log

BLACK, WHITE = 0x000000, 0xFFFFFF
PACK = np.array([1 << 16, 1 << 8, 1])  # R, G, B to 0xRRGGBB
_DARK, _LIGHT = 32, 224  # two colours below and above these values count as black and white
MOST_OBJECTS = 100  # with more, the image is a photo, or does not fit into one run


class Reading(NamedTuple):
    """The ids of a mask.

    Attributes:
        ids: uint8 H,W: 0 background, 255 void, or the white part of a black-and-white mask.
        exact: whether none of the ids can come from smoothing.
        top: the value of white if the ids are grey values; None if they are colours.
    """

    ids: NDArray[np.uint8]
    exact: bool
    top: int | None


class KnownColours:
    """The colours of objects in all masks of a command, so that a colour means the same object in all of them."""

    def __init__(self) -> None:
        self._ids: dict[int, int] = {}

    def by_index(self, objects: dict[int, int], path: Path) -> dict[int, int]:
        """Ids of palette indices that are used as ids, unless an earlier mask had the same colour with another id.

        Args:
            objects: index -> colour 0xRRGGBB.
            path: the mask, for messages.

        Returns:
            Index -> id.
        """
        colours = set(objects.values())
        if len(colours) < len(objects) or all(self._ids.get(c, i) == i for i, c in objects.items()):
            if len(colours) == len(objects):
                self._ids = {c: i for i, c in objects.items()} | self._ids
            return {i: i for i in objects}
        return self.by_colour(objects, path)

    def by_colour(self, objects: dict[int, int], path: Path) -> dict[int, int]:
        """Ids by colour: those of earlier masks, then the lowest free ones, in the order of the indices.

        Args:
            objects: index -> colour 0xRRGGBB.
            path: the mask, for messages.

        Returns:
            Index -> id.

        Raises:
            UserError: there are too many objects.
        """
        for colour in objects.values():
            if colour not in self._ids:
                self._ids[colour] = next(i for i in range(1, 1 << 24) if i not in self._ids.values())
        found = {self._ids[colour]: colour for colour in objects.values()}
        if len(found) > MOST_OBJECTS or max(found, default=0) >= VOID:
            raise too_many(path, len(found))
        shown = ", ".join(f"{hex_of(found[i])} object {i}" for i in sorted(found)[:6])
        log(f"{path} has its colours in an unusual order: they are read by colour, {shown}{', ...' * (len(found) > 6)}")
        return {index: self._ids[colour] for index, colour in objects.items()}


def read_indexed(image: Image.Image, path: Path, known: KnownColours) -> Reading:
    """Read an indexed image (mode P). The rules are those of the table in docs/segment.md.

    Args:
        image: the image.
        path: its file, for messages.
        known: colours of masks that were read earlier.

    Raises:
        UserError: there are half-transparent colours, or no colour can be background.
    """
    indices = np.array(image, np.uint8)
    used = np.unique(indices)
    clear = _transparent(image, used, path)
    seen = np.where(clear, BLACK, _palette(image))
    colours = seen[used]
    grey = bool((colours == (colours & 0xFF) * 0x010101).all())
    if _black_and_white(colours):
        return Reading(np.where(seen == colours.max(), VOID, 0).astype(np.uint8)[indices], exact=True, top=None)
    of_davis = davis_ids(seen)
    if not grey and (of_davis[used] >= 0).all() and np.sum(colours[~clear[used]] == BLACK) < 2:
        if (of_davis[used] != used)[~clear[used]].any():
            log(f"{path} has DAVIS' colours at other indices than DAVIS: its colours are read as ids")
        return Reading(of_davis.astype(np.uint8)[indices], exact=True, top=None)
    ground = _ground(seen, used, path)
    if grey and ground == BLACK and seen[0] != BLACK:
        return Reading((seen & 0xFF).astype(np.uint8)[indices], exact=False, top=VOID)
    table = np.zeros(256, np.uint8)
    if ground in (None, seen[0]):  # the indices are ids; black at other indices than 0 means a short palette
        ids = known.by_index({int(i): int(seen[i]) for i in used if i not in (0, VOID) and not clear[i]}, path)
        table[VOID] = VOID
    else:
        ids = known.by_colour({int(i): int(seen[i]) for i in used if seen[i] != ground}, path)
    table[list(ids)] = list(ids.values())
    return Reading(table[indices], exact=False, top=None)


def _black_and_white(colours: NDArray[np.int64]) -> bool:
    """Whether colours 0xRRGGBB are white and black, or look like it (JPEG and colour reduction shift them a little)."""
    if np.sum(colours == WHITE) == 1 and np.isin(colours, (BLACK, WHITE)).all():
        return True
    channels = colours[:, None] // PACK % 256
    return len(colours) == 2 and bool((channels.max(axis=1) < _DARK).any() and (channels.min(axis=1) >= _LIGHT).any())


def _ground(seen: NDArray[np.int64], used: NDArray[np.uint8], path: Path) -> int | None:
    """The background's index; None if it would be index 0, which does not occur in the image."""
    if BLACK in seen[used] or seen[0] == BLACK:
        return BLACK
    if WHITE in seen[used]:
        log(f"{path} has nothing black or transparent: its white part is background")
        return WHITE
    if 0 not in used:
        return None
    colour, shown = hex_of(seen[0]), ", ".join(hex_of(c) for c in seen[used][:4]) + ", ..." * (len(used) > 4)
    raise UserError(
        f"{path} holds {shown}, which all look like objects; expected a background in black or transparent; make it "
        f"black (if it is {colour}: magick {quote(str(path))} -fill '#000000' -opaque '{colour}' mask.png)"
    )


def _palette(image: Image.Image) -> NDArray[np.int64]:
    """Colours 0xRRGGBB of all 256 indices; black after the end of the palette."""
    palette = np.zeros(256, np.int64)
    entries = np.asarray(image.getpalette("RGB"), np.int64).reshape(-1, 3)
    palette[: len(entries)] = entries @ PACK
    return palette


def _transparent(image: Image.Image, used: NDArray[np.uint8], path: Path) -> NDArray[np.bool_]:
    """Which of the 256 indices are transparent."""
    alpha = np.full(256, 255, np.uint8)
    found = image.info.get("transparency", b"")
    if isinstance(found, int):
        alpha[found] = 0
    else:
        alpha[: len(found)] = np.frombuffer(found, np.uint8)
    opaque = is_opaque(alpha[used], path)
    clear = alpha == 0
    clear[used] = ~opaque
    return clear


def is_opaque(alpha: NDArray[np.uint8], path: Path) -> NDArray[np.bool_]:
    """Whether alpha values are 255 (True) or 0 (False).

    Raises:
        UserError: a value is in between.
    """
    if ((alpha > 0) & (alpha < 255)).any():
        raise UserError(
            f"{path} is half-transparent in some pixels; expected each pixel in an object or not; draw it without "
            f"smoothing, or, for one object cut out: magick {quote(str(path))} -alpha extract -threshold 50% mask.png"
        )
    return alpha > 0


def davis_ids(colours: NDArray[np.integer]) -> NDArray[np.int64]:
    """Ids of colours 0xRRGGBB; -1 if DAVIS has no such colour."""
    palette = DAVIS_PALETTE @ PACK
    order = np.argsort(palette)
    found = order[np.searchsorted(palette, colours, sorter=order).clip(max=len(palette) - 1)]
    return np.where(palette[found] == colours, found, -1)


def hex_of(colour: int) -> str:
    """A colour 0xRRGGBB as #rrggbb."""
    return f"#{int(colour):06x}"


def too_many(path: Path, count: int) -> UserError:
    """The error for a mask with more objects than one run supports."""
    return UserError(
        f"{path} holds {count} objects; expected at most {MOST_OBJECTS} in a mask; leave some out, or spread them over "
        "several runs"
    )
