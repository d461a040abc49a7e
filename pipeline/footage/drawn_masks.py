"""Object ids from a mask that a user has drawn, in the forms in which programs save one."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path
from shlex import quote

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.core.errors import UserError
from pipeline.core.images import DAVIS_PALETTE, VOID, object_ids
from pipeline.core.runtime import log

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8"
_MOST_OBJECTS = 100  # more ids than this are a picture or a smoothed mask, not objects
_MOST_COLOURS = 6  # more than this are not worth a command that recolours them
_WHITE = 0xFFFFFF
_PACK = np.array([1 << 16, 1 << 8, 1])  # R, G, B to 0xRRGGBB


def parse_masks(arguments: Sequence[str]) -> dict[int, Path]:
    """The masks of the command line, `MASK.png` (frame 0) or `INDEX:MASK.png`.

    Returns:
        Frame index -> file.

    Raises:
        UserError: a missing file, or two for one frame.
    """
    masks: dict[int, Path] = {}
    for argument in arguments:
        indexed = None if Path(argument).is_file() else re.fullmatch(r"([0-9]+):(.+)", argument)
        index, path = (int(indexed[1]), Path(indexed[2])) if indexed else (0, Path(argument))
        if not path.is_file():
            raise UserError(f"{path} does not exist; expected a mask, MASK.png or INDEX:MASK.png; correct the path")
        if index in masks:
            raise UserError(
                f"two masks are given for frame {index}, {masks[index]} and {path}; expected one; draw all objects of "
                "the frame in it, or give the other as INDEX:MASK.png"
            )
        masks[index] = path
    return masks


def read_masks(arguments: Sequence[str]) -> dict[int, NDArray[np.uint8]]:
    """The masks of the command line; what was found in them is logged.

    Returns:
        Frame index -> uint8 H,W ids.

    Raises:
        UserError: see `parse_masks` and `read_mask`.
    """
    masks = {index: read_mask(path) for index, path in sorted(parse_masks(arguments).items())}
    for index, mask in masks.items():
        ids = object_ids(mask)
        log(f"frame {index}: object{'s' * (len(ids) > 1)} {', '.join(map(str, ids))}")
    return masks


def read_mask(path: Path) -> NDArray[np.uint8]:
    """Read a mask from a PNG.

    Indexed and grey values are ids. Colours are ids where they are exactly those of DAVIS' palette; transparent is
    background. A mask of nothing but black and white has one object, the white part. What was not plain is logged.

    Args:
        path: the file.

    Returns:
        uint8 H,W: 0 background, 1 to 254 objects, at least one of them, 255 void.

    Raises:
        UserError: missing or unreadable, no PNG, other colours, half-transparent or smoothed borders, or no object.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); expected a mask, a PNG; correct the path") from None
    if not data.startswith(_PNG):
        why = "a JPEG, which blurs ids where they meet" if data.startswith(_JPEG) else "no PNG"
        raise UserError(f"{path} is {why}; expected a mask as PNG; save it as one where it was drawn")
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            ids = _ids(image, path)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{path} cannot be decoded ({error}); expected a mask, a PNG; save it again") from None
    return _objects(ids, path)


def _ids(image: Image.Image, path: Path) -> NDArray[np.uint8]:
    if getattr(image, "n_frames", 1) > 1:
        raise UserError(f"{path} is animated; expected a mask of one frame; give others as INDEX:MASK.png")
    if image.mode == "P":
        return _indexed(image, path)
    if image.mode in ("1", "L"):
        return np.array(image, np.uint8)
    if image.mode == "LA":
        grey, alpha = np.moveaxis(np.asarray(image), -1, 0)
        return np.where(_opaque(alpha, path), grey, 0).astype(np.uint8)
    if image.mode.startswith("I"):
        return _wide(np.asarray(image), path)
    return _coloured(np.asarray(image.convert("RGBA")), path)


def _indexed(image: Image.Image, path: Path) -> NDArray[np.uint8]:
    """The indices are the ids, unless a program has put DAVIS' colours in an order of its own."""
    indices = np.array(image, np.uint8)
    palette = np.zeros((256, 3), np.int64)
    entries = np.asarray(image.getpalette("RGB"), np.int64).reshape(-1, 3)
    palette[: len(entries)] = entries
    used = np.unique(indices)
    ids = _davis_ids(palette @ _PACK)
    grey = (palette[used] == palette[used, :1]).all()
    if not grey and (ids[used] >= 0).all() and (ids[used] != used).any():
        log(f"{path} has DAVIS' colours at other indices than DAVIS: its colours are read as ids")
        return ids[indices].astype(np.uint8)
    if palette[0].any():
        log(f"{path} shows index 0 in {_hex(palette[0] @ _PACK)}: it is background all the same")
    return indices


