"""The store of downloads: each file once, under the digest of its content, for all profiles and experiments."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.core.runtime import log, progress
from pipeline.sources.checksums import BLOCK, Digest, Ledger, blocks


class Store:
    """A folder that no stage has as its output and that `make clean` does not touch.

    `files/<sha256>` are complete and verified files, `parts/` downloads in progress, `checksums.json` says which URL
    gave which file.

    Args:
        folder: of the store; made when it is first needed. A link to another disk is fine, but then stages copy files
            out of it instead of linking them.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.parts = folder / "parts"
        self.ledger = Ledger(folder / "checksums.json")

    def find(self, sha256: str, what: str) -> Path | None:
        """A file by its digest, if it is here and undamaged; a damaged one is removed.

        Args:
            sha256: hexadecimal.
            what: its name, for the log.
        """
        path = self.folder / "files" / sha256
        if not path.is_file():
            return None
        hashed = Digest(None)
        for block in progress(blocks(path), -(-path.stat().st_size // BLOCK), f"checksum of {what} in the store (MiB)"):
            hashed.update(block)
        if hashed.sha256 == sha256:
            return path
        log(f"{path} is damaged; it is removed and {what} is brought again")
        path.unlink()
        return None

    def keep(self, path: Path, sha256: str) -> Path:
        """Move a complete and verified file into the store; returns its place there."""
        place = self.folder / "files" / sha256
        place.parent.mkdir(parents=True, exist_ok=True)
        path.replace(place)
        return place


@contextmanager
def one_at_a_time(folder: Path, what: str) -> Iterator[None]:
    """Lock a folder; wait for another run that holds it, because it brings the same file.

    Args:
        folder: to lock; made if it is missing.
        what: is being brought, for the log.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log(f"{what}: waiting for another run that brings the same")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def link_or_copy(source: Path, target: Path) -> None:
    """Give one of our own files a second name (a hard link); copy it if it is on another file system."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
