"""New clips drawn from stills each time, as a source of training clips."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from pipeline.core.errors import UserError
from pipeline.core.layout import Layout
from pipeline.core.manifest import is_empty
from pipeline.core.runtime import log
from pipeline.core.stills import StillSource
from pipeline.datasets.clips import Clip
from pipeline.datasets.config import ClipConfig
from pipeline.datasets.msra10k import open_msra10k
from pipeline.datasets.voc import open_voc
from pipeline.live.clip import Still, draw_live
from pipeline.live.config import LiveConfig


def _open_coco(raw: Path) -> StillSource:
    from pipeline.datasets.coco import open_coco  # needs pycocotools, which is not required if COCO is switched off

    return open_coco(raw)


READERS: dict[str, Callable[[Path], StillSource]] = {"msra10k": open_msra10k, "coco": _open_coco, "voc": open_voc}


class LiveClips:
    """A source that composes each clip from stills; see `ClipMaker`.

    Args:
        sets: the stills.
        config: settings of the clips.
        share: share of the samples from this source, in (0, 1]; None: in proportion to the number of images.
    """

    def __init__(self, sets: list[StillSource], config: LiveConfig, share: float | None) -> None:
        self.name = "stills of " + ", ".join(stills.name for stills in sets)
        self.share = share
        self._config = config
        self._images = [(stills, image) for stills in sets for image in stills.images]

    @property
    def count(self) -> int:
        """Number of images."""
        return len(self._images)

    def draw(self, rng: np.random.Generator, config: ClipConfig, max_skip: int) -> Clip | None:
        """Draw a clip.

        Args:
            rng: everything random is drawn from it.
            config: its shape; of the augmentation only the crop is used, because `live` has its own.
            max_skip: not used; the motion is drawn per frame of the clip.

        Returns:
            The clip, or None if an image has no usable object or an object is not visible in the first frame.
        """
        used: list[str] = []
        pick = partial(_pick, self._images, used)
        drawn = draw_live(
            rng,
            pick,
            self._config,
            side=config.augment.crop,
            n_frames=config.n_frames,
            max_objects=config.max_objects,
        )
        if drawn is None:
            return None
        frames = np.ascontiguousarray(np.stack(drawn.frames).transpose(0, 3, 1, 2))
        return Clip(frames, None, np.stack(drawn.masks), drawn.n_objects, "+".join(used))


def _pick(images: list[tuple[StillSource, str]], used: list[str], rng: np.random.Generator) -> Still:
    stills, image = images[int(rng.integers(len(images)))]
    used.append(f"{stills.name}/{image}")
    found = stills.instances(image)
    return Still(stills.image(image), found.masks, found.void)


def open_live(layout: Layout, config: LiveConfig, depth: bool, share: float | None) -> LiveClips:
    """Clips of all stills that are not switched off.

    Args:
        layout: paths of the profile.
        config: settings of the clips.
        depth: whether the network takes depth.
        share: share of the samples from this source; None: in proportion to the number of images.

    Raises:
        UserError: the network takes depth, or there are no stills.
    """
    if depth:
        raise UserError(
            f"model.depth is true with profiles.{layout.profile}.live.use; expected only one of them, because depth is "
            "estimated only for stored clips; set model.depth or live.use to false"
        )
    sets = [READERS[name](layout.raw(name)) for name in READERS if not is_empty(layout.raw(name))]
    if not sets:
        raise UserError(
            f"no stills in {layout.data / 'raw'}; expected some of {', '.join(READERS)}; set one of "
            f"profiles.{layout.profile}.data.{{msra10k,coco,voc}} to other than none"
        )
    for stills in sets:
        log(f"{stills.name}: {len(stills.images)} images, from which new clips are drawn each time")
    return LiveClips(sets, config, share)
