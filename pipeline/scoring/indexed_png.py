"""A fast decoder for the usual kind of indexed PNG masks."""

from __future__ import annotations

import struct
import zlib

import numpy as np
from numpy.typing import NDArray

from pipeline.core.images import decode_mask

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY, _PALETTE = 0, 3


def decode_indexed(data: bytes, name: str) -> NDArray[np.uint8]:
    """Decode an id mask like `core.images.decode_mask`, two to three times as fast for the usual kind.

    Usual means 8 bits per pixel, grey or palette, not interlaced, no row filter: then the decompressed bytes are the
    ids. Anything else, including damaged files, goes to `decode_mask`.

    Args:
        data: the file's bytes.
        name: the file's name, for the error.

    Returns:
        uint8 H,W ids.

    Raises:
        UserError: unreadable, or a colour image.
    """
    ids = _decode_plain(data)
    return decode_mask(data, name) if ids is None else ids


def colour_type(data: bytes) -> int | None:
    """A PNG's colour type (3 is indexed), or None if the bytes are not a PNG."""
    return data[25] if len(data) >= 33 and data[:8] == _SIGNATURE and data[12:16] == b"IHDR" else None


def _decode_plain(data: bytes) -> NDArray[np.uint8] | None:
    """The ids, or None if the file is not of the usual kind."""
    if colour_type(data) is None:
        return None
    width, height, depth, colour, _, _, interlace = struct.unpack(">IIBBBBB", data[16:29])
    if depth != 8 or colour not in (_GREY, _PALETTE) or interlace or not width or not height:
        return None
    compressed = _image_data(data)
    if compressed is None:
        return None
    try:
        raw = zlib.decompress(compressed, bufsize=height * (width + 1))
    except zlib.error:
        return None
    if len(raw) != height * (width + 1):
        return None
    rows = np.frombuffer(raw, np.uint8).reshape(height, width + 1)
    if rows[:, 0].any():  # a row filter: its bytes are differences
        return None
    return np.ascontiguousarray(rows[:, 1:])


def _image_data(data: bytes) -> bytes | None:
    """The joined IDAT chunks; None if a chunk is cut off or fails its checksum."""
    parts = []
    at = 8
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        kind, end = data[at + 4 : at + 8], at + 8 + length
        if end + 4 > len(data):
            return None
        if zlib.crc32(data[at + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            return None
        if kind == b"IDAT":
            parts.append(data[at + 8 : end])
        if kind == b"IEND":
            return b"".join(parts)
        at = end + 4
    return None
