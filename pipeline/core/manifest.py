"""The manifest next to the archives of a data set."""

from __future__ import annotations

import json
from pathlib import Path

from pipeline.core.errors import UserError

NAME = "manifest.json"


def read_manifest(folder: Path) -> list[dict[str, str | int]]:
    """The entries of a dataset's files: {name, bytes, sha256}, or {name, fingerprint} of one that is read in place.

    Raises:
        UserError: there is no manifest, or it is unreadable.
    """
    path = folder / NAME
    try:
        files: list[dict[str, str | int]] = json.loads(path.read_text())["files"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} cannot be read ({error}); expected the manifest of a dataset; run its download stage"
        ) from None
    return files


def is_empty(folder: Path) -> bool:
    """Whether the dataset was switched off (`none`): a manifest that lists no files."""
    return (folder / NAME).is_file() and not read_manifest(folder)
