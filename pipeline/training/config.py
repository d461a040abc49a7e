"""Settings of the two training stages; params.yaml is their only source."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pipeline.core.errors import UserError
from pipeline.core.params import Count, Natural, NonNegative, Positive, Range
from pipeline.datasets.config import ClipConfig


@dataclass(frozen=True)
class LossSwitches:
    """The column of Table 2 that changes the loss (`loss.*` in params.yaml).

    Attributes:
        lovasz: add the Lovász loss, Eq. (4)-(8), to the cross-entropy.
    """

    lovasz: bool


@dataclass(frozen=True)
class RunOptions:
    """How a training is run, part of `runtime` in params.yaml; nothing here changes its result.

    Attributes:
        workers: number of processes that prepare clips.
        save_every: optimizer steps between two saves of the resume state; 0: only at the end of an epoch.
        clips_per_pass: clips of one forward and backward pass in each process; the gradients of a step are added up
            over as many passes as its share of the batch needs. 0: all clips in one pass.
        stop_after: optimizer steps after which a run stops, for a short trial; 0: never.
        tensorboard: also write TensorBoard's event files.
    """

    workers: int
    save_every: int
    clips_per_pass: int
    stop_after: int
    tensorboard: bool


@dataclass(frozen=True)
class TrainingConfig:
    """One training stage: section `pretrain` or `train` of a profile, with the profile's and the shared `training`.

    Attributes:
        init_from: path of a checkpoint (or resume state) whose weights the stage starts from, as far as they fit
            (`training/initial.py`); `none`: pretraining from ImageNet's weights, main training from pretraining's.
        epochs: number of epochs; 0: the stage gives the weights it starts from.
        steps_per_epoch: optimizer steps per epoch; 0: enough to draw as many clips as there are videos.
        batch: clips per step over all processes.
        optimizer: `adam`; `adamw` with decoupled weight decay; or `muon`: Muon for the kernels between features (all
            but the stems and the last layer), AdamW for the rest, both with `lr`; from random weights it needs about
            half as many steps (not in the paper).
        lr: initial learning rate.
        beta1: decay of the first moment.
        beta2: decay of the second moment.
        weight_decay: weight decay.
        schedule: `step`: multiply by `decay_factor` after `decay_epoch` epochs; `cosine`: decays to zero.
        decay_epoch: see `schedule`.
        decay_factor: see `schedule`.
        warmup_steps: linear warm-up of the learning rate.
        clip_norm: largest gradient norm; 0: not clipped.
        ema_decay: share of the exponential moving average of the weights that each step keeps; the checkpoint has the
            average. 0: no average, the checkpoint has the last weights (the paper mentions no average).
        skip_start: largest number of frames skipped between two frames of a clip in the first epoch.
        skip_end: the same in the last epoch; it grows linearly between.
        davis_share: share of the clips drawn from DAVIS if there are several sources; 0: in proportion to numbers of
            videos.
        stills_share: in main training, share of the clips that are drawn from stills (`live`) in addition to real
            videos; pretraining draws all of its clips from stills.
        lovasz_weight: weight of the Lovász loss; the cross-entropy has weight 1.
        carried_weight: weight of an auxiliary cross-entropy on the masks that the attention copies from the memory (not
            in the paper).
        validate_every: epochs between two validations: J&F of a few val videos by the inference code; 0: never.
        validate_videos: number of these videos.
        keep: the weights that the stage gives: `last`, or the `best` of those that were validated.
        precision: `bf16` autocast (on a GPU without bfloat16: `fp16`), `fp16` autocast with a scaled loss, or `fp32`.
        compiled: both backbones and the decoder go through torch.compile; on a GPU with few clips per process a step is
            limited by the number of its kernels, of which this makes fewer. Changes the result by rounding.
        clips: shape and augmentation of a clip.
    """

    init_from: str
    epochs: int
    steps_per_epoch: int
    batch: int
    optimizer: Literal["adam", "adamw", "muon"]
    lr: float
    beta1: Annotated[float, Range(0, 1, below=True)]
    beta2: Annotated[float, Range(0, 1, below=True)]
    weight_decay: NonNegative
    schedule: Literal["step", "cosine"]
    decay_epoch: Natural
    decay_factor: Positive
    warmup_steps: int
    clip_norm: NonNegative
    ema_decay: float
    skip_start: int
    skip_end: int
    davis_share: float
    stills_share: float
    lovasz_weight: NonNegative
    carried_weight: NonNegative
    validate_every: Natural
    validate_videos: Count
    keep: Literal["last", "best"]
    precision: Literal["bf16", "fp16", "fp32"]
    compiled: bool
    clips: ClipConfig

    def __post_init__(self) -> None:
        for name, low in (("epochs", 0), ("batch", 1), ("steps_per_epoch", 0), ("skip_start", 0), ("warmup_steps", 0)):
            if getattr(self, name) < low:
                raise UserError(
                    f"training: {name} is {getattr(self, name)}; expected at least {low}; correct params.yaml"
                )
        if self.skip_end < self.skip_start:
            raise UserError(f"training: skip_end is {self.skip_end}; expected at least skip_start ({self.skip_start})")
        if self.keep == "best" and not self.validate_every:
            raise UserError(
                "training: keep is best with validate_every 0; expected validations to compare; set validate_every or "
                "keep last in params.yaml"
            )
        if self.lr <= 0:
            raise UserError(f"training: lr is {self.lr}; expected more than 0; correct params.yaml")
        if not 0 <= self.ema_decay < 1:
            raise UserError(f"training: ema_decay is {self.ema_decay}; expected a number in [0, 1)")
        for name in ("davis_share", "stills_share"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(
                    f"training: {name} is {getattr(self, name)}; expected a number in [0, 1); correct params.yaml"
                )
