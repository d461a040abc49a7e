"""Files and folders of the user that are read in place: known by their content, found again by their path.

A data set's manifest names only the fingerprint, so that the same data at another path does not rerun any stage. Where
it is on this machine is in the store.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from pipeline.core.archive_index import store_folder
from pipeline.core.archives import open_archive, table_digest
from pipeline.core.errors import UserError
from pipeline.core.files import write_json
from pipeline.core.plain_names import SINGLE_FILES

_END = 1 << 15  # bytes at both ends of a folder's file that are compared


def _store() -> Path:
    return store_folder() or Path("data/store").absolute()


def fingerprint_of(path: Path) -> str:
    """Digest of the content of an archive or folder, in seconds also for 20 GB.

    Of a file: its length, both ends, and the table of its members (in a zip with their checksums). Of a folder: the
    name, the length and both ends of every file.

    Args:
        path: an archive, a folder, or another file.

    Raises:
        UserError: an unreadable archive.
    """
    content = hashlib.sha256()
    if path.is_dir():
        for name in open_archive(path).names():
            content.update(f"{name}\0{_ends(path / name, _END)}\n".encode("utf-8", "surrogateescape"))
        return content.hexdigest()[:32]
    content.update(_ends(path, 1 << 20).encode())
    if path.suffix not in SINGLE_FILES:
        content.update(table_digest(path).encode())
    return content.hexdigest()[:32]


def _ends(path: Path, n_bytes: int) -> str:
    """Length of a file, and digest of its first and last bytes."""
    length = path.stat().st_size
    with open(path, "rb") as file:
        content = hashlib.sha256(file.read(n_bytes))
        file.seek(max(n_bytes, length - n_bytes))
        content.update(file.read())
    return f"{length} {content.hexdigest()}"


def refer(path: Path) -> str:
    """Note where a file or folder is, for the stages that read it in place.

    Returns:
        Its fingerprint, for the manifest.
    """
    fingerprint = fingerprint_of(path)
    write_json(_note(fingerprint), {"path": str(path.absolute()), "state": _state(path)})
    return fingerprint


def find_referred(fingerprint: str, name: str, raw: Path) -> Path:
    """The file or folder of a manifest's entry.

    Args:
        fingerprint: its fingerprint there.
        name: its name there, for the error.
        raw: the folder of the manifest, for the error.

    Raises:
        UserError: it is not on this machine, or is not the same any more.
    """
    again = f"run `dvc repro -f download@{raw.name}`"
    try:
        note: dict[str, Any] = json.loads(_note(fingerprint).read_text())
        path = Path(note["path"])
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(
            f"{raw} refers to {name} by its content, and no place of it is known on this machine; expected it where "
            f"the download stage found it; {again}"
        ) from None
    if not path.exists():
        raise UserError(f"{path} ({name} of {raw}) does not exist any more; expected it to stay there; {again}")
    if note.get("state") != _state(path) and fingerprint_of(path) != fingerprint:
        raise UserError(
            f"{path} ({name} of {raw}) has changed since the download stage read it; expected the same content; {again}"
        )
    return path


def _note(fingerprint: str) -> Path:
    return _store() / "places" / f"{fingerprint}.json"


def _state(path: Path) -> str:
    """Changes if a file, or the list of a folder's files, changes: lengths and times of change."""
    about = path.stat()
    seen = hashlib.sha256(f"{about.st_size} {about.st_mtime_ns}".encode())
    if path.is_dir():
        for folder, inner, _ in os.walk(path):
            inner.sort()
            seen.update("".join(f"{name} {(Path(folder) / name).stat().st_mtime_ns}\n" for name in inner).encode())
    return seen.hexdigest()[:32]
