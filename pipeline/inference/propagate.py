"""Masks for a whole video: one scale, or several scales and flips that advance together and are averaged."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.core.errors import UserError
from pipeline.core.images import VOID
from pipeline.core.runtime import log
from pipeline.dstm.network import DSTM
from pipeline.inference.budget import Work, make_plan
from pipeline.inference.config import InferConfig, InferSwitches
from pipeline.inference.track import Track


class Frame(NamedTuple):
    """A frame as it is read.

    Attributes:
        rgb: uint8 H,W,3.
        depth: float32 H,W normalised inverse depth in [0, 1]; None for a network without depth.
    """

    rgb: NDArray[np.uint8]
    depth: NDArray[np.float32] | None


def propagate(
    network: DSTM,
    frames: Iterable[Frame],
    masks: Mapping[int, NDArray[np.uint8]],
    switches: InferSwitches,
    config: InferConfig,
    device: torch.device,
    share: float = 1.0,
) -> Iterator[NDArray[np.uint8]]:
    """Segment a video frame by frame; frames are taken as they are needed, at most `config.lookahead` at a time.

    Args:
        network: in evaluation mode, on `device`; what `prepare` makes of it is fastest and sets the precision.
        frames: the video, all of one size.
        masks: frame index -> uint8 H,W ids of the objects that appear there (0 background and 255 void, both of which
            leave the estimate as it is). Before the first of them nothing is segmented.
        switches: `tta`.
        config: memory and scales.
        device: where the network is.
        share: of `config.memory_gb` that this video may use.

    Yields:
        The mask of each frame, uint8 H,W ids; where a mask was given, the given objects as given.

    Raises:
        UserError: no object in the masks, a mask or a frame of another size than the first frame, a mask past the end,
            or a budget too small for the video.
    """
    source = iter(frames)
    first = next(source, None)
    run = _Run(network, masks, switches, config, device)
    if first is not None:
        lookahead = run.open(first.rgb.shape[0], first.rgb.shape[1], share)
        source = chain([first], source)
        del first  # so that it goes when it is done
        while ahead := list(islice(source, lookahead)):
            yield from run.advance(ahead)
    run.close()


class _Run:
    """State of one video."""

    def __init__(
        self,
        network: DSTM,
        masks: Mapping[int, NDArray[np.uint8]],
        switches: InferSwitches,
        config: InferConfig,
        device: torch.device,
    ) -> None:
        self._network, self._config = network, config
        self._scales, self._flip = (config.scales, config.flip) if switches.tta else ((1.0,), False)
        self._tracks: list[Track] = []
        self._views = len(self._scales) * (1 + self._flip)
        self._averaged = config.tta_memory == "averaged"
        self._depth = network.switches.depth
        self._device = device
        self._given = dict(masks)
        self._ids = np.unique(
            np.concatenate([np.array([0, VOID], np.uint8), *(m.ravel() for m in self._given.values())])
        )
        self._ids = self._ids[:-1]  # 0 and the objects' ids, ascending: a slot's number is its place here
        if len(self._ids) < 2:
            raise UserError(
                "the masks hold no object; expected at least one id from 1 to 254; draw the objects in the mask"
            )
        self._id_of_slot = torch.from_numpy(self._ids).to(device)
        self._seen = np.zeros(len(self._ids) - 1, bool)
        self._size = (0, 0)
        self._index = 0
        self._slots = 0
        self._told = False

    def open(self, height: int, width: int, share: float) -> int:
        """Prepare for frames of a size; returns how many to advance at a time."""
        self._size = (height, width)
        work = Work(height, width, len(self._seen), self._scales, 1 + self._flip)
        plan = make_plan(self._network, self._config, work, self._device, share)
        self._tracks = [
            Track(self._network, scale, self._flip, self._config, plan, self._device) for scale in self._scales
        ]
        self._slots = plan.slots
        return plan.lookahead

    def advance(self, frames: list[Frame]) -> Iterator[NDArray[np.uint8]]:
        """Masks of the next frames."""
        for i, frame in enumerate(frames, start=self._index):
            self._check(i, frame)
        with torch.inference_mode():
            self._load(frames)
            labels = torch.stack([self._step() for _ in frames])  # one copy off the device for all of them
        self._tell()
        yield from labels.cpu().numpy()  # outside the modes of torch, which a generator must not hold across a yield

    def close(self) -> None:
        """Check at the end that no mask is left over."""
        if self._given:
            raise UserError(
                f"a mask is given for frame {min(self._given)}, but the video has {self._index} frames (0 to "
                f"{self._index - 1}); give the index of one of them"
            )

    def _tell(self) -> None:
        """Say once that the budget, not `memory_frames`, made frames leave the memory."""
        if not self._told and self._slots != self._config.memory_frames and any(t.thinned for t in self._tracks):
            self._told = True
            log(f"frame {self._index}: infer.memory_gb has room for {self._slots} remembered frames: thinned from here")

    def _check(self, index: int, frame: Frame) -> None:
        size = frame.rgb.shape[:2]
        if size != self._size:
            raise UserError(
                f"frame {index} is {_show(size)}, the first one {_show(self._size)}; expected one size; convert it"
            )
        if self._depth and frame.depth is None:
            raise UserError(
                f"frame {index} has no depth map; expected one, since the network takes depth; make it first"
            )
        if self._depth and frame.depth is not None and frame.depth.shape != size:
            raise UserError(
                f"the depth map of frame {index} is {_show(frame.depth.shape)}, its frame {_show(size)}; expected the "
                "same size; run the depth stage again"
            )
        mask = self._given.get(index)
        if mask is not None and mask.shape != size:
            raise UserError(
                f"the mask of frame {index} is {_show(mask.shape)}, its frame {_show(size)}; expected the same size; "
                "resize the mask without smoothing"
            )

    def _load(self, frames: list[Frame]) -> None:
        rgb = torch.from_numpy(np.stack([f.rgb for f in frames])).to(self._device)
        planes = rgb.permute(0, 3, 1, 2).float() / 255  # L,3,H,W
        depth = None
        if self._depth:
            maps = [f.depth for f in frames if f.depth is not None]
            depth = torch.from_numpy(np.stack(maps)).to(self._device)[:, None]  # L,1,H,W
        skip = 0
        if not self._seen.any():  # up to and including the first given mask there is nothing to segment
            skip = next((i + 1 for i in range(len(frames)) if self._index + i in self._given), len(frames))
        for track in self._tracks:
            track.look_ahead(planes, depth, skip)

    def _step(self) -> Tensor:
        """Label map of the next frame, uint8 H,W on the device."""
        index, given = self._index, self._given.pop(self._index, None)
        self._index += 1
        slots = None if given is None else self._appearing(given)
        estimates = self._segment() if self._seen.any() else None
        if slots is not None:
            self._seen |= np.isin(np.arange(1, len(self._ids)), slots.cpu().numpy())
        if not self._seen.any():
            for track in self._tracks:
                track.skip()
            return torch.zeros(self._size, dtype=torch.uint8, device=self._device)
        average = self._average(estimates)
        masks = average if slots is None else _paint(average, slots)
        for i, track in enumerate(self._tracks):
            if estimates is None or self._averaged:
                own = track.to_views(masks, nearest=estimates is None)
            elif slots is None:
                own = estimates[i]
            else:
                own = _paint(estimates[i], track.to_views(slots[None, None].float(), nearest=True)[:, 0].long())
            track.finish(index, own, given=slots is not None)
        return self._id_of_slot[masks[0].max(dim=0).indices]  # on a CPU seven times as fast as argmax

    def _appearing(self, mask: NDArray[np.uint8]) -> Tensor:
        """H,W int64 numbers of the object slots that a given mask fills; 0 where it says nothing."""
        known = np.where(mask == VOID, 0, mask)
        return torch.from_numpy(np.searchsorted(self._ids, known)).to(self._device)

    def _segment(self) -> list[Tensor]:
        objects = None if self._seen.all() else torch.from_numpy(self._seen).to(self._device)
        return [track.segment(objects) for track in self._tracks]

    def _average(self, estimates: list[Tensor] | None) -> Tensor:
        """1,K+1,H,W float32 mean over all views; all background before the first estimate."""
        if estimates is None:
            everywhere = torch.zeros(self._size, dtype=torch.int64, device=self._device)
            return _one_hot(everywhere, len(self._ids))
        total = sum(track.from_views(e, *self._size) for track, e in zip(self._tracks, estimates))
        assert isinstance(total, Tensor)
        return total[None] / self._views


def _one_hot(slots: Tensor, classes: int) -> Tensor:
    """...,H,W numbers to N,K+1,H,W float32."""
    numbers = torch.arange(classes, device=slots.device)[:, None, None]
    planes = (slots[..., None, :, :] == numbers).float()
    return planes if planes.ndim == 4 else planes[None]


def _paint(probabilities: Tensor, slots: Tensor) -> Tensor:
    """Overwrite B,K+1,H,W probabilities with certainty where slots (H,W or B,H,W) name an object."""
    certain = _one_hot(slots, probabilities.shape[1])
    where = (slots > 0)[None, None] if slots.ndim == 2 else (slots > 0)[:, None]
    return torch.where(where, certain, probabilities)


def _show(size: tuple[int, ...]) -> str:
    return "x".join(str(side) for side in reversed(size))
