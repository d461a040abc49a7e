"""A user's own depth maps, made by any estimator."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.core.archives import open_archive
from pipeline.core.errors import UserError
from pipeline.depth_maps.write_maps import FrameRef

_SMALLEST = 1e-6  # of the largest depth; smaller values, and 0 for unknown, are raised to it


class ExternalMaps:
    """Inverse depth from files `<dataset>/<video>/<frame>.png` (8 or 16 bits, grey) or `.npy` (H,W float).

    Args:
        path: Folder, .zip or .tar that holds a folder for each data set.
        dataset: Name of the data set.
        holds: What the values are: `depth` (large is far) or `inverse_depth` (large is near).

    Raises:
        UserError: There is no such folder, or none for the data set.
    """

    def __init__(self, path: Path, dataset: str, holds: Literal["depth", "inverse_depth"]) -> None:
        self._archive, self._dataset, self._holds = open_archive(path), dataset, holds
        if not any(name.startswith(f"{dataset}/") for name in self._archive.names()):
            raise UserError(
                f"{path} has no folder {dataset}; expected {dataset}/<video>/<frame>.png or .npy; add it or correct "
                "depth.folder"
            )

    def __call__(self, refs: Sequence[FrameRef], frames: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.floating]]:
        """Inverse depth of each frame, up to a factor, at the size of the user's map.

        Raises:
            UserError: A frame has no map, or its map is unreadable, not grey, or not finite.
        """
        return [self._read(ref) for ref in refs]

    def _read(self, ref: FrameRef) -> NDArray[np.float32]:
        stem = f"{self._dataset}/{ref.video}/{ref.frame}"
        name = next((stem + end for end in (".png", ".npy") if self._archive.has(stem + end)), None)
        if name is None:
            raise UserError(
                f"{self._archive.path} has no {stem}.png or .npy; expected a depth map for every frame; add it or set "
                "depth.estimator to hourglass"
            )
        values = _decode(self._archive.read(name), f"{self._archive.path}: {name}")
        if self._holds == "inverse_depth":
            return values
        nearest = max(float(values.max()) * _SMALLEST, 1e-30)
        return np.reciprocal(np.maximum(values, nearest, dtype=np.float32))


def _decode(data: bytes, name: str) -> NDArray[np.float32]:
    """float32 H,W."""
    if name.endswith(".npy"):
        try:
            values = np.load(io.BytesIO(data), allow_pickle=False)
        except (ValueError, OSError, EOFError) as error:
            raise UserError(f"{name} cannot be read ({error}); expected a numpy array H,W; rewrite it") from None
    else:
        values = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None or values.ndim != 2 or values.dtype.kind not in "uif":
        found = "unreadable" if values is None else f"{values.dtype} of shape {values.shape}"
        raise UserError(f"{name} is {found}; expected one grey channel of depth; convert it")
    if not np.isfinite(values).all():
        raise UserError(f"{name} has values that are not finite; expected depth everywhere; fill them in")
    return np.asarray(values, np.float32)
