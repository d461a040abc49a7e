"""Tables of large archives, kept in the store so that they are made once and not by every stage and process."""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from pipeline.core.members import Names, Table

_FROM_BYTES = 64 << 20  # smaller archives are indexed faster than their table is found
_VERSION = 1  # of the table's form; raise it when `Member` or what counts as one changes


def store_folder() -> Path | None:
    """The folder that keeps downloads and indices for all stages, profiles and experiments.

    `$DSTM_STORE`, or `data/store` of the main checkout, also in experiments that run in a temporary copy of it. It is
    not an output of any stage, so nothing removes it.

    Returns:
        The folder, which may not exist yet; None outside a checkout (there is no params.yaml).
    """
    if named := os.environ.get("DSTM_STORE"):
        return Path(named).expanduser()
    root = Path(os.environ.get("DVC_ROOT", "."))
    return root.absolute() / "data" / "store" if (root / "params.yaml").is_file() else None


def cached_table(path: Path, index: Callable[[Path], Table]) -> Table:
    """The table of an archive, from the store if it is there.

    Args:
        path: the archive.
        index: makes the table.
    """
    store = store_folder()
    about = path.stat()
    if store is None or about.st_size < _FROM_BYTES:
        return index(path)
    key = hashlib.sha256(f"{_VERSION} {about.st_size} {about.st_mtime_ns}".encode())
    with open(path, "rb") as file:
        key.update(file.read(1 << 16))
        file.seek(max(0, about.st_size - (1 << 16)))
        key.update(file.read())
    place = store / "index" / f"{key.hexdigest()[:32]}.npz"
    return _load(place) or _keep(place, index(path))


def _load(place: Path) -> Table | None:
    try:
        with np.load(place) as saved:
            return Table(Names(saved["text"].tobytes(), saved["ends"]), saved["columns"])
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):  # none, or damaged: it is made anew
        return None


def _keep(place: Path, table: Table) -> Table:
    temporary = place.with_name(f".{place.name}.{os.getpid()}.tmp")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            text = np.frombuffer(table.names.text, np.uint8)
            np.savez(file, text=text, ends=table.names.ends, columns=table.columns)
        temporary.replace(place)
    except OSError:  # a full or read-only disk: the table only costs time
        temporary.unlink(missing_ok=True)
    return table
