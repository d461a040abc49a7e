"""Check, before anything is computed, that a video, its masks and the folder of results fit together."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import UserError
from pipeline.footage.footage import Footage, ImageFootage, VideoFootage

OVERLAY = "overlay.mp4"  # names of what is written next to the masks
MATTE = "matte"  # a folder; with a suffix, a video
_UNFINISHED = re.compile(
    r"\..+\.(?:png|mp4|mov|webm)\.([0-9]+)\.tmp"
)  # temporary names from core/files.py and VideoWriter
_DRAWN = (OVERLAY, f"{MATTE}.mov", f"{MATTE}.webm")


def check_masks(footage: Footage, masks: Mapping[int, NDArray[np.uint8]]) -> tuple[int, int]:
    """Check that masks and footage fit; reads one frame.

    Returns:
        H, W of the frames.

    Raises:
        UserError: they do not fit.
    """
    if footage.length is not None and max(masks) >= footage.length:
        raise UserError(
            f"a mask is given for frame {max(masks)}, but the video has {footage.length} frames (0 to "
            f"{footage.length - 1}); correct its index"
        )
    height, width = next(shot.rgb.shape[:2] for shot in footage.shots())
    for index, mask in sorted(masks.items()):
        if mask.shape != (height, width):
            turned = " (turned as its rotation flag says)" if mask.shape == (width, height) else ""
            raise UserError(
                f"the mask of frame {index} is {mask.shape[1]}x{mask.shape[0]}, the video {width}x{height}{turned}; "
                "expected one size; draw the mask on a frame of the video, or resize it without smoothing"
            )
    return height, width


def check_output(footage: VideoFootage | ImageFootage, masks: Mapping[int, Path], out: Path) -> None:
    """Check that masks can be written to a folder, and that none of them would overwrite an input.

    Raises:
        UserError: they cannot be written, or one would overwrite an input.
    """
    there = next(path for path in (out, *out.absolute().parents) if os.path.lexists(path))
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        what = "is not a folder" if not there.is_dir() else "may not be written to"
        raise UserError(f"{there} {what}; expected a folder for the masks, or a place to create it; give another --out")
    beside = [path for path in footage.files if _lies_in(path, out)]
    beside += [path for path in footage.files if _lies_in(path, out / MATTE)]
    if beside and (isinstance(footage, ImageFootage) or beside[0].name in _DRAWN):
        raise UserError(
            f"{out} contains the input ({beside[0].name}), which results would overwrite or be mistaken for; "
            "expected a separate folder; give another --out"
        )
    for path in masks.values():
        if _lies_in(path, out) and path.suffix.lower() == ".png" and footage.names(path.stem):
            raise UserError(
                f"{path} would be overwritten by the result for the frame of that name; expected the given masks "
                "elsewhere; move it or give another --out"
            )


def make_folder(path: Path) -> None:
    """Create a folder if it does not exist; remove unfinished files of killed runs.

    Raises:
        UserError: it cannot be created.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        for leftover in path.glob(".*.tmp"):
            match = _UNFINISHED.fullmatch(leftover.name)
            if match and not Path(f"/proc/{match[1]}").exists() and Path("/proc/self").exists():
                leftover.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(
            f"{path} cannot be created ({error.strerror}); expected a folder for the masks; give another --out"
        ) from None


def _lies_in(path: Path, folder: Path) -> bool:
    """Whether a file, or the file it links to, is in a folder."""
    return folder.resolve() in (path.parent.resolve(), path.resolve().parent)
