"""J&F of a checkpoint on a few videos of DAVIS' val split: what training runs between epochs, and a command.

    python -m pipeline.validate models/sample/pretrain.pt --videos 6

The videos are segmented by the inference code itself, at one scale, and scored as the score stage does. Training starts
this as a process of its own, so that a change of the inference code does not train the network again.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.core.errors import UserError
from pipeline.core.files import write_bytes, write_json
from pipeline.core.images import encode_mask
from pipeline.core.layout import Layout
from pipeline.core.runtime import log, pick_device, run_main
from pipeline.core.signals import end_with_parent
from pipeline.datasets.depth_input import DepthInput, open_depth_input
from pipeline.datasets.splits import open_split
from pipeline.datasets.video import Video, VideoSource
from pipeline.dstm.checkpoint import load_dstm
from pipeline.inference.config import InferSwitches
from pipeline.inference.frames import Frame
from pipeline.inference.prepared import prepare
from pipeline.inference.propagate import propagate
from pipeline.scoring.davis import score_davis
from pipeline.scoring.evaluation import Protocol, score_set
from pipeline.scoring.result_names import every_frame
from pipeline.scoring.results import Results
from pipeline.scoring.summary import summarise
from pipeline.settings import Settings, load_settings


@dataclass(frozen=True)
class SomeVideos:
    """A part of a set of videos.

    Attributes:
        source: the set.
        videos: the part.
    """

    source: VideoSource
    videos: tuple[Video, ...]

    @property
    def name(self) -> str:
        """Name of the set, for messages."""
        return self.source.name

    def frame(self, video: Video, frame_id: str) -> NDArray[np.uint8]:
        """A frame, uint8 H,W,3 RGB."""
        return self.source.frame(video, frame_id)

    def mask(self, video: Video, frame_id: str) -> NDArray[np.uint8]:
        """An id mask, uint8 H,W."""
        return self.source.mask(video, frame_id)


def choose(videos: Sequence[Video], count: int) -> tuple[Video, ...]:
    """Videos at equal distances in the order of the split; all if there are no more than `count`."""
    count = min(count, len(videos))
    return tuple(videos[i * len(videos) // count] for i in range(count))


def run(settings: Settings, layout: Layout, checkpoint: Path, n_videos: int, device: torch.device) -> float:
    """Segment and score a few videos of the val split.

    Args:
        settings: all of params.yaml.
        layout: paths of the profile.
        checkpoint: of kind `dstm`.
        n_videos: number of videos.
        device: of the network.

    Returns:
        J&F in [0, 1], the mean over objects.

    Raises:
        UserError: there is no val split, or the checkpoint or the videos are unusable.
    """
    if n_videos < 1:
        raise UserError(f"--videos is {n_videos}; expected at least 1; correct it")
    config = settings.profile_params.infer
    network = prepare(load_dstm(checkpoint, device), config.precision)
    every = open_split(layout.raw("davis"), "val")
    some = SomeVideos(every, choose(every.videos, n_videos))
    model = network.switches
    depth = open_depth_input(layout.depth("davis"), model.depth_input, every.videos) if model.depth else None
    with tempfile.TemporaryDirectory() as folder:
        for video in some.videos:
            masks = propagate(
                network, _frames(some, depth, video), _given(some, video), InferSwitches(False), config, device
            )
            for frame_id, mask in zip(video.frames, masks):
                write_bytes(Path(folder) / video.name / f"{frame_id}.png", encode_mask(mask))
        scores = score_set(some, Results(Path(folder)), Protocol(score_davis, every_frame, knows_frames=True), 1)
    return float(summarise(scores)["J&F"])


def _frames(source: VideoSource, depth: DepthInput | None, video: Video) -> Iterator[Frame]:
    for frame_id in video.frames:
        frame = source.frame(video, frame_id)
        yield Frame(frame, None if depth is None else depth.read(video, frame_id, frame))


def _given(source: VideoSource, video: Video) -> dict[int, NDArray[np.uint8]]:
    """Frame index -> mask of only the objects that first appear there."""
    given = {}
    for frame_id in set(video.first_seen.values()):
        new = [i for i, first in video.first_seen.items() if first == frame_id]
        mask = source.mask(video, frame_id)
        given[video.frames.index(frame_id)] = np.where(np.isin(mask, new), mask, np.uint8(0))
    return given


def main(argv: Sequence[str] | None = None) -> None:
    """Validate the checkpoint that the command line names, with params.yaml."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.validate", description="J&F on a few val videos.")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--videos", type=int, default=6, help="number of videos (default: %(default)s)")
    parser.add_argument("--output", type=Path, metavar="JSON", help="write the result")
    parser.add_argument("--with-parent", action="store_true", help="end when the process that started this one ends")
    options = parser.parse_args(argv)
    if options.with_parent:
        end_with_parent()
    settings = load_settings()
    layout, device = Layout(Path.cwd(), settings.profile), pick_device(settings.runtime.device)
    score = run(settings, layout, options.checkpoint, options.videos, device)
    log(f"J&F {score:.4f} on {options.videos} videos")
    if options.output:
        write_json(options.output, {"J&F": score})


if __name__ == "__main__":
    raise SystemExit(run_main(main))
