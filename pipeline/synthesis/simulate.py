"""One clip from a set of segmented stills: which images, which objects, where, and how they move."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.core.stills import StillSource
from pipeline.synthesis.affine import draw_motion, to_matrix
from pipeline.synthesis.compose import paste_colours, paste_labels
from pipeline.synthesis.config import SynthesisConfig
from pipeline.synthesis.layers import OBJECT, VOID, cover, cut_out, frame_shape

TINY = "instances below min_area"
UNUSABLE = "clips of an image without an instance of min_area"
HIDDEN = "clips whose object would not stay visible"
_DRAWS = 10  # attempts to find another image, or positions and motions, before the clip is skipped


class Skipped(NamedTuple):
    """What was left out: the image, the reason, and how many."""

    image: str
    reason: str
    n: int


@dataclass(frozen=True)
class Clip:
    """A simulated clip.

    Attributes:
        image: the image from which its first object comes.
        frames: uint8 H,W,3 RGB each.
        masks: uint8 H,W each; 0 background, 1..n_objects, 255 void.
        n_objects: number of objects, all of them visible in the first frame.
        order: ids of the objects from the farthest to the nearest; a nearer one hides those behind it.
    """

    image: str
    frames: list[NDArray[np.uint8]]
    masks: list[NDArray[np.uint8]]
    n_objects: int
    order: tuple[int, ...]


class _Choice(NamedTuple):
    """An instance of an image that is large enough."""

    image: str
    number: int


def count_clips(stills: StillSource, config: SynthesisConfig) -> int:
    """Number of clips that are attempted."""
    return config.n_clips or len(stills.images)


def simulate(stills: StillSource, index: int, config: SynthesisConfig) -> tuple[Clip | None, list[Skipped]]:
    """Simulate clip `index`; it depends only on the arguments.

    Args:
        stills: the images.
        index: number of the clip.
        config: all settings.

    Returns:
        The clip, or None if its image has no usable object or none stays visible; and what was left out.
    """
    key = zlib.crc32(stills.name.encode())
    order = _image_order(config.seed, key, len(stills.images))
    rng = np.random.default_rng([config.seed, key, 1 + index])
    stills = _Decoded(stills)
    image = stills.images[order[index % len(order)]]
    masks = stills.instances(image).masks
    usable = _usable(masks, config)
    skipped = [Skipped(image, TINY, len(masks) - len(usable))] if len(masks) > len(usable) else []
    if not usable:
        return None, [*skipped, Skipped(image, UNUSABLE, 1)]
    first = _Choice(image, int(rng.choice(usable)))
    in_place = len(stills.images) == 1 or rng.uniform() < config.in_place
    behind = image if in_place else _other(stills, image, rng)
    pasted = [] if in_place else [first]
    for _ in range(int(rng.integers(config.max_objects))):
        extra = _draw_object(stills, {behind}, {first, *pasted}, config, rng)
        if extra is not None:
            pasted.append(extra)
    scene = _Scene(stills, behind, first.number if in_place else None, pasted, config)
    while scene.n_objects > 0:
        for _ in range(_DRAWS):
            clip = scene.draw(image, rng)
            if clip is not None:
                return clip, skipped
        scene.drop_last()
    return None, [*skipped, Skipped(image, HIDDEN, 1)]


@lru_cache(maxsize=4)
def _image_order(seed: int, key: int, n_images: int) -> NDArray[np.int64]:
    """The random order in which clips start from the images; the same for all clips of a data set."""
    return np.random.default_rng([seed, key]).permutation(n_images)


class _Decoded:
    """Stills of which each image and its instances are decoded once while one clip is made."""

    def __init__(self, stills: StillSource) -> None:
        self.name, self.images, self.counts = stills.name, stills.images, stills.counts
        self.image = lru_cache(maxsize=None)(stills.image)
        self.instances = lru_cache(maxsize=None)(stills.instances)


def _usable(masks: NDArray[np.bool_], config: SynthesisConfig) -> list[int]:
    """Numbers of the instances that are large enough."""
    return [n for n, mask in enumerate(masks) if np.count_nonzero(mask) / mask.size >= config.min_area]


def _other(stills: StillSource, image: str, rng: np.random.Generator) -> str:
    """Another image than the given one."""
    at = int(rng.integers(len(stills.images) - 1))
    return stills.images[at] if stills.images[at] != image else stills.images[-1]


def _draw_object(
    stills: StillSource, without: set[str], taken: set[_Choice], config: SynthesisConfig, rng: np.random.Generator
) -> _Choice | None:
    """An instance that is not yet in the clip, of an image other than `without`; None if none is found."""
    for _ in range(_DRAWS):
        image = stills.images[int(rng.integers(len(stills.images)))]
        if image in without:
            continue
        free = [n for n in _usable(stills.instances(image).masks, config) if _Choice(image, n) not in taken]
        if free:
            return _Choice(image, int(rng.choice(free)))
    return None


class _Scene:
    """The layers of a clip. Their positions and motions are drawn again until all objects are visible."""

    def __init__(
        self, stills: StillSource, behind: str, target: int | None, pasted: Sequence[_Choice], config: SynthesisConfig
    ) -> None:
        self._config = config
        self._rgb = stills.image(behind)
        found = stills.instances(behind)
        self._labels = np.where(found.void, VOID, 0).astype(np.uint8)
        self._in_place = target is not None
        if target is not None:
            self._labels[found.masks[target]] = OBJECT
        self._pasted = []
        for choice in pasted:
            instances = stills.instances(choice.image)
            self._pasted.append((stills.image(choice.image), instances.masks[choice.number], instances.void))
        self._frame = frame_shape(self._rgb.shape[0], self._rgb.shape[1], config.short_side)

    @property
    def n_objects(self) -> int:
        return self._in_place + len(self._pasted)

    def drop_last(self) -> None:
        """Try with one object fewer."""
        if self._pasted:
            self._pasted.pop()
        else:
            self._in_place = False

    def draw(self, image: str, rng: np.random.Generator) -> Clip | None:
        """Draw crop, positions, order and motions; None if the first frame does not show every object."""
        config, frame = self._config, self._frame
        layers = [cover(self._rgb, self._labels, frame, config.crop_min, rng)]
        layers += [cut_out(*parts, frame, config.max_area, rng) for parts in self._pasted]
        ids = [int(self._in_place), *(1 + self._in_place + n for n in range(len(self._pasted)))]
        above = [0, *(1 + rng.permutation(len(self._pasted)))]  # the order of pasting decides which object hides which
        layers, ids = [layers[n] for n in above], [ids[n] for n in above]
        motions = [draw_motion(config, rng) for _ in layers]
        matrices = [
            [to_matrix(motion[t], layer.pivot, layer.place, frame) for layer, motion in zip(layers, motions)]
            for t in range(config.n_frames)
        ]
        first = paste_labels(layers, ids, matrices[0], frame)
        for layer, identity, motion in zip(layers, ids, motions):
            whole = layer.area * motion[0].scale ** 2  # rotation and shear keep areas
            seen = int((first == identity).sum())
            if identity and (seen == 0 or seen < config.min_visible * whole):
                return None
        masks = [first, *(paste_labels(layers, ids, m, frame) for m in matrices[1:])]
        order = tuple(identity for identity in ids if identity)
        return Clip(image, [paste_colours(layers, m, frame) for m in matrices], masks, self.n_objects, order)
