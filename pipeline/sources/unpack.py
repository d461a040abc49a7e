"""Compressed tars: a data set is read at random places, so they are decompressed once, into the store."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, cast

from pipeline.core.errors import UserError
from pipeline.core.members import refuse_bomb
from pipeline.core.runtime import progress
from pipeline.sources.checksums import BLOCK, Digest

_MAGIC: dict[bytes, Callable[[Path, str], Any]] = {b"\x1f\x8b": gzip.open, b"BZ": bz2.open, b"\xfd7": lzma.open}


def is_compressed(path: Path) -> bool:
    """Whether a file is compressed as a whole, by gzip, bzip2 or xz; seen by its first bytes."""
    with open(path, "rb") as file:
        return file.read(2) in _MAGIC


def decompress(source: Path, target: Path, name: str) -> str:
    """Decompress a file.

    Args:
        source: the compressed file.
        target: where the content is written.
        name: of the file, for messages.

    Returns:
        Hexadecimal sha256 of the content.

    Raises:
        UserError: damaged, cut off, or a file that unpacks to more than a hundred times its length.
    """
    with open(source, "rb") as file:
        opener = _MAGIC[file.read(2)]
    hashed, packed, length = Digest(None), source.stat().st_size, 0
    try:
        with cast(IO[bytes], opener(source, "rb")) as content, open(target, "wb") as out:
            for block in progress(iter(lambda: content.read(BLOCK), b""), None, f"decompressing {name} (MiB)"):
                length += len(block)
                refuse_bomb(source, name, packed, length)
                hashed.update(block)
                out.write(block)
    except (EOFError, gzip.BadGzipFile, lzma.LZMAError, zlib.error, ValueError) as error:
        raise UserError(
            f"{name} cannot be decompressed ({error}); expected a complete .tar.gz; download it again"
        ) from None
    except OSError as error:
        if error.errno is not None:
            raise
        raise UserError(
            f"{name} cannot be decompressed ({error}); expected a complete .tar.gz; download it again"
        ) from None
    return hashed.sha256
