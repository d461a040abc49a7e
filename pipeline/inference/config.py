"""Settings of inference; params.yaml is their only source."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pipeline.core.errors import UserError
from pipeline.datasets.config import Split


@dataclass(frozen=True)
class InferSwitches:
    """The column of Table 2 that changes inference (`infer.*` in params.yaml).

    Attributes:
        tta: average over scales and flips.
    """

    tta: bool


@dataclass(frozen=True)
class InferConfig:
    """Inference (`shared.infer` and `profiles.*.infer` in params.yaml).

    Attributes:
        split: what to segment: `train` or `val` of DAVIS-2017, scored here; or, of the data set `challenge`,
            `test-dev`, `test-challenge` (DAVIS) or `youtubevos-valid`, packed for the challenge's server.
        short_side: of the frames in the network, in pixels; larger frames are reduced for it, and their masks have the
            original size. 0: frames are not resized.
        memory_every: the memory keeps one frame in so many, in addition to the first and the previous one.
        memory_frames: largest number of frames in the memory, at least 2 (first and previous); 0: no limit.
        memory_gb: memory that a video may use in addition to the network, in GiB (of the GPU, if there is one); 0: four
            fifths of the free memory at its start. Sequences that run in parallel share it. It decides how many frames,
            objects and query pixels are processed at a time. If the network's memory would exceed it, frames are
            thinned as with `memory_frames`, and the log says so.
        lookahead: largest number of frames whose queries are encoded together, ahead of the propagation; changes the
            result only by rounding.
        chunk: on a CPU, largest number of query pixels that read the memory at a time, so that the affinity stays in
            the caches; does not change the result.
        precision: `bf16` or `fp32`, of the weights, the features and the memory.
        flip: with `infer.tta`, every scale is also mirrored.
        tta_memory: what each scale memorizes: its `own` probabilities, or those `averaged` over all scales and flips.
        scales: with `infer.tta`, factors on the sides of the frame.
    """

    split: Split
    short_side: int
    memory_every: int
    memory_frames: int
    memory_gb: float
    lookahead: int
    chunk: int
    precision: Literal["bf16", "fp32"]
    flip: bool
    tta_memory: Literal["own", "averaged"]
    scales: tuple[float, ...]

    def __post_init__(self) -> None:
        for name in ("memory_every", "lookahead", "chunk"):
            if getattr(self, name) < 1:
                raise UserError(f"infer: {name} is {getattr(self, name)}; expected at least 1; correct params.yaml")
        if self.short_side < 0:
            raise UserError(
                f"infer: short_side is {self.short_side}; expected 0 (no resizing) or a number of pixels; "
                "correct params.yaml"
            )
        if self.memory_gb < 0:
            raise UserError(
                f"infer: memory_gb is {self.memory_gb}; expected 0 (the free memory) or more; correct params.yaml"
            )
        if self.memory_frames != 0 and self.memory_frames < 2:
            raise UserError(
                f"infer: memory_frames is {self.memory_frames}; expected 0 (no limit) or at least 2 (first and "
                "previous frame); correct params.yaml"
            )
        if not self.scales or min(self.scales) <= 0:
            raise UserError(f"infer: scales is {list(self.scales)}; expected positive factors; correct params.yaml")
