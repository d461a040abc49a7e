"""Decode and encode frames, indexed masks and 16-bit depth maps."""

from __future__ import annotations

import io

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from pipeline.core.errors import UserError

VOID = 255

# What Pillow raises for damaged files and for impossible sizes.
_UNREADABLE = (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError)

_TURNS = {  # EXIF orientation to what makes the image upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _davis_palette() -> NDArray[np.uint8]:
    """The colour map of VOC and DAVIS masks: the bits of the id, three at a time, become the top bits of R, G, B."""
    ids = np.arange(256)
    palette = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            palette[:, channel] |= (((ids >> (3 * bit + channel)) & 1) << (7 - bit)).astype(np.uint8)
    return palette


DAVIS_PALETTE: NDArray[np.uint8] = _davis_palette()


def decode_rgb(data: bytes, name: str, upright: bool = True) -> NDArray[np.uint8]:
    """Decode a JPEG or PNG frame.

    Grey images are repeated over the channels, CMYK is converted, alpha is dropped, of 16 bits the upper 8 are used.

    Args:
        data: the file's bytes.
        name: the file's name, for the error.
        upright: whether an EXIF orientation is applied; otherwise the pixels are as they are stored.

    Returns:
        uint8 H,W,3, RGB.

    Raises:
        UserError: the bytes are not a readable image, or its values have 32 bits, whose range is unknown.
    """
    if data[:2] == b"\xff\xd8" and b"Adobe" not in data[:4096]:  # plain JPEG: OpenCV is fastest and applies EXIF
        how = cv2.IMREAD_COLOR if upright else cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
        image = cv2.imdecode(np.frombuffer(data, np.uint8), how)
        if image is not None:
            return cv2.cvtColor(image, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)
    try:
        with Image.open(io.BytesIO(data)) as opened:
            shown = _turned_upright(opened) if upright else opened
            if shown.mode in ("I", "F"):
                raise ValueError("32 bits per pixel")
            if shown.mode.startswith("I;16"):  # Pillow would clip these values at 255
                return np.repeat((np.asarray(shown) >> 8).astype(np.uint8)[..., None], 3, axis=2)
            return np.asarray(shown.convert("RGB"), dtype=np.uint8)
    except _UNREADABLE as error:
        raise UserError(
            f"{name} cannot be decoded ({_fault(error)}); expected a JPEG or PNG image; replace the file"
        ) from None


def _turned_upright(image: Image.Image) -> Image.Image:
    """The image turned as its EXIF orientation says; as it is stored if the EXIF data is damaged."""
    image.load()
    try:
        turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged EXIF raises nearly anything, but the pixels can still be good
        turn = None
    return image if turn is None else image.transpose(turn)


def turns_of(data: bytes) -> int:
    """The EXIF orientation of an image, 1 to 8; 1 (upright) if it has none, or damaged EXIF data."""
    try:
        with Image.open(io.BytesIO(data)) as opened:
            found = opened.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged EXIF raises nearly anything, but the pixels can still be good
        return 1
    return int(found) if found in _TURNS else 1


def image_size(data: bytes, name: str) -> tuple[int, int]:
    """Height and width of an image's stored pixels, from its header.

    Args:
        data: the file's bytes.
        name: the file's name, for the error.

    Raises:
        UserError: not an image.
    """
    try:
        with Image.open(io.BytesIO(data)) as opened:
            return opened.height, opened.width
    except _UNREADABLE as error:
        raise UserError(
            f"{name} cannot be decoded ({_fault(error)}); expected a JPEG or PNG image; replace the file"
        ) from None


def _fault(error: Exception) -> str:
    # Pillow's own message names an object in memory
    return "unknown image format" if isinstance(error, UnidentifiedImageError) else str(error)


def encode_jpeg(rgb: NDArray[np.uint8], quality: int = 95) -> bytes:
    """Encode uint8 H,W,3 RGB as JPEG."""
    done, data = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise UserError(f"an image of shape {rgb.shape} cannot be encoded as JPEG; expected H,W,3")
    return data.tobytes()


def encode_png(rgb: NDArray[np.uint8]) -> bytes:
    """Encode uint8 H,W,3 RGB (or H,W grey) as PNG."""
    done, data = cv2.imencode(".png", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR) if rgb.ndim == 3 else rgb)
    if not done:
        raise UserError(f"an image of shape {rgb.shape} cannot be encoded as PNG; expected H,W,3 or H,W")
    return data.tobytes()