def _wide(values: NDArray[np.integer], path: Path) -> NDArray[np.uint8]:
    """Ids of a grey PNG of 16 bits."""
    if np.isin(values, (0, 65535)).all():
        return np.where(values > 0, VOID, 0).astype(np.uint8)
    if values.max() > VOID:
        raise UserError(
            f"{path} holds 16-bit values up to {values.max()}; expected ids up to 254; number its objects from 1 on"
        )
    return values.astype(np.uint8)


def _coloured(rgba: NDArray[np.uint8], path: Path) -> NDArray[np.uint8]:
    packed = np.where(_opaque(rgba[..., 3], path), rgba[..., :3] @ _PACK, 0)
    colours, places = np.unique(packed, return_inverse=True)
    ids = _davis_ids(colours)
    if set(colours.tolist()) <= {0, _WHITE}:
        ids = np.where(colours == _WHITE, VOID, 0)
    elif (ids < 0).any():
        raise UserError(_recolour(path, colours.tolist()))
    else:
        log(f"{path} is a colour image in DAVIS' colours: they are read as ids")
    return ids[places].reshape(packed.shape).astype(np.uint8)


def _opaque(alpha: NDArray[np.uint8], path: Path) -> NDArray[np.bool_]:
    if ((alpha > 0) & (alpha < 255)).any():
        raise UserError(
            f"{path} is half-transparent in places; expected pixels that are of an object or not; draw it without "
            f"smoothing, or, for one object cut out: magick {quote(str(path))} -alpha extract -threshold 50% mask.png"
        )
    return alpha > 0


def _davis_ids(colours: NDArray[np.integer]) -> NDArray[np.int64]:
    """Ids of colours 0xRRGGBB, -1 where DAVIS has no such colour."""
    palette = DAVIS_PALETTE @ _PACK
    order = np.argsort(palette)
    found = order[np.searchsorted(palette, colours, sorter=order).clip(max=len(palette) - 1)]
    return np.where(palette[found] == colours, found, -1)


def _recolour(path: Path, colours: list[int]) -> str:
    """The line that refuses a colour image, with the command that mends it where one can."""
    free = [int(c) for c in DAVIS_PALETTE[1:VOID] @ _PACK if c not in colours]
    unknown = [c for c, known in zip(colours, _davis_ids(np.array(colours))) if known < 0]
    if len(unknown) > _MOST_COLOURS:
        found, mend = f"{len(colours)} colours, as a picture or a smoothed drawing does", "draw it without smoothing"
    else:
        found = ", ".join(map(_hex, unknown))
        if 0 not in colours and _WHITE in colours:  # paper
            free.insert(unknown.index(_WHITE), 0)
        steps = " ".join(f"-fill '{_hex(new)}' -opaque '{_hex(old)}'" for old, new in zip(unknown, free))
        mend = f"recolour it: magick {quote(str(path))} {steps} mask.png"
    return (
        f"{path} is a colour image and holds {found}; expected an indexed or grey PNG of ids, exactly DAVIS' colours "
        f"(#800000 object 1, #008000 object 2, #808000 object 3), or black and white; {mend}"
    )


def _objects(mask: NDArray[np.uint8], path: Path) -> NDArray[np.uint8]:
    ids = object_ids(mask)
    if not ids and (mask == VOID).any():
        log(f"{path} is black and white: its white part is taken as object 1")
        return np.asarray(mask == VOID, np.uint8)
    if not ids:
        raise UserError(f"{path} holds no object; expected ids from 1 where objects are; draw them")
    square = np.ones((3, 3), np.uint8)
    areas = set(object_ids(np.where(cv2.erode(mask, square) == cv2.dilate(mask, square), mask, 0).astype(np.uint8)))
    lines = len(set(ids) - areas)  # ids that nowhere fill three pixels square: the steps of a soft border
    if len(ids) > _MOST_OBJECTS or (lines > 2 and 2 * lines > len(ids)):
        raise UserError(
            f"{path} holds {len(ids)} different values ({ids[0]} to {ids[-1]}), as a smoothed mask does; expected ids, "
            f"at most {_MOST_OBJECTS}, each over its whole object; draw it without smoothing, or, for one object: "
            f"magick {quote(str(path))} -threshold 50% mask.png"
        )
    return mask


def _hex(colour: int) -> str:
    return f"#{int(colour):06x}"
