"""Checksums of files, compared with published ones and with those recorded at the first download."""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

from pipeline.core.errors import UserError
from pipeline.core.files import write_json

BLOCK = 1 << 20  # bytes read, hashed or copied at a time


def blocks(path: Path) -> Iterator[bytes]:
    """The content of a file in blocks of 1 MiB."""
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            yield block


class Digest:
    """The sha256 of the bytes passed to it, and also their checksum of the published kind, if that is another one."""

    def __init__(self, expected: str | None) -> None:
        self._expected = expected
        kind = expected.partition(":")[0] if expected else "sha256"
        self._sha256 = hashlib.sha256()
        self._other = None if kind == "sha256" else hashlib.new(kind)

    def update(self, block: bytes) -> None:
        """Add the next bytes."""
        self._sha256.update(block)
        if self._other is not None:
            self._other.update(block)

    @property
    def sha256(self) -> str:
        """Hexadecimal sha256 of all bytes so far."""
        return self._sha256.hexdigest()

    def check(self, name: str, source: str) -> None:
        """Compare with the expected checksum.

        Args:
            name: the file, for the message.
            source: where the expected checksum comes from, and what to do if it does not match.

        Raises:
            UserError: they differ.
        """
        if self._expected is None:
            return
        kind, _, expected = self._expected.partition(":")
        found = self.sha256 if self._other is None else self._other.hexdigest()
        if found != expected:
            raise UserError(f"{name} has {kind} {found}; expected {expected} ({source})")


def sha256_of(path: Path) -> str:
    """Hexadecimal sha256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Ledger:
    """Checksums of first downloads by URL, in one JSON file; later downloads of the same URL must have the same."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def _read(self) -> dict[str, str]:
        if not self.path.exists():
            return {}
        try:
            known = json.loads(self.path.read_text())
        except json.JSONDecodeError as error:
            raise UserError(f"{self.path} is not JSON ({error}); expected checksums; fix or delete it") from None
        return {str(url): str(checksum) for url, checksum in known.items()}

    def get(self, url: str) -> str | None:
        """The checksum recorded for a URL, as `sha256:<hex>`, or None."""
        return self._read().get(url)

    def record(self, url: str, checksum: str) -> None:
        """Record a checksum, under a lock so that two downloads do not overwrite each other's entry."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path.with_suffix(".lock"), "a") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            write_json(self.path, dict(sorted({**self._read(), url: checksum}.items())))
