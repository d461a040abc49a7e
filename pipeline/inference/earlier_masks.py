"""Masks in the output folder: those of an interrupted run, which a resumed run continues from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import UserError
from pipeline.core.images import VOID, decode_mask, object_ids
from pipeline.footage.footage import Footage


class EarlierMasks:
    """Masks of a video that are in its output folder.

    Args:
        footage: the video.
        given: frame index -> uint8 H,W ids, the masks the run starts from.
        ids: of the objects.
        size: height and width of the frames.
        out: the output folder.
        resume: whether masks of an earlier run count.
    """

    def __init__(
        self,
        footage: Footage,
        given: Mapping[int, NDArray[np.uint8]],
        ids: Sequence[int],
        size: tuple[int, int],
        out: Path,
        resume: bool,
    ) -> None:
        self._footage, self._given, self._ids, self._size = footage, given, set(ids), size
        self._out, self._resume = out, resume

    def count(self, indices: Iterable[int]) -> int:
        """Number of successive frames, from the first of `indices`, that have their mask from an earlier run."""
        found = 0
        for index in indices if self._resume else ():
            if not self._path(index).is_file():
                break
            found += 1
        return found

    def mask(self, index: int) -> NDArray[np.uint8]:
        """The mask of a frame, uint8 H,W ids, compared with the mask that is given for it.

        Raises:
            UserError: it comes from another run.
        """
        path = self._path(index)
        mask, given = decode_mask(path.read_bytes(), str(path)), self._given.get(index)
        certain = None if given is None else (given > 0) & (given < VOID)
        fits = mask.shape == self._size and set(object_ids(mask)) <= self._ids
        if not fits or (certain is not None and given is not None and (mask[certain] != given[certain]).any()):
            raise UserError(
                f"{path} does not fit this video and these masks; expected masks of an interrupted run of the same "
                "command; leave out --resume, or give another --out"
            )
        return mask

    def _path(self, index: int) -> Path:
        return self._out / f"{self._footage.name_of(index)}.png"
