"""The splits that can be segmented: those of DAVIS-2017 scored here, and those a challenge's server scores."""

from __future__ import annotations

from pathlib import Path

from pipeline.core.errors import UserError
from pipeline.core.manifest import is_empty
from pipeline.datasets.config import Split
from pipeline.datasets.davis import open_davis
from pipeline.datasets.video import VideoSource
from pipeline.datasets.youtubevos import open_youtubevos

SUBMITTED: tuple[Split, ...] = ("test-dev", "test-challenge", "youtubevos-valid")  # only first masks are published


def dataset_of(split: Split) -> str:
    """The data set that holds a split: `davis`, or `challenge` if its masks are only submitted."""
    return "challenge" if split in SUBMITTED else "davis"


def open_split(raw: Path, split: Split) -> VideoSource:
    """Open a split.

    Args:
        raw: folder of the data set's archive, the archive, or an extracted folder.
        split: its name.

    Raises:
        UserError: the data set is switched off or cannot be used.
    """
    if is_empty(raw):
        raise UserError(
            f"{raw} contains no data (profiles.<profile>.data.{dataset_of(split)} is none); expected the archive of "
            f"{split}; set the key, or infer.split to another split"
        )
    return open_youtubevos(raw, "valid") if split == "youtubevos-valid" else open_davis(raw, split)
