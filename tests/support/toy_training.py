"""A training configuration and a clip source small enough for tests."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.datasets.clips import ClipSource
from pipeline.datasets.config import AugmentConfig, ClipConfig
from pipeline.datasets.depth_input import DepthInput
from pipeline.datasets.video import Video
from pipeline.training.config import RunOptions, TrainingConfig
from tests.support.tiny_archives import Toy

PLAIN = AugmentConfig(
    crop=48, max_scale=1.0, flip=False, color_jitter=0.0, affine_degrees=0.0, affine_scale=0.0, affine_shear=0.0
)
TRAINING = TrainingConfig(
    init_from="none",
    epochs=2,
    steps_per_epoch=3,
    batch=2,
    optimizer="adamw",
    lr=1.0e-3,
    beta1=0.9,
    beta2=0.999,
    weight_decay=0.0,
    schedule="step",
    decay_epoch=1,
    decay_factor=0.5,
    warmup_steps=0,
    clip_norm=3.0,
    ema_decay=0.0,
    skip_start=0,
    skip_end=1,
    davis_share=0.0,
    stills_share=0.0,
    lovasz_weight=1.0,
    carried_weight=0.0,
    validate_every=0,
    validate_videos=2,
    keep="last",
    precision="fp32",
    compiled=False,
    clips=ClipConfig(n_frames=3, max_objects=2, augment=PLAIN),
)

OPTIONS = RunOptions(workers=1, save_every=0, clips_per_pass=0, stop_after=0, tensorboard=False)


class ToyVideos:
    """A source that holds the toy video alone."""

    def __init__(self, toy: Toy) -> None:
        self.name = "toy"
        self._toy = toy
        ids = tuple(f"{i:05d}" for i in range(len(toy.frames)))
        self.videos = (Video("toy", ids, ids, {1: ids[0], 2: ids[0]}),)

    def frame(self, video: Video, frame_id: str) -> NDArray[np.uint8]:
        return self._toy.frames[int(frame_id)]

    def mask(self, video: Video, frame_id: str) -> NDArray[np.uint8]:
        return self._toy.masks[int(frame_id)]


def toy_source(toy: Toy) -> ClipSource:
    videos = ToyVideos(toy)
    return ClipSource(videos, DepthInput(None, "constant", videos.videos), None, skips=True)
