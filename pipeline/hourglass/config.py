"""Settings of the depth network, its training and its use; params.yaml is their only source."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pipeline.core.params import Seed, require

STRIDE = 16
"""The innermost level works at this fraction of the stem's resolution, so sides are multiples of it."""

Precision = Literal["fp32", "bf16"]


def _require_percentiles(low: float, high: float, section: str) -> None:
    key = f"{section}.percentile_low and percentile_high"
    require(0 <= low < high <= 100, key, f"{low} and {high}", "0 <= low < high <= 100")


def _require_steady(keep: float, section: str) -> None:
    require(0 <= keep < 1, f"{section}.steady", keep, "a number in [0, 1)")


@dataclass(frozen=True)
class HourglassConfig:
    """Architecture of the depth network, and the size of its frames.

    Attributes:
        width: multiplier of every layer's channels (published: 1.0).
        stem_stride: stride of the first convolution, 1 or 2 (published: 1); the output is smaller by this factor.
        input_height: height of the network's input in pixels, a multiple of 16 x stem_stride (published: 288).
        input_width: likewise its width (published: 512). A frame with another aspect ratio gets about the same area.
    """

    width: float
    stem_stride: int
    input_height: int
    input_width: int

    @property
    def multiple(self) -> int:
        """Both sides of the input are multiples of this."""
        return STRIDE * self.stem_stride

    def __post_init__(self) -> None:
        require(0 < self.width <= 4, "hourglass.width", self.width, "a number above 0, at most 4")
        require(self.stem_stride in (1, 2), "hourglass.stem_stride", self.stem_stride, "1 or 2")
        for key in ("input_height", "input_width"):
            side = getattr(self, key)
            fits = side > 0 and side % self.multiple == 0
            require(fits, f"hourglass.{key}", side, f"a positive multiple of {self.multiple}")


@dataclass(frozen=True)
class DepthLossConfig:
    """Weights of the three loss terms (Li et al., CVPR 2019).

    Attributes:
        data: scale-invariant squared error of log-depth (published: 1.0).
        gradient: multi-scale gradient matching (published: 0.75).
        first_order: edge-aware smoothness of first order (published: 0.075), halved at each scale.
        second_order: edge-aware smoothness of second order (published: 0.1), halved at each scale.
        scales: number of scales, each half of the previous one (published: 5).
    """

    data: float
    gradient: float
    first_order: float
    second_order: float
    scales: int

    def __post_init__(self) -> None:
        for key in ("data", "gradient", "first_order", "second_order"):
            require(getattr(self, key) >= 0, f"train_depth.loss.{key}", getattr(self, key), "a number of at least 0")
        require(1 <= self.scales <= 8, "train_depth.loss.scales", self.scales, "1 to 8")


@dataclass(frozen=True)
class DepthAugmentConfig:
    """Augmentation, drawn once per training frame.

    Attributes:
        flip: mirror half of the frames.
        zoom: enlarge by a factor uniform in [1, zoom] and crop a random part of the original size.
        jitter: strength j of brightness and contrast changes, factors in [1 - j, 1 + j].
    """

    flip: bool
    zoom: float
    jitter: float

    def __post_init__(self) -> None:
        require(1 <= self.zoom <= 4, "train_depth.augment.zoom", self.zoom, "1.0 to 4.0")
        require(0 <= self.jitter < 1, "train_depth.augment.jitter", self.jitter, "a number in [0, 1)")


@dataclass(frozen=True)
class DepthValidationConfig:
    """How the estimate is evaluated on the validation split.

    Attributes:
        pairs: pairs of points drawn from each frame.
        min_ratio: pairs whose depths differ by less than this factor are left out.
        still_change: a pixel is static if its colour changes by less than this (mean of the channels, of 1.0) and its
            true depth by less than 1% from one frame to the next.
        steady: like `depth.steady`, for the change of static pixels.
        percentile_low: percentile of the inverse depth that becomes 0 when the change of static pixels is measured.
        percentile_high: percentile that becomes 1.
        warn_si_rmse: if the error is above this, the stage ends with a warning; 0: no check.
        warn_ordered_pairs: the same if the share of ordered pairs is below this; 0: no check.
    """

    pairs: int
    min_ratio: float
    still_change: float
    steady: float
    percentile_low: float
    percentile_high: float
    warn_si_rmse: float
    warn_ordered_pairs: float

    def __post_init__(self) -> None:
        require(self.pairs >= 1, "train_depth.validation.pairs", self.pairs, "at least 1")
        require(self.min_ratio >= 1, "train_depth.validation.min_ratio", self.min_ratio, "at least 1.0")
        require(self.still_change > 0, "train_depth.validation.still_change", self.still_change, "a number above 0")
        for key in ("warn_si_rmse", "warn_ordered_pairs"):
            require(getattr(self, key) >= 0, f"train_depth.validation.{key}", getattr(self, key), "at least 0")
        _require_steady(self.steady, "train_depth.validation")
        _require_percentiles(self.percentile_low, self.percentile_high, "train_depth.validation")


