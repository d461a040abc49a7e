"""Files that are already on this machine: found, and checked for the expected layout and checksum."""

from __future__ import annotations

import os
import re
import urllib.parse
import urllib.request
import zipfile
from collections.abc import Sequence
from pathlib import Path

from pipeline.core.errors import UserError
from pipeline.core.plain_names import open_plain
from pipeline.core.runtime import progress
from pipeline.sources.catalog import HDF5_SUFFIXES, Published
from pipeline.sources.checksums import BLOCK, Digest, blocks

FULL_READ_BYTES = 256 << 20  # archives up to this length are read completely, larger ones at both ends


def is_remote(value: str) -> bool:
    """Whether a source is a URL of another machine: http(s), or a kind that fsspec opens (file: counts as a path)."""
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", value)
    return scheme is not None and scheme[1].lower() != "file"


def resolve(value: str, key: str, base: Path, hint: str) -> Path:
    """Find a path or file: URL on this machine.

    Args:
        value: an absolute path, or a relative one, which is searched below `base` and then below `$DVC_ROOT` (an
            experiment in a temporary folder has another working directory than the checkout it came from).
        key: the parameter, for the message.
        base: the folder for relative paths.
        hint: what to do instead, for the message.

    Raises:
        UserError: there is no such file or folder.
    """
    if value.lower().startswith("file:"):
        address = urllib.parse.urlparse(value)
        if address.netloc not in ("", "localhost"):
            raise UserError(f"{key}: {value} names the host {address.netloc!r}; expected file:///path; correct it")
        value = urllib.request.url2pathname(address.path)
    tried = [folder / Path(value).expanduser() for folder in (base, Path(os.environ.get("DVC_ROOT", base)))]
    for path in tried:
        if value and path.exists():
            return path
    places = " or ".join(dict.fromkeys(os.path.abspath(path) for path in tried))  # noqa: PTH100 - keeps links readable
    raise UserError(f"{key}: {value!r} not found (looked for {places}); {hint}")


def check_archive(path: Path, expected: Sequence[Published]) -> tuple[Published, str]:
    """Open an archive, compare its members with the expected layouts and read some of it.

    A small archive is read completely; of a large one only the first and the last member, which together with the list
    of members shows the damage of a broken transfer. HDF5 files in a large archive are not read, because one of them
    may be larger than the memory.

    Returns:
        Which of the expected archives it is, and the suffix of its real format: `.zip` or `.tar`.

    Raises:
        UserError: not an archive, damaged, or of another layout.
    """
    archive = open_plain(path)
    try:
        names = archive.names()
        published = next((p for p in expected if p.missing(names) is None), None)
        if published is None:
            found = f"{len(names)} files such as {names[0]}" if names else "no files"
            absent = " and no ".join(str(p.missing(names)) for p in expected)
            wanted = " or ".join(p.name for p in expected)
            raise UserError(f"{path} contains {found} but no {absent}; expected a {wanted}; correct the source")
        whole = path.stat().st_size <= FULL_READ_BYTES
        for name in names if whole else (names[0], names[-1]):
            if whole or not name.endswith(HDF5_SUFFIXES):
                archive.read(name)
    finally:
        archive.close()
    return published, ".zip" if zipfile.is_zipfile(path) else ".tar"


def check_folder(folder: Path, expected: Sequence[Published]) -> Published:
    """Compare an extracted data set with the expected layouts.

    Args:
        folder: the extracted archive, a folder inside it (`DAVIS`), or one above it; or a single HDF5 file, for data
            sets that may consist of these.
        expected: the archives of which it may be one.

    Returns:
        Which of them it is.

    Raises:
        UserError: it has none of these layouts.
    """
    names = open_plain(folder).names()
    absent = [published.missing(names) for published in expected]
    if None in absent:
        return expected[absent.index(None)]
    wanted = " or ".join(p.name for p in expected)
    raise UserError(
        f"{folder} contains no {' and no '.join(map(str, absent))}; expected the extracted {wanted}; correct the path"
    )


def hash_checked(source: Path, checksum: str, origin: str) -> str:
    """Read a file and compare it with the published checksum.

    Args:
        source: an existing file.
        checksum: the expected one.
        origin: where the checksum comes from, for the message.

    Returns:
        Hexadecimal sha256 of the file.

    Raises:
        UserError: the checksum differs from the expected one.
    """
    hashed = Digest(checksum)
    for block in progress(blocks(source), -(-source.stat().st_size // BLOCK), f"checksum of {source.name} (MiB)"):
        hashed.update(block)
    hashed.check(str(source), origin)
    return hashed.sha256
