"""Objects cut out of their video: frames with opacity, as a video for editing or for browsers, or as PNGs."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.core.errors import UserError
from pipeline.core.files import write_bytes
from pipeline.core.images import VOID, object_ids
from pipeline.footage.footage import Shot
from pipeline.footage.video_writer import Coding, VideoWriter
from pipeline.footage.write_errors import writing

MatteForm = Literal["mov", "webm", "png"]
MATTE_FORMS: tuple[MatteForm, ...] = get_args(MatteForm)

_MARGIN = 8  # pixels around the objects keep their colours, because scaling and compression mix them in
_CLEAR, _OPAQUE = (
    0.25,
    0.75,
)  # opacity rises between these probabilities; otherwise low ones would look like haze over the frame
_CODINGS: Mapping[str, Coding] = {
    "mov": Coding(
        container="mov",
        codec="prores_ks",
        pix_fmt="yuva444p10le",
        options={"profile": "4444", "vendor": "apl0", "alpha_bits": "16"},
        alpha=True,
        container_options={"movflags": "+faststart"},
    ),
    "webm": Coding(
        container="webm",
        codec="libvpx-vp9",
        pix_fmt="yuva420p",
        options={"crf": "20", "b": "0", "auto-alt-ref": "0", "deadline": "realtime", "cpu-used": "5", "row-mt": "1"},
        alpha=True,
        metadata={"alpha_mode": "1"},
    ),
}


def parse_objects(text: str, masks: Mapping[int, NDArray[np.uint8]]) -> list[int]:
    """Object ids of the command line, "1,3".

    Args:
        text: ids, separated by commas.
        masks: the given masks.

    Raises:
        UserError: the ids are not numbers, or no mask has such an object.
    """
    known = sorted({i for mask in masks.values() for i in object_ids(mask)})
    parts = [part.strip() for part in text.split(",")]
    wrong = [part for part in parts if not (part.isascii() and part.isdigit() and int(part) in known)]
    if wrong:
        raise UserError(
            f"--matte-objects {text} names {wrong[0] or 'nothing'}; expected objects of the given masks "
            f"({', '.join(map(str, known))}), separated by commas; correct it"
        )
    return sorted({int(part) for part in parts})


def cut_out(rgb: NDArray[np.uint8], opacity: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Colours and opacity; colours are the frame's (not multiplied by opacity), and black far from the objects.

    Args:
        rgb: uint8 H,W,3.
        opacity: uint8 H,W; 255 opaque.

    Returns:
        uint8 H,W,4.
    """
    near = cv2.dilate(opacity, np.ones((2 * _MARGIN + 1, 2 * _MARGIN + 1), np.uint8))
    return np.dstack([np.where(near[..., None] > 0, rgb, 0), opacity]).astype(np.uint8)


def opacity_of(mask: NDArray[np.uint8], objects: Sequence[int] | None) -> NDArray[np.uint8]:
    """Opacity of the objects of a mask: 255 inside, otherwise 0.

    Args:
        mask: uint8 H,W ids.
        objects: their ids; all if None.
    """
    inside = (mask > 0) & (mask < VOID) if objects is None else np.isin(mask, objects)
    return np.where(inside, 255, 0).astype(np.uint8)


def soft_opacity(probability: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Opacity from a probability: a border as soft as the network is unsure of it, and nothing elsewhere.

    Args:
        probability: float32 H,W in [0, 1], that a pixel is of what is cut out.

    Returns:
        uint8 H,W: 0 up to a probability of 0.25, 255 from 0.75 on, linear between.
    """
    return np.rint(255 * np.clip((probability - _CLEAR) / (_OPAQUE - _CLEAR), 0, 1)).astype(np.uint8)


class MatteVideo(VideoWriter):
    """Write cut-out objects as a video with opacity; see `VideoWriter`.

    Args:
        path: the file to write.
        form: "mov" for ProRes 4444, which editing programs read, "webm" for VP9, which browsers play.
        objects: ids of the objects to show; all if None.
    """

    def __init__(self, path: Path, form: Literal["mov", "webm"], objects: Sequence[int] | None) -> None:
        super().__init__(path, _CODINGS[form])
        self._objects = objects

    def add(self, shot: Shot, mask: NDArray[np.uint8], opacity: NDArray[np.uint8] | None = None) -> None:
        """Add a frame.

        Args:
            shot: the frame; all have the same size.
            mask: uint8 H,W ids.
            opacity: uint8 H,W, for soft edges; from the mask if None.
        """
        opacity = opacity_of(mask, self._objects) if opacity is None else opacity
        self.write(cut_out(shot.rgb, opacity), shot.seconds)


class MatteImages:
    """Write cut-out objects as an RGBA PNG for each frame.

    Args:
        folder: of the files `<frame>.png`; created with the first one.
        objects: ids of the objects to show; all if None.
    """

    def __init__(self, folder: Path, objects: Sequence[int] | None) -> None:
        self._folder, self._objects = folder, objects

    def add(self, shot: Shot, mask: NDArray[np.uint8], opacity: NDArray[np.uint8] | None = None) -> None:
        """Add a frame; see `MatteVideo.add`.

        Raises:
            UserError: the file cannot be written.
        """
        opacity = opacity_of(mask, self._objects) if opacity is None else opacity
        buffer = io.BytesIO()
        Image.fromarray(cut_out(shot.rgb, opacity)).save(buffer, "PNG", compress_level=3)
        path = self._folder / f"{shot.name}.png"
        with writing(path):
            write_bytes(path, buffer.getvalue())
