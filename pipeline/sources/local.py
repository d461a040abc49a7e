"""Files that are already here: found, checked against the layout expected of them, copied or packed."""

from __future__ import annotations

import mmap
import os
import re
import shutil
import urllib.parse
import urllib.request
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

from pipeline.core.archives import ZipWriter, open_archive
from pipeline.core.errors import UserError
from pipeline.core.runtime import progress
from pipeline.sources.catalog import HDF5_SUFFIXES, Published
from pipeline.sources.checksums import BLOCK, Digest, blocks
from pipeline.sources.fetch import require_space

FULL_READ_BYTES = 256 << 20  # archives up to this length are read whole, larger ones at both ends


def is_remote(value: str) -> bool:
    """Whether a source is an http(s) address.

    Raises:
        UserError: it is an address of another kind (file: is a path).
    """
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", value)
    if scheme is None or scheme[1].lower() == "file":
        return False
    if scheme[1].lower() in ("http", "https"):
        return True
    raise UserError(f"{value} is an address of kind {scheme[1]}; expected http, https or file, or a path; correct it")


def resolve(value: str, key: str, base: Path, hint: str) -> Path:
    """Find a path or file: URL on this machine.

    Args:
        value: an absolute path, or a relative one, looked up from `base` and then from `$DVC_ROOT` (an experiment
            in a temporary folder has another working directory than the checkout it came from).
        key: the parameter, for the message.
        base: folder to look from.
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
    """Open an archive, hold its members against the expected layouts and read some of it.

    A small archive is read whole, of a large one the first and the last member: its list of members and its length
    have then been seen, which is what a broken transfer damages. Not read are HDF5 files in a large archive, since one
    of them may be larger than the memory.

    Returns:
        Which of the expected ones it is, and the suffix that says what it really is: `.zip` or `.tar`.

    Raises:
        UserError: not an archive, damaged, or of another layout.
    """
    archive = open_archive(path)
    try:
        names = archive.names()
        published = next((p for p in expected if p.missing(names) is None), None)
        if published is None:
            found = f"{len(names)} files such as {names[0]}" if names else "no files"
            absent = " and no ".join(str(p.missing(names)) for p in expected)
            wanted = " or ".join(p.name for p in expected)
            raise UserError(f"{path} holds {found} but no {absent}; expected a {wanted}; correct the source")
        whole = path.stat().st_size <= FULL_READ_BYTES
        for name in names if whole else (names[0], names[-1]):
            if whole or not name.endswith(HDF5_SUFFIXES):
                archive.read(name)
    finally:
        archive.close()
    return published, ".zip" if zipfile.is_zipfile(path) else ".tar"


def copy_checked(source: Path, target: Path, checksum: str | None, origin: str) -> str:
    """Copy a file, hashing it on the way.

    A copy and no hard link: DVC makes what it caches read-only and that must not reach the user's own file.

    Args:
        source: an existing file.
        target: where the copy is written.
        checksum: expected checksum, if any.
        origin: where that comes from, for the message.

    Returns:
        Hexadecimal sha256 of the file.

    Raises:
        UserError: another checksum than expected, or too little space.
    """
    n_bytes = source.stat().st_size
    require_space(target.parent, n_bytes, f"a copy of {source}")
    hashed = Digest(checksum)
    with open(target, "wb") as file:
        for block in progress(blocks(source), -(-n_bytes // BLOCK), f"copy of {source.name} (MiB)"):
            hashed.update(block)
            file.write(block)
    hashed.check(str(source), origin)
    return hashed.sha256


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file of our own a second name; across file systems copy it."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def pack_folder(folder: Path, target: Path, expected: Sequence[Published]) -> str:
    """Pack an extracted data set into an uncompressed zip in the published layout; equal files give equal bytes.

    Args:
        folder: the extracted archive, or a folder inside it (`DAVIS`, or the folder that holds it); or a single HDF5
            file, where a data set may consist of such.
        target: folder for the zip.
        expected: the archives one of which it stands for; only what lies under that one's `root` is packed.

    Returns:
        Name of the zip.

    Raises:
        UserError: the folder is not of such a layout, or too little space.
    """
    absent: dict[str, str] = {}
    for published in expected:
        for root, names in _contents(folder, published):
            missing = published.missing([f"{published.root}/{name}" for name in names])
            if missing is None:
                require_space(target, sum((root / name).stat().st_size for name in names), f"a zip of {folder}")
                stored = published.stored_name(".zip")
                with ZipWriter(target / stored) as archive:
                    for name in progress(names, len(names), f"packing {folder.name}"):
                        _pack(archive, f"{published.root}/{name}", root / name)
                return stored
            absent.setdefault(published.name, missing)
    wanted = " or ".join(p.name for p in expected)
    raise UserError(
        f"{folder} holds no {' and no '.join(absent.values())}; expected the extracted {wanted}; correct the path"
    )


def _contents(folder: Path, published: Published) -> Iterator[tuple[Path, list[str]]]:
    """Folders that may be the archive's `root`, and the files in each."""
    if folder.is_file():
        yield folder.parent, [folder.name]
        return
    inner = published.root.split("/")
    for root in (folder.joinpath(*inner[depth:]) for depth in range(len(inner) + 1)):
        if root.is_dir():
            yield root, open_archive(root).names()


def _pack(archive: ZipWriter, name: str, file: Path) -> None:
    """Write a file into a zip; a large one from a memory map, since it may be larger than the memory."""
    if file.stat().st_size <= FULL_READ_BYTES:
        archive.write(name, file.read_bytes())
        return
    with open(file, "rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        archive.write(name, cast(bytes, mapped))  # a zip takes any buffer
