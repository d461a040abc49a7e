"""Sequences for the page: J and F of every object over time, a clip, and a strip of pictures for every object."""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.core.images import VOID, encode_jpeg, overlay
from pipeline.datasets.depth_maps import DepthMaps
from pipeline.datasets.video import Video, VideoSource
from pipeline.footage.overlay import OverlayVideo
from pipeline.scoring.davis import davis_values
from pipeline.scoring.results import Results
from pipeline.scoring.sequence import FrameValues, pair_up

FPS = 8  # of the clips: the sample has 24 frames per video
_TILE, _CLIP = 240, 480  # largest widths of a picture and of a clip, in pixels
_QUALITY = 78
# Okabe and Ito's colours, which people with any kind of colour vision can tell apart.
ERRORS = {"correct": (130, 130, 130), "missed": (86, 180, 233), "wrong": (213, 94, 0)}


@dataclass(frozen=True)
class Timeline:
    """J and F of the objects of one sequence, frame by frame.

    Attributes:
        video: the sequence.
        values: object id -> values; the first and the last annotated frame are not scored.
        scored: ids of the scored frames.
    """

    video: Video
    values: Mapping[int, FrameValues]
    scored: tuple[str, ...]

    @property
    def mean(self) -> float:
        """J&F, mean over the objects."""
        return float(np.mean([np.mean(one.j) + np.mean(one.f) for one in self.values.values()]) / 2)

    def object_mean(self, object_id: int) -> tuple[float, float]:
        """Mean J and F of an object."""
        one = self.values[object_id]
        return float(np.mean(one.j)), float(np.mean(one.f))

    @property
    def worst(self) -> str:
        """The frame with the lowest mean J&F over the objects; of several, the first."""
        table = np.array([np.add(one.j, one.f) for one in self.values.values()])
        return self.scored[int(table.mean(0).argmin())]

    def worst_of(self, object_id: int) -> str:
        """The frame with an object's lowest J; of several, the first."""
        return self.scored[int(np.argmin(self.values[object_id].j))]


def measure(source: VideoSource, masks: Path) -> list[Timeline]:
    """J and F over time by DAVIS' rules, the sequence with the lowest J&F first.

    Args:
        source: the scored sequences.
        masks: `<sequence>/<frame>.png`.

    Raises:
        UserError: a mask is missing or does not fit its annotation.
    """
    pairs = {pair.name: pair for pair in pair_up(source, Results(masks))}
    found = [
        Timeline(video, davis_values(pairs[video.name]), tuple(pairs[video.name].frames[1:-1]))
        for video in source.videos
    ]
    return sorted(found, key=lambda one: (one.mean, one.video.name))


def make_clip(source: VideoSource, video: Video, masks: Results) -> bytes:
    """The masks drawn over the frames: H.264 in MP4, `FPS` frames per second, at most 480 pixels wide.

    Args:
        source: has the frames.
        video: the sequence.
        masks: the results.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        with OverlayVideo(path) as writer:
            for i, frame_id in enumerate(video.frames):
                frame = _fit(source.frame(video, frame_id), _CLIP, cv2.INTER_AREA)
                mask = masks.mask(video.name, frame_id)
                height, width = frame.shape[:2]
                writer.add(frame, _resize(mask, width, height, cv2.INTER_NEAREST), i / FPS)
        return path.read_bytes()


def make_strip(
    source: VideoSource, video: Video, frame_id: str, object_id: int, masks: Results, depth: DepthMaps | None
) -> dict[str, str]:
    """Pictures of an object in one frame.

    Args:
        source: has frame and annotation.
        video: the sequence.
        frame_id: of the frame, which has an annotation.
        object_id: of the object, whose error is shown.
        masks: the results.
        depth: the depth maps; None: there are none.

    Returns:
        "frame", "depth" (if there is one), "truth", "prediction", "error" -> `data:` address of a JPEG.
    """
    frame = source.frame(video, frame_id)
    truth, result = source.mask(video, frame_id), masks.mask(video.name, frame_id)
    pictures: dict[str, NDArray[np.uint8]] = {"frame": frame}
    if depth is not None:
        grey = np.rint(255 * np.clip(depth.read(video.name, frame_id), 0, 1)).astype(np.uint8)
        coloured = cv2.cvtColor(cv2.applyColorMap(grey, cv2.COLORMAP_CIVIDIS), cv2.COLOR_BGR2RGB)
        pictures["depth"] = np.asarray(coloured, np.uint8)
    pictures["truth"] = overlay(frame, np.where(truth == VOID, np.uint8(0), truth))
    pictures["prediction"] = overlay(frame, result)
    pictures["error"] = draw_error(frame, truth == object_id, result == object_id)
    return {
        name: as_address(encode_jpeg(_fit(picture, _TILE, cv2.INTER_AREA), _QUALITY))
        for name, picture in pictures.items()
    }


def draw_error(frame: NDArray[np.uint8], truth: NDArray[np.bool_], result: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The frame in dim grey with the object's pixels by `ERRORS`: correct, missed, or wrongly labelled.

    Args:
        frame: uint8 H,W,3 RGB.
        truth: bool H,W.
        result: bool H,W.

    Returns:
        uint8 H,W,3 RGB.
    """
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    drawn = np.repeat((grey // 3)[..., None], 3, axis=2).astype(np.uint8)
    for name, where in (("correct", truth & result), ("missed", truth & ~result), ("wrong", result & ~truth)):
        drawn[where] = ERRORS[name]
    return drawn


def as_address(data: bytes, kind: str = "image/jpeg") -> str:
    """A `data:` address that contains the bytes."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _fit(image: NDArray[Any], widest: int, interpolation: int) -> NDArray[Any]:
    """The image at most `widest` pixels wide."""
    height, width = image.shape[:2]
    if width <= widest:
        return image
    return _resize(image, widest, max(2, round(height * widest / width)), interpolation)


def _resize(image: NDArray[Any], width: int, height: int, interpolation: int) -> NDArray[Any]:
    if image.shape[:2] == (height, width):
        return image
    return cv2.resize(image, (width, height), interpolation=interpolation)
