"""Check whether a video file has all the bytes that its structure announces (a broken download does not)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

_SEGMENT, _CLUSTER = b"\x18\x53\x80\x67", b"\x1f\x43\xb6\x75"
_BOXES = (b"ftyp", b"moov", b"mdat", b"moof", b"free", b"skip", b"wide", b"styp", b"sidx", b"pnot")
_PACK, _PROGRAM_END = b"\x00\x00\x01\xba", b"\x00\x00\x01\xb9"
_ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_ASF_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_TS_SYNC = 0x47
_TS_PACKETS = ((188, 0), (192, 4), (204, 0))  # bytes of a packet, and bytes before its sync byte


def missing_end(path: Path) -> str | None:
    """What is missing at the end of a video file; None if nothing is, or if its format does not show it.

    MP4 and MOV, Matroska and WebM, AVI, FLV, MPEG-TS and PS, WMV, Ogg and GIF show it, unless they end exactly between
    two parts of a stream without a stored length.

    Args:
        path: the file.

    Raises:
        OSError: it cannot be read.
    """
    size = path.stat().st_size
    with open(path, "rb") as file:
        measure = _measure_of(file.read(1024))
        needed = size if measure is None else measure(file, size)
    return f"{size} bytes of {'at least ' * (measure is not _boxes_end)}{needed} are there" if needed > size else None


def _measure_of(head: bytes) -> Callable[[BinaryIO, int], int] | None:
    """The function that computes how many bytes a file in this format must have."""
    if head[4:8] in _BOXES:
        return _boxes_end
    if head[:4] == b"\x1aE\xdf\xa3":
        return _elements_end
    if head[:4] == b"RIFF":
        return _chunks_end
    if head[:3] == b"FLV":
        return _tags_end
    if head[:4] == b"OggS":
        return _last_page_end
    if head[:16] == _ASF:
        return _asf_end
    if head[:4] == _PACK:
        return _last_pack_end
    if head[:4] == b"GIF8":
        return _gif_end
    for length, start in _TS_PACKETS:
        places = range(start, len(head), length)
        if len(places) > 3 and all(head[at] == _TS_SYNC for at in places):
            return lambda _, size: -(-size // length) * length
    return None


def _read(file: BinaryIO, at: int, count: int) -> bytes:
    file.seek(at)
    return file.read(count)


def _boxes_end(file: BinaryIO, size: int) -> int:
    """MP4 and MOV: a sequence of boxes with length and name."""
    at = 0
    while at < size:
        head = _read(file, at, 16)
        if len(head) < 8:
            return at + 8 if head[0] == 0 and (any(head) or len(head) < 4) else size  # otherwise padding or a line end
        length = int.from_bytes(head[:4], "big")
        length = int.from_bytes(head[8:16], "big") if length == 1 else length
        if length < 8 or not head[4:8].isascii() or not head[4:8].strip(b"\0"):
            return size  # up to the end, or something after the last box
        at += length
    return at


def _elements_end(file: BinaryIO, size: int) -> int:
    """Matroska and WebM: elements with name and length; a live recording has a part without length."""
    at = 0
    while at < size:
        head = _read(file, at, 12)
        width = 9 - head[0].bit_length()
        if width > 4 or len(head) <= width:
            return size
        digits = 9 - head[width].bit_length()
        if digits > 8:
            return size
        stored = int.from_bytes(head[width : width + digits], "big") & ((1 << 7 * digits) - 1)
        unknown = stored == (1 << 7 * digits) - 1
        if unknown and head[:width] not in (_SEGMENT, _CLUSTER):
            return size
        at += width + digits + (0 if unknown else stored)
    return at


def _chunks_end(file: BinaryIO, size: int) -> int:
    """AVI: one RIFF chunk, or several for a large file."""
    at = 0
    while at < size:
        head = _read(file, at, 8)
        length = int.from_bytes(head[4:8], "little")
        if head[:4] != b"RIFF" or length in (0, 0xFFFFFFFF):
            return size
        at += 8 + length
    return at


def _tags_end(file: BinaryIO, size: int) -> int:
    """FLV: tags with their length before them, and after them (missing after the last one in some files)."""
    at = int.from_bytes(_read(file, 5, 4), "big") + 4
    while at < size:
        head = _read(file, at, 11)
        end = at + 11 + int.from_bytes(head[1:4], "big")
        if len(head) < 11 or end > size:
            return max(end, at + 11)
        at = end + 4
    return size if at == size + 4 else at


def _last_page_end(file: BinaryIO, size: int) -> int:
    """Ogg: the last page, which lists the lengths of its parts."""
    start = max(0, size - (1 << 16) - 512)  # a page is shorter
    tail = _read(file, start, size - start)
    at = tail.rfind(b"OggS")
    if at < 0 or at + 27 > len(tail):
        return size + (at >= 0)
    parts = tail[at + 27 : at + 27 + tail[at + 26]]
    return start + at + 27 + tail[at + 26] + sum(parts)


def _last_pack_end(file: BinaryIO, size: int) -> int:
    """MPEG program streams: the parts after the last pack header, each with its length."""
    start = max(0, size - (1 << 17))
    tail = _read(file, start, size - start)
    at = tail.rfind(_PACK)
    if at < 0 or len(tail) < at + 14:
        return size + (at >= 0)
    at += 14 + (tail[at + 13] & 7) if tail[at + 4] >> 6 == 1 else 12  # MPEG-2 or MPEG-1
    while at < len(tail) and tail[at : at + 4] != _PROGRAM_END:
        if tail[at : at + 3] != _PACK[:3] or at + 6 > len(tail):
            return size + (_PACK.startswith(tail[at : at + 3]) and len(tail) - at < 6)
        at += 6 + int.from_bytes(tail[at + 4 : at + 6], "big")
    return start + max(at, len(tail))


def _asf_end(file: BinaryIO, size: int) -> int:
    """WMV: the length in the header, except for live recordings."""
    head = _read(file, 0, 1 << 16)
    at = head.find(_ASF_PROPERTIES)
    live = at >= 0 and head[at + 88 : at + 89] == b"\x01"
    return size if at < 0 or live else int.from_bytes(head[at + 40 : at + 48], "little")


def _gif_end(file: BinaryIO, size: int) -> int:
    """GIF: a semicolon at the end, possibly followed by zeros."""
    return size + (not _read(file, max(0, size - 1024), 1024).rstrip(b"\0").endswith(b";"))
