"""Training clips: a few ordered frames of a video with depth and masks, sampled, augmented and batched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.core.errors import UserError
from pipeline.core.images import VOID, object_ids
from pipeline.datasets.config import ClipConfig
from pipeline.datasets.depth_input import DepthInput
from pipeline.datasets.transforms import View, draw_view
from pipeline.datasets.video import Video, VideoSource

_MAX_DRAWS = 200  # clips without object in the first frame, before the data is refused


@dataclass
class Clip:
    """T frames of one video.

    Attributes:
        frames: uint8 T,3,H,W, RGB.
        depth: float32 T,1,H,W in [0, 1], inverse depth (1 near); None if no depth is read.
        masks: uint8 T,H,W; 0 background, 1..n_objects, 255 void. Every object is visible in the first frame.
        n_objects: number of objects.
        name: which data it shows, for messages.
    """

    frames: NDArray[np.uint8]
    depth: NDArray[np.float32] | None
    masks: NDArray[np.uint8]
    n_objects: int
    name: str = ""


class ClipMaker(Protocol):
    """A source of clips."""

    @property
    def name(self) -> str:
        """Name of the data set, for messages."""
        ...

    @property
    def count(self) -> int:
        """Number of its videos or images; sources without a share divide the rest in proportion to it."""
        ...

    @property
    def share(self) -> float | None:
        """Share of the samples from this source, in (0, 1]; None: in proportion to the count."""
        ...

    def draw(self, rng: np.random.Generator, config: ClipConfig, max_skip: int) -> Clip | None:
        """Draw a clip; None if its first frame shows no object."""
        ...


@dataclass(frozen=True)
class ClipSource:
    """One data set of videos from which clips are drawn.

    Attributes:
        videos: the annotated videos.
        depth: their depth maps, or None: no depth is read.
        share: share of the samples from this source, in (0, 1]; None: sources without a share divide the rest in
            proportion to their numbers of videos.
        skips: whether frames may be skipped; False for simulated videos, whose frames have no frame rate.
    """

    videos: VideoSource
    depth: DepthInput | None
    share: float | None
    skips: bool

    @property
    def name(self) -> str:
        """Name of the data set, for messages."""
        return self.videos.name

    @property
    def count(self) -> int:
        """Number of videos."""
        return len(self.videos.videos)

    def draw(self, rng: np.random.Generator, config: ClipConfig, max_skip: int) -> Clip | None:
        """Draw one augmented clip.

        Args:
            rng: source of all randomness: the same seed gives the same clip.
            config: shape and augmentation of the clip.
            max_skip: largest number of frames left out between two frames of the clip, counted in annotated frames.

        Returns:
            The clip, or None if its first frame shows no object.

        Raises:
            UserError: unreadable files, or frames of one video that differ in size.
        """
        video = self.videos.videos[rng.integers(len(self.videos.videos))]
        frame_ids = draw_frames(rng, video.annotated, config.n_frames, max_skip if self.skips else 0)
        first = self.videos.mask(video, frame_ids[0])
        present = object_ids(first)
        if not present:
            return None
        view = draw_view(rng, config.augment, first, present, len(frame_ids))
        shown = object_ids(view.mask(first, 0))
        if not shown:  # a tiny object between the sampled pixels
            return None
        n_chosen = min(len(shown), config.max_objects)
        chosen = sorted(int(i) for i in rng.choice(shown, n_chosen, replace=False))
        return _read_clip(self, video, frame_ids, first, view, chosen)


@dataclass
class Batch:
    """B clips as tensors: in storage types after `collate`, in the network's types after `to`.

    Attributes:
        frames: uint8 B,T,3,H,W, or float32 in [0, 1] after `to`.
        depth: float32 B,T,1,H,W in [0, 1]; None if no clip has depth.
        labels: uint8 B,T,H,W, int64 after `to`; 0 background, 1..K, 255 void.
        objects: bool B,K: which of the K object slots of a clip are in use (always the first ones); on the CPU, so that
            nothing waits for the device to know how much there is to do.
        names: of the clips, for messages.
    """

    frames: torch.Tensor
    depth: torch.Tensor | None
    labels: torch.Tensor
    objects: torch.Tensor
    names: tuple[str, ...] = ()

    def pin_memory(self) -> Batch:
        """A copy in page-locked memory, from which a GPU copies while it computes."""
        depth = None if self.depth is None else self.depth.pin_memory()
        return Batch(self.frames.pin_memory(), depth, self.labels.pin_memory(), self.objects, self.names)

    def parts(self, count: int) -> list[Batch]:
        """The batch in parts of `count` clips; the last one has the rest."""
        starts = range(0, len(self.objects), count)
        return [self._part(slice(start, start + count)) for start in starts]

    def _part(self, which: slice) -> Batch:
        depth = None if self.depth is None else self.depth[which]
        return Batch(self.frames[which], depth, self.labels[which], self.objects[which], self.names[which])

    def to(self, device: torch.device) -> Batch:
        """The batch on a device, in the types of the network and the losses; transferred as bytes, not floats."""
        frames = self.frames.to(device, non_blocking=True).float().div_(255)
        depth = None if self.depth is None else self.depth.to(device, non_blocking=True)
        labels = self.labels.to(device, non_blocking=True).long()
        return Batch(frames, depth, labels, self.objects, self.names)


class ClipDataset:
    """Draws augmented clips from several sources; safe to use from several threads and forked processes.

    Args:
        sources: of the clips.
        config: shape and augmentation of a clip.

    Raises:
        UserError: there is no source, or the shares are inconsistent.
    """

    def __init__(self, sources: Sequence[ClipMaker], config: ClipConfig) -> None:
        self.sources = tuple(sources)
        self.config = config
        self.shares = _share_out(self.sources)
        self._cumulative = np.cumsum(self.shares)

    @property
    def count(self) -> int:
        """Number of videos or images over all sources."""
        return sum(source.count for source in self.sources)

    def sample(self, rng: np.random.Generator, max_skip: int) -> Clip:
        """Draw one clip.

        Args:
            rng: source of all randomness: the same seed gives the same clip.
            max_skip: largest number of frames left out between two frames of the clip, counted in annotated frames;
                each gap is uniform in [0, max_skip], or smaller if the video is too short.

        Raises:
            UserError: unreadable files, or no clip with an object in its first frame in many draws.
        """
        for _ in range(_MAX_DRAWS):
            clip = self.sources[self._draw_source(rng)].draw(rng, self.config, max_skip)
            if clip is not None:
                return clip
        raise UserError(
            f"{_MAX_DRAWS} clips in a row of {', '.join(s.name for s in self.sources)} show no object in their "
            "first frame; expected annotated objects; check the masks"
        )

    def _draw_source(self, rng: np.random.Generator) -> int:
        # the last cumulative share may be rounded to slightly less than 1
        return min(int(np.searchsorted(self._cumulative, rng.random(), side="right")), len(self.sources) - 1)


def _share_out(sources: tuple[ClipMaker, ...]) -> tuple[float, ...]:
    """Share of the samples of each source; they add up to 1."""
    if not sources or not all(s.count for s in sources):
        raise UserError("a source of training clips has no video; expected at least one; check the data sets")
    fixed = [s.share for s in sources if s.share is not None]
    if any(not 0 < share <= 1 for share in fixed) or sum(fixed) > 1 + 1e-9:
        raise UserError(f"shares of the training clips are {fixed}; expected numbers in (0, 1] that sum to at most 1")
    n_open = sum(s.count for s in sources if s.share is None)
    left = 1 - sum(fixed)
    shares = [s.share if s.share is not None else left * s.count / n_open for s in sources]
    return tuple(share / sum(shares) for share in shares)  # if every source has a share, the sum may be less than 1


def draw_frames(rng: np.random.Generator, annotated: tuple[str, ...], n_frames: int, max_skip: int) -> tuple[str, ...]:
    """Draw frame ids of a clip, in temporal order.

    The skips are independent and uniform in [0, max_skip], or up to a smaller limit so that all fit into the video; the
    start is uniform over the remaining positions. In a video shorter than the clip, the last frame is repeated.

    Args:
        rng: source of all randomness.
        annotated: ids of frames that have a mask, in temporal order; at least one.
        n_frames: length of the clip.
        max_skip: largest number of frames left out between two frames of the clip.
    """
    last = len(annotated) - 1
    largest = max(0, min(max_skip, last // (n_frames - 1) - 1))
    steps = 1 + rng.integers(0, largest + 1, n_frames - 1)
    start = int(rng.integers(0, max(0, last - int(steps.sum())) + 1))
    positions = np.minimum(start + np.concatenate([[0], np.cumsum(steps)]), last)
    return tuple(annotated[i] for i in positions)


def _read_clip(
    source: ClipSource,
    video: Video,
    frame_ids: tuple[str, ...],
    first: NDArray[np.uint8],
    view: View,
    chosen: list[int],
) -> Clip:
    """Read, augment and stack; objects not chosen become background, the chosen are numbered from 1."""
    renumber = np.zeros(256, np.uint8)
    renumber[chosen] = np.arange(1, len(chosen) + 1)
    renumber[VOID] = VOID
    n_frames, crop = len(frame_ids), view.crop
    clip = Clip(
        frames=np.empty((n_frames, 3, crop, crop), np.uint8),
        depth=None if source.depth is None else np.zeros((n_frames, 1, crop, crop), np.float32),
        masks=np.empty((n_frames, crop, crop), np.uint8),
        n_objects=len(chosen),
        name=f"{source.name}/{video.name}/{'+'.join(frame_ids)}",
    )
    for index, frame_id in enumerate(frame_ids):
        mask = source.videos.mask(video, frame_id) if index else first
        frame = source.videos.frame(video, frame_id)
        if mask.shape != first.shape or frame.shape[:2] != first.shape:
            raise UserError(
                f"{source.name}: frame {video.name}/{frame_id} is {frame.shape[1]}x{frame.shape[0]}, frame "
                f"{video.name}/{frame_ids[0]} is {first.shape[1]}x{first.shape[0]}; expected one size in a video; "
                "resize them or split the video"
            )
        clip.frames[index] = view.frame(frame, index)
        clip.masks[index] = renumber[view.mask(mask, index)]
        if source.depth is not None and clip.depth is not None:
            depth = source.depth.read(video, frame_id, frame)
            if depth.shape != mask.shape:
                raise UserError(
                    f"{source.videos.name}: depth map {video.name}/{frame_id} is {depth.shape[1]}x{depth.shape[0]}, "
                    f"its frame {mask.shape[1]}x{mask.shape[0]}; expected the same size; rerun the depth stage"
                )
            clip.depth[index] = view.depth(depth, index)
    return clip


def collate(clips: Sequence[Clip], max_objects: int) -> Batch:
    """Stack clips of one shape.

    Args:
        clips: B clips of at most `max_objects` objects each.
        max_objects: K, the number of object slots.

    Raises:
        ValueError: a clip has more objects, or some clips have depth and others none.
    """
    n_objects = torch.tensor([clip.n_objects for clip in clips])
    if int(n_objects.max()) > max_objects:
        raise ValueError(f"a clip has {int(n_objects.max())} objects; the batch has {max_objects} slots")
    depth = [clip.depth for clip in clips if clip.depth is not None]
    if depth and len(depth) != len(clips):
        raise ValueError(f"{len(depth)} of {len(clips)} clips have depth; expected all or none")
    return Batch(
        frames=torch.from_numpy(np.stack([clip.frames for clip in clips])),
        depth=torch.from_numpy(np.stack(depth)) if depth else None,
        labels=torch.from_numpy(np.stack([clip.masks for clip in clips])),
        objects=torch.arange(max_objects)[None] < n_objects[:, None],
        names=tuple(clip.name for clip in clips),
    )
