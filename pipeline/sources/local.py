"""Files that are already on this machine: found, checked for the expected layout, copied or packed."""

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

FULL_READ_BYTES = 256 << 20  # archives up to this length are read completely, larger ones at both ends


def is_remote(value: str) -> bool:
    """Whether a source is an http(s) URL.

    Raises:
        UserError: it is a URL of another kind (file: counts as a path).
    """
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", value)
    if scheme is None or scheme[1].lower() == "file":
        return False
    if scheme[1].lower() in ("http", "https"):
        return True
    raise UserError(f"{value} is a URL of kind {scheme[1]}; expected http, https or file, or a path; correct it")


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
    archive = open_archive(path)
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


def copy_checked(source: Path, target: Path, checksum: str | None, origin: str) -> str:
    """Copy a file and compute its hash at the same time.

    A copy and not a hard link: DVC makes cached files read-only, and that must not affect the user's own file.

    Args:
        source: an existing file.
        target: where the copy is written.
        checksum: expected checksum, if any.
        origin: where the checksum comes from, for the message.

    Returns:
        Hexadecimal sha256 of the file.

    Raises:
        UserError: the checksum differs from the expected one, or there is too little space.
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
    """Give one of our own files a second name (a hard link); copy it if it is on another file system."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def pack_folder(folder: Path, target: Path, expected: Sequence[Published]) -> str:
    """Pack an extracted data set into an uncompressed zip in the published layout; equal files give equal bytes.

    Args:
        folder: the extracted archive, or a folder inside it (`DAVIS`, or the folder that holds it); or a single HDF5
            file, for data sets that may consist of these.
        target: folder for the zip.
        expected: the archives of which it is one; only the files below that one's `root` are packed.

    Returns:
        Name of the zip.

    Raises:
        UserError: the folder does not have such a layout, or there is too little space.
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
        f"{folder} contains no {' and no '.join(absent.values())}; expected the extracted {wanted}; correct the path"
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
    """Write a file into a zip; a large one through a memory map, because it may be larger than the memory."""
    if file.stat().st_size <= FULL_READ_BYTES:
        archive.write(name, file.read_bytes())
        return
    with open(file, "rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        archive.write(name, cast(bytes, mapped))  # a zip file accepts any buffer