def decode_mask(data: bytes, name: str) -> NDArray[np.uint8]:
    """Decode an id mask: a palette (mode P), grey (L) or binary (1) PNG.

    Returns:
        uint8 H,W of object ids, 0 = background, 255 = void. A binary PNG gives ids 0 and 1.

    Raises:
        UserError: the file is unreadable, a JPEG (which changes ids), or a colour image, whose ids are a guess.
    """
    try:
        with Image.open(io.BytesIO(data)) as opened:
            if opened.format == "JPEG":
                raise UserError(
                    f"{name} is a JPEG; expected a PNG, because the compression of a JPEG changes the ids; export the "
                    "mask as PNG"
                )
            if opened.mode not in ("P", "L", "1"):
                raise UserError(
                    f"{name} is a mask of mode {opened.mode}; expected an indexed (P) or grey (L) PNG whose values are "
                    "object ids; convert it"
                )
            return np.array(opened, dtype=np.uint8)
    except _UNREADABLE as error:
        raise UserError(
            f"{name} cannot be decoded ({_fault(error)}); expected an indexed PNG mask; replace the file"
        ) from None


def decode_silhouette(data: bytes, name: str) -> NDArray[np.bool_]:
    """Decode a mask of one object: white on black, 1 on 0, or a palette of two colours.

    Args:
        data: the file's bytes.
        name: the file's name, for the error.

    Returns:
        bool H,W: where the file's level is at least 128; where it is not 0, if no level is above 1 or the palette has
        colours (of which the index counts, not the brightness).

    Raises:
        UserError: as `decode_mask`.
    """
    levels = decode_mask(data, name)
    if data[25:26] == b"\x03":  # a PNG with a palette
        with Image.open(io.BytesIO(data)) as opened:
            colours = np.array(opened.getpalette("RGB"), np.uint8).reshape(-1, 3)
        used = np.flatnonzero(np.bincount(levels.ravel(), minlength=256))
        if used.max() >= len(colours) or np.ptp(colours[used].astype(int), axis=1).any():
            return levels > 0
        levels = colours[levels, 0]
    return levels > 0 if levels.max() <= 1 else levels >= 128


def encode_mask(mask: NDArray[np.uint8]) -> bytes:
    """Encode uint8 H,W ids as an indexed PNG (mode P) with the DAVIS palette."""
    image = Image.fromarray(np.ascontiguousarray(mask, dtype=np.uint8), mode="P")
    image.putpalette(DAVIS_PALETTE.tobytes())
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=3)
    return buffer.getvalue()


def decode_depth(data: bytes, name: str) -> NDArray[np.float32]:
    """Decode a 16-bit grey PNG to float32 H,W in [0, 1].

    Raises:
        UserError: the file is unreadable or not 16-bit grey.
    """
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None or image.dtype != np.uint16 or image.ndim != 2:
        found = "unreadable bytes" if image is None else f"{image.dtype} of shape {image.shape}"
        raise UserError(f"{name} holds {found}; expected a 16-bit grey PNG of depth; rerun the depth stage")
    return np.asarray(image, dtype=np.float32) / np.float32(65535)


def encode_depth(depth: NDArray[np.float32], bits: int = 16) -> bytes:
    """Encode depth as a 16-bit grey PNG.

    Args:
        depth: float32 H,W in [0, 1].
        bits: of precision, 8 to 16. With fewer than 16, values are multiples of 2^(16 - bits) of 65535 (and 1 stays
            exact), so the low bits are zeros, which compress well.
    """
    step = 1 << (16 - bits)
    values = np.minimum(np.rint(np.clip(depth, 0, 1) * (65535 / step)) * step, 65535).astype(np.uint16)
    done, data = cv2.imencode(".png", values, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    if not done:
        raise UserError(f"a depth map of shape {depth.shape} cannot be encoded; expected H,W")
    return data.tobytes()


def overlay(rgb: NDArray[np.uint8], mask: NDArray[np.uint8], alpha: float = 0.5) -> NDArray[np.uint8]:
    """Blend the palette's colours over the objects of a frame; object borders are drawn in full colour.

    Args:
        rgb: uint8 H,W,3.
        mask: uint8 H,W ids.
        alpha: opacity of the colour in [0, 1].

    Returns:
        uint8 H,W,3.
    """
    levels, square = np.arange(256)[:, None], np.ones((3, 3), np.uint8)
    blended = np.array(rgb)
    for i in np.flatnonzero(cv2.calcHist([mask], [0], None, [256], [0, 256])[1:VOID]) + 1:
        inside = (mask == i).astype(np.uint8)
        _, top, _, height = cv2.boundingRect(inside)
        rows = slice(top, top + height)
        table = ((1 - alpha) * levels + alpha * DAVIS_PALETTE[i]).astype(np.uint8)[None]
        cv2.copyTo(cv2.LUT(np.ascontiguousarray(blended[rows]), table), inside[rows], blended[rows])
    border = (mask > 0) & (mask < VOID) & (cv2.erode(mask, square) != cv2.dilate(mask, square))
    blended[border] = DAVIS_PALETTE[mask[border]]
    return blended


def object_ids(mask: NDArray[np.uint8]) -> list[int]:
    """Ids of the objects in a mask (uint8 H,W), ascending, without background (0) and void (255)."""
    counts = cv2.calcHist([mask], [0], None, [256], [0, 256])  # faster than np.bincount or np.unique
    return [int(i) for i in np.flatnonzero(counts[:VOID]) if i > 0]
