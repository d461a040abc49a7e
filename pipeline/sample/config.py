"""Parameters of the rendered sample (section `world` of params.yaml)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pipeline.core.params import Count, Natural, NonNegative, Positive, Range, Seed, Share


@dataclass(frozen=True)
class DifficultyConfig:
    """How difficult the scenes are.

    Attributes:
        speed: mean movement across the image, in widths of the object per DAVIS frame.
        depth_motion: amplitude of the movement in depth, as a change of log depth.
        turn: mean turning speed, radians per DAVIS frame.
        deformation: amplitude of the changing part of an outline, in radii.
        object_saturation: saturation of the objects' colours, in [0, 1].
        background_saturation: saturation of ground, backdrop and clutter, in [0, 1].
        background_contrast: strength of the textures of ground, backdrop and clutter, in [0, 1].
        clutter: mean number of unlabelled things that stand still in a scene.
        distractors: mean number of unlabelled things that move in a scene.
        haze: attenuation per unit of depth; a share of exp(-haze * depth) of a colour is left.
        defocus: blur at infinity, in pixels of an image 144 pixels high.
        camera: amplitude of the camera's sideways path, in units of its height above the ground.
        noise: standard deviation of the sensor's noise, in grey levels of 255.
        lookalike_match: 0: look-alikes have the same true size; 1: the same size in the image, which hides their depth.
    """

    speed: NonNegative
    depth_motion: NonNegative
    turn: NonNegative
    deformation: NonNegative
    object_saturation: Share
    background_saturation: Share
    background_contrast: Share
    clutter: Annotated[float, Range(0, 1000)]
    distractors: Annotated[float, Range(0, 1000)]
    haze: NonNegative
    defocus: Annotated[float, Range(0, 1000)]
    camera: NonNegative
    noise: Annotated[float, Range(0, 255)]
    lookalike_match: Share


@dataclass(frozen=True)
class KindCounts:
    """Number of videos of each kind."""

    single: Natural
    multi: Natural
    lookalike: Natural


@dataclass(frozen=True)
class DavisCounts:
    """The sample's DAVIS: numbers of videos, each of `frames` frames."""

    train: KindCounts
    val: KindCounts
    frames: Count


@dataclass(frozen=True)
class YouTubeVosCounts:
    """The sample's YouTube-VOS.

    Attributes:
        train: number of videos.
        frames: stored (and annotated) frames of each, numbered 00000, 00005, ...
        step: time between two stored frames, in DAVIS frames.
        late_share: share of the videos in which an object enters later.
    """

    train: KindCounts
    frames: Count
    step: Positive
    late_share: Share


@dataclass(frozen=True)
class StillCounts:
    """Number of still images of each set."""

    msra10k: Natural
    coco: Natural
    voc: Natural


@dataclass(frozen=True)
class MannequinCounts:
    """Videos with depth: many short ones, which train better than a few long ones, and longer ones that show flicker.

    Attributes:
        train: number of training videos.
        val: number of validation videos.
        train_frames: frames of a training video.
        val_frames: frames of a validation video.
        step: time between two frames, in DAVIS frames.
    """

    train: KindCounts
    val: KindCounts
    train_frames: Count
    val_frames: Count
    step: Positive


@dataclass(frozen=True)
class WorldConfig:
    """The rendered sample.

    Attributes:
        seed: the seed of every scene derives from it.
        frame_height: rows of a frame.
        frame_width: columns of a frame.
        jpeg_quality: quality of the frames.
        min_pixels: smallest number of visible pixels of an object in the frame where it first appears.
        difficulty: which of the two mappings below is used.
        gentle: scenes that a small network learns in minutes.
        hard: faster, less colourful objects in front of busier backgrounds.
        davis: numbers of the sample's DAVIS.
        youtubevos: numbers of the sample's YouTube-VOS.
        stills: numbers of the sample's MSRA10K, COCO and VOC.
        mannequin: numbers of the RGB + depth set.
    """

    seed: Seed
    frame_height: Annotated[int, Range(16, 8192)]
    frame_width: Annotated[int, Range(16, 8192)]
    jpeg_quality: Annotated[int, Range(1, 100)]
    min_pixels: Count
    difficulty: Literal["gentle", "hard"]
    gentle: DifficultyConfig
    hard: DifficultyConfig
    davis: DavisCounts
    youtubevos: YouTubeVosCounts
    stills: StillCounts
    mannequin: MannequinCounts

    @property
    def level(self) -> DifficultyConfig:
        """The difficulty chosen by `difficulty`."""
        return self.hard if self.difficulty == "hard" else self.gentle