@dataclass(frozen=True)
class TrainDepthConfig:
    """Training of the depth network, or the source of its weights.

    Attributes:
        checkpoint: `none` to train on the RGB and depth of `data.mannequin`; otherwise path or URL of a checkpoint (the
            published one, or one of ours), used without training.
        seed: of the initial weights, the order of the frames, the augmentation and the validation points.
        epochs: passes over the training frames.
        batch: frames in a step (published: 8).
        replicas: parts of a batch that run in parallel, each with its own batch statistics. On a CPU, several threads
            with one core each are faster than one computation on all cores (published: 1).
        optimizer: `adam` (published), or `muon`: Muon for the convolutions before the heads, Adam for the rest. It
            needs about half the steps, which matters in short trainings.
        lr: learning rate of Adam (published: 4.0e-4).
        muon_lr: learning rate of Muon: size of a step relative to an orthogonal matrix.
        warmup_steps: steps over which the learning rate rises linearly (published: 0).
        schedule: `halve` every `halve_every` epochs (published), or `cosine` to zero.
        halve_every: epochs between halvings (published: 8).
        ema_decay: the result is an exponential moving average of the weights; each step keeps this share of it, in [0,
            1).
            0: the weights of the last step (published).
        statistics_batches: largest number of batches over which BatchNorm's statistics are recomputed, before the
            frozen epochs or else at the end; 0: the running statistics of training are kept (published).
        statistics_batch: frames in each of these batches, a multiple of `batch`. Small batches miss the variance
            between frames.
        frozen_epochs: last epochs, trained with the recomputed statistics instead of each batch's own, as the network
            is used afterwards; 0: none (published).
        precision: `bf16` trains under autocast, `fp32` without. On a CPU without bfloat16 instructions both compute in
            float32, which is several times faster there.
        loss: the weights of the loss.
        augment: the augmentation.
        validation: how the result is evaluated.
    """

    checkpoint: str
    seed: Seed
    epochs: int
    batch: int
    replicas: int
    optimizer: Literal["adam", "muon"]
    lr: float
    muon_lr: float
    warmup_steps: int
    schedule: Literal["halve", "cosine"]
    halve_every: int
    ema_decay: float
    statistics_batches: int
    statistics_batch: int
    frozen_epochs: int
    precision: Precision
    loss: DepthLossConfig
    augment: DepthAugmentConfig
    validation: DepthValidationConfig

    def __post_init__(self) -> None:
        for key in ("epochs", "batch", "replicas", "halve_every"):
            require(getattr(self, key) >= 1, f"train_depth.{key}", getattr(self, key), "at least 1")
        fits = self.batch % self.replicas == 0
        require(fits, "train_depth.batch", self.batch, f"a multiple of train_depth.replicas ({self.replicas})")
        require(self.lr > 0, "train_depth.lr", self.lr, "a number above 0")
        require(self.muon_lr > 0, "train_depth.muon_lr", self.muon_lr, "a number above 0")
        for key in ("warmup_steps", "statistics_batches", "frozen_epochs"):
            require(getattr(self, key) >= 0, f"train_depth.{key}", getattr(self, key), "at least 0")
        fits = self.statistics_batch >= 1 and self.statistics_batch % self.batch == 0
        accepted = f"a multiple of train_depth.batch ({self.batch})"
        require(fits, "train_depth.statistics_batch", self.statistics_batch, accepted)
        fits = self.frozen_epochs == 0 or (self.frozen_epochs < self.epochs and self.statistics_batches > 0)
        accepted = "0, or fewer than train_depth.epochs with train_depth.statistics_batches above 0"
        require(fits, "train_depth.frozen_epochs", self.frozen_epochs, accepted)
        accepted = "a number in [0, 1); 0 for no average"
        require(0 <= self.ema_decay < 1, "train_depth.ema_decay", self.ema_decay, accepted)


@dataclass(frozen=True)
class DepthConfig:
    """A depth map for every frame.

    Attributes:
        estimator: `hourglass`, or `folder` for the user's own depth maps.
        folder: with `folder`: their path, `<folder>/<dataset>/<video>/<frame>.png`; else `none`.
        folder_holds: what their values are: `depth` (large is far) or `inverse_depth` (large is near).
        batch: frames that the network processes together.
        precision: `bf16` or `fp32` arithmetic of the network; float32 also for `bf16` on a CPU without bfloat16
            instructions.
        steady: smoothing of a video's jittering scale: share of a correction that is kept from frame to frame, in [0,
            1);
            0: off (see `pipeline/hourglass/scale_smoothing.py`). A user's own maps are not smoothed.
        percentile_low: percentile of a video's inverse depth that becomes 0.
        percentile_high: percentile that becomes 1.
        store: size of the stored maps: `network`, the size of the network's output (or of the user's map) where that is
            smaller than the frame, enlarged where it is read; `frame`, the frame's size. The enlarged map differs from
            the stored one only by the rounding to 16 bits, and takes a fraction of the space.
        bits: precision of the stored maps: about 2^bits steps over the video's range. 16 keeps the estimate's noise.
            With 10 the error is at most 0.0005, about that of bfloat16, and the maps take half of the space.
        shard_frames: approximate number of frames in a shard; a video is never split.
    """

    estimator: Literal["hourglass", "folder"]
    folder: str
    folder_holds: Literal["depth", "inverse_depth"]
    batch: int
    precision: Precision
    steady: float
    percentile_low: float
    percentile_high: float
    store: Literal["network", "frame"]
    bits: int
    shard_frames: int

    def __post_init__(self) -> None:
        require(self.batch >= 1, "depth.batch", self.batch, "at least 1")
        require(8 <= self.bits <= 16, "depth.bits", self.bits, "8 to 16")
        require(self.shard_frames >= 1, "depth.shard_frames", self.shard_frames, "at least 1")
        _require_steady(self.steady, "depth")
        _require_percentiles(self.percentile_low, self.percentile_high, "depth")
        fits = (self.folder != "none") == (self.estimator == "folder")
        require(fits, "depth.folder", self.folder, "a path if depth.estimator is folder, otherwise none")
