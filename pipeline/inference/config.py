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
        short_side: of the frames as the network sees them, in pixels; larger frames are made smaller for it, and their
            masks come out at their own size. 0: frames as they are.
        memory_every: every how many frames one is kept in the memory, beside the first and the previous one.
        memory_frames: most frames the memory may hold, at least 2 (first and previous); 0: no limit.
        memory_gb: what a video may take beside the network, in GiB (of the GPU's memory where there is one); 0: four
            fifths of what is free when it starts. Sequences that run side by side share it. Frames, objects and query
            places taken at a time follow from it; should the memory outgrow it, it is thinned as `memory_frames` would,
            and a line says so.
        lookahead: most frames whose queries are encoded together, ahead of the propagation; changes the result by
            rounding at most.
        chunk: on a CPU, most query places read from the memory at a time, so that the affinity stays in the caches;
            does not change the result.
        precision: `bf16` or `fp32`, of the weights, the features and the memory.
        flip: with `infer.tta`, every scale also runs mirrored.
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
                f"infer: short_side is {self.short_side}; expected 0 (frames as they are) or a number of pixels; "
                "correct params.yaml"
            )
        if self.memory_gb < 0:
            raise UserError(
                f"infer: memory_gb is {self.memory_gb}; expected 0 (what is free) or more; correct params.yaml"
            )
        if self.memory_frames != 0 and self.memory_frames < 2:
            raise UserError(
                f"infer: memory_frames is {self.memory_frames}; expected 0 (no limit) or at least 2 (first and "
                "previous frame); correct params.yaml"
            )
        if not self.scales or min(self.scales) <= 0:
            raise UserError(f"infer: scales is {list(self.scales)}; expected positive factors; correct params.yaml")
