"""Results that are drawn from frames and masks: the overlay and the matte."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from pipeline.footage.footage import Shot
from pipeline.footage.input_checks import MATTE, OVERLAY
from pipeline.footage.matte import MatteForm, MatteImages, MatteVideo
from pipeline.footage.overlay import OverlayVideo


@dataclass(frozen=True)
class DrawingOptions:
    """What to draw.

    Attributes:
        overlay: the masks over the frames, `overlay.mp4`.
        matte: format of the cut-out objects: `matte.mov`, `matte.webm` or the folder `matte`; None: no matte.
        objects: ids of the objects in the matte; all if None.
    """

    overlay: bool = False
    matte: MatteForm | None = None
    objects: Sequence[int] | None = None

    @property
    def names(self) -> list[str]:
        """Names of the files and folders written into the folder of results."""
        matte = [] if self.matte is None else [MATTE if self.matte == "png" else f"{MATTE}.{self.matte}"]
        return [OVERLAY] * self.overlay + matte


class Drawings:
    """Write the drawings; each video gets its name when the block ends (see `VideoWriter`).

    Args:
        out: the folder of results.
        options: what to draw.
    """

    def __init__(self, out: Path, options: DrawingOptions) -> None:
        self._overlay = OverlayVideo(out / OVERLAY) if options.overlay else None
        self._matte: MatteVideo | MatteImages | None = None
        if options.matte == "png":
            self._matte = MatteImages(out / MATTE, options.objects)
        elif options.matte is not None:
            self._matte = MatteVideo(out / f"{MATTE}.{options.matte}", options.matte, options.objects)
        self._stack = ExitStack()

    def add(self, shot: Shot, mask: NDArray[np.uint8], opacity: NDArray[np.uint8] | None = None) -> None:
        """Draw a frame; frames must come in temporal order.

        Args:
            shot: the frame; all have the same size.
            mask: uint8 H,W ids.
            opacity: uint8 H,W, for soft edges of the matte; from the mask if None.

        Raises:
            UserError: it cannot be written.
        """
        if self._overlay is not None:
            self._overlay.add(shot.rgb, mask, shot.seconds)
        if self._matte is not None:
            self._matte.add(shot, mask, opacity)

    def __enter__(self) -> Drawings:
        for video in (self._overlay, self._matte):
            if video is not None and not isinstance(video, MatteImages):
                self._stack.enter_context(video)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)
