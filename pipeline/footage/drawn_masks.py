"""Read object ids from a mask that a user has drawn, in the formats in which programs save one."""

from __future__ import annotations

import io
from pathlib import Path
from shlex import quote

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.core.errors import UserError
from pipeline.core.images import DAVIS_PALETTE, VOID, object_ids
from pipeline.core.runtime import log
from pipeline.footage.palettes import (
    MOST_OBJECTS,
    PACK,
    WHITE,
    KnownColours,
    Reading,
    davis_ids,
    hex_of,
    is_opaque,
    read_indexed,
    too_many,
)

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8"
_MOST_COLOURS = 6  # with more, no command that recolours them is suggested
_BETWEEN = 0.75  # an id comes from smoothing if at least this share of its pixels touches another id


def read_mask(path: Path, known: KnownColours | None = None) -> NDArray[np.uint8]:
    """Read a mask from a PNG. The rules are those of the table in docs/segment.md.

    Grey values are ids, and so are palette indices if index 0 looks like background. Colours are ids if they are
    exactly those of DAVIS' palette; black and transparent are background. A mask that is only black and white has one
    object, the white part. Unusual cases are logged.

    Args:
        path: the file.
        known: colours of other masks of the same video, which mean the same objects here.

    Returns:
        uint8 H,W: 0 background, 1 to 254 objects (possibly none), 255 void.

    Raises:
        UserError: the file is missing, unreadable or not a PNG, or has other colours, half-transparent or smoothed
            borders, or more objects than a run supports.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); expected a mask, a PNG; correct the path") from None
    if not data.startswith(_PNG):
        why = "a JPEG, which blurs ids where they meet" if data.startswith(_JPEG) else "not a PNG"
        raise UserError(f"{path} is {why}; expected a mask as PNG; save it as one where it was drawn")
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            reading = _read(image, _bits(data), path, known or KnownColours())
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{path} cannot be decoded ({error}); expected a mask, a PNG; save it again") from None
    ids = reading.ids
    if not object_ids(ids) and (ids == VOID).any():
        log(f"{path} is black and white: its white part is taken as object 1")
        return np.asarray(ids == VOID, np.uint8)
    _check_objects(reading, path)
    return ids


def _bits(data: bytes) -> int:
    """Bits per value, from the header of a PNG."""
    return data[24] if len(data) > 24 else 8


def _read(image: Image.Image, bits: int, path: Path, known: KnownColours) -> Reading:
    if getattr(image, "n_frames", 1) > 1:
        raise UserError(f"{path} is animated; expected a mask of one frame; give others as INDEX:MASK.png")
    if image.mode == "P":
        return read_indexed(image, path, known)
    if image.mode == "LA":
        grey, alpha = np.moveaxis(np.asarray(image), -1, 0)
        return _grey(np.where(is_opaque(alpha, path), grey, 0), VOID, path)
    if image.mode in ("1", "L") or image.mode.startswith("I"):
        top = (1 << bits) - 1
        values = np.asarray(image).astype(np.int64)
        if bits in (2, 4):  # Pillow stretches these to 8 bits
            values = values * top // 255
        values[values == image.info.get("transparency", -1)] = 0
        if bits == 1:
            return Reading(values.astype(np.uint8), exact=True, top=top)
        return _grey(values, top, path)
    return _coloured(np.asarray(image.convert("RGBA")), path)


def _grey(values: NDArray[np.integer], top: int, path: Path) -> Reading:
    """Ids from grey values, or from black and white if there are no others."""
    if np.isin(values, (0, top)).all():
        return Reading(np.where(values == top, VOID, 0).astype(np.uint8), exact=True, top=top)
    if values.max() > VOID:
        raise UserError(
            f"{path} holds 16-bit values up to {values.max()}; expected ids up to 254; number its objects from 1 on"
        )
    return Reading(values.astype(np.uint8), exact=False, top=top)


def _coloured(rgba: NDArray[np.uint8], path: Path) -> Reading:
    packed = np.where(is_opaque(rgba[..., 3], path), rgba[..., :3] @ PACK, 0)
    colours, places = np.unique(packed, return_inverse=True)
    ids = davis_ids(colours)
    if set(colours.tolist()) <= {0, WHITE}:
        ids = np.where(colours == WHITE, VOID, 0)
    elif (ids < 0).any():
        raise UserError(_recolour(path, colours.tolist()))
    else:
        log(f"{path} is a colour image in DAVIS' colours: they are read as ids")
    return Reading(ids[places].reshape(packed.shape).astype(np.uint8), exact=True, top=None)


def _recolour(path: Path, colours: list[int]) -> str:
    """The error line for a colour image, with a command that recolours it if there are few colours."""
    free = [int(c) for c in DAVIS_PALETTE[1:VOID] @ PACK if c not in colours]
    unknown = [c for c, known in zip(colours, davis_ids(np.array(colours))) if known < 0]
    if len(unknown) > _MOST_COLOURS:
        found, way_out = f"{len(colours)} colours, as a picture or a smoothed drawing does", "draw it without smoothing"
    else:
        found = ", ".join(map(hex_of, unknown))
        if 0 not in colours and WHITE in colours:  # paper
            free.insert(unknown.index(WHITE), 0)
        steps = " ".join(f"-fill '{hex_of(new)}' -opaque '{hex_of(old)}'" for old, new in zip(unknown, free))
        way_out = f"recolour it: magick {quote(str(path))} {steps} mask.png"
    return (
        f"{path} is a colour image and holds {found}; expected an indexed or grey PNG of ids, exactly DAVIS' colours "
        f"(#800000 object 1, #008000 object 2, #808000 object 3), or black and white; {way_out}"
    )


def _check_objects(reading: Reading, path: Path) -> None:
    """Refuse a smoothed mask, whose steps would each be an object, and more objects than a run supports."""
    ids = object_ids(reading.ids)
    steps = [] if reading.exact else _steps(reading.ids)
    if len(steps) > 2 and 2 * len(steps) > len(ids):
        way_out = "draw it without smoothing"
        if reading.top is not None:
            percent = 100 * (ids[-1] / 2) / reading.top  # half of the object's value, so that something remains
            way_out += f", or, for one object: magick {quote(str(path))} -threshold {percent:.2g}% mask.png"
        raise UserError(
            f"{path} holds {len(ids)} different values ({ids[0]} to {ids[-1]}), most of them only in thin lines beside "
            f"others, as a smoothed mask does; expected ids, each over its whole object; {way_out} (where objects "
            "really are that thin and touch: save the mask in DAVIS' colours)"
        )
    if len(ids) > MOST_OBJECTS:
        raise too_many(path, len(ids))


def _steps(mask: NDArray[np.uint8]) -> list[int]:
    """Ids that smoothing may have made: no 3x3 pixels anywhere, and nearly always next to another id."""
    square = np.ones((3, 3), np.uint8)
    eroded, dilated = cv2.erode(mask, square), cv2.dilate(mask, square)
    whole = set(object_ids(np.where(eroded == dilated, mask, 0).astype(np.uint8)))
    # the lowest id around a pixel that is not background
    lowest = cv2.erode(np.where(mask == 0, VOID, mask).astype(np.uint8), square)
    beside = (dilated != mask) | (lowest != mask)
    pixels, touching = (np.bincount(values, minlength=256) for values in (mask.ravel(), mask[beside]))
    return [i for i in object_ids(mask) if i not in whole and touching[i] > _BETWEEN * pixels[i]]
