"""One pass over a video, frame by frame: one scale, or several scales and flips that advance together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain, islice

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
from pipeline.inference.frames import Found, Frame, Known, shrink, working_size
from pipeline.inference.given import Given, Statement
from pipeline.inference.memory_bank import Schedule
from pipeline.inference.planes import correct, label, one_hot, resize
from pipeline.inference.track import Track


def propagate(
    network: DSTM,
    frames: Iterable[Frame],
    masks: Mapping[int, NDArray[np.uint8]],
    switches: InferSwitches,
    config: InferConfig,
    device: torch.device,
    share: float = 1.0,
    gone: Mapping[int, Iterable[int]] | None = None,
) -> Iterator[NDArray[np.uint8]]:
    """Segment a video frame by frame; frames are read as they are needed, at most `config.lookahead` at a time.

    Args:
        network: in evaluation mode, on `device`; the result of `prepare` is fastest and sets the precision.
        frames: the video; all frames have the same size.
        masks: frame index -> uint8 H,W ids. In its frame, the objects of a mask are exactly as in the mask; new ones
            start there. In pixels with 0 the other objects keep their estimate, in pixels with 255 (void) all do.
            Frames before the first mask are not segmented.
        switches: `tta`.
        config: memory, scales and the size at which the network works.
        device: of the network.
        share: of `config.memory_gb`, for this video.
        gone: frame index -> ids of objects that are absent from this frame on, until a mask shows them again.

    Yields:
        The mask of each frame, uint8 H,W ids.

    Raises:
        UserError: the masks have no object, the size of a mask or frame differs from the first frame's, a mask is after
            the end, or the budget is too small for the video.
    """
    one_pass = Pass(network, Given(masks, gone), switches, config, device, share)
    return (found.mask for found in one_pass.run(frames))


class Pass:
    """One video, from its first frame to its last.

    Args:
        network: see `propagate`.
        given: the statements about the frames.
        switches: `tta`.
        config: memory, scales and the size at which the network works.
        device: of the network.
        share: of `config.memory_gb`, for this video.
        soft: also return probabilities; frames are then copied from the device one at a time.
        known: masks that already exist; they are used as they are, and the memory is rebuilt from them.
        size: H, W of the video, if its frames may also come at the size at which the network works; that of the first
            frame if None.
        merge: maps a frame's index and its probabilities 1,K+1,h,w (before the first mask: all background) to those
            from which its mask is made; the memory uses the original ones.
    """

    def __init__(
        self,
        network: DSTM,
        given: Given,
        switches: InferSwitches,
        config: InferConfig,
        device: torch.device,
        share: float = 1.0,
        soft: bool = False,
        known: Known | None = None,
        size: tuple[int, int] | None = None,
        merge: Callable[[int, Tensor], Tensor] | None = None,
    ) -> None:
        self._network, self._given, self._config, self._device = network, given, config, device
        self._share, self._soft, self._known, self._merge = share, soft, known, merge
        self._scales, self._flip = (config.scales, config.flip) if switches.tta else ((1.0,), False)
        self._tracks: list[Track] = []
        self._views = len(self._scales) * (1 + self._flip)
        self._averaged = config.tta_memory == "averaged"
        self._depth = network.switches.depth
        self._id_of_slot = torch.from_numpy(given.ids).to(device)
        self._seen = np.zeros(len(given.ids) - 1, bool)
        self._held: set[int] = set()  # known frames that are in the memory when the first unknown one comes
        self._size = self._work = size or (0, 0)
        self._reduced = size is not None
        self._sizes: tuple[tuple[int, int], ...] = ()
        self._taken = self._index = 0
        self._slots = 0
        self._told = False

    def run(self, frames: Iterable[Frame]) -> Iterator[Found]:
        """Segment the frames; they are read as they are needed, at most `config.lookahead` at a time."""
        source = iter(frames)
        first = next(source, None)
        if first is not None:
            lookahead = self._open(*(self._size if self._reduced else first.rgb.shape[:2]))
            source = map(self._take, chain([first], source))
            del first  # so that it is freed when it is done
            while ahead := list(islice(source, lookahead)):
                yield from self._advance(ahead)
        self._given.check_length(self._index)

    def _open(self, height: int, width: int) -> int:
        """Prepare for frames of a size; returns how many to advance at a time."""
        self._size = (height, width)
        self._work = working_size(height, width, self._config.short_side)
        self._sizes = ((height, width), self._work) if self._reduced else ((height, width),)
        self._given.check(height, width)
        work = Work(*self._work, len(self._seen), self._scales, 1 + self._flip)
        plan = make_plan(self._network, self._config, work, self._device, self._share)
        self._tracks = [
            Track(self._network, scale, self._flip, self._config, plan, self._device) for scale in self._scales
        ]
        self._slots = plan.slots
        if self._known is not None:
            schedule, seen = Schedule(self._config.memory_every, plan.slots), self._seen
            for index in range(self._known.end):
                statement = self._given.at(index)
                seen = seen if statement is None else self._given.seen(seen, statement)
                if seen.any():
                    schedule.add(index, _has_mask(statement))
            self._held = set(schedule.frames)
        return plan.lookahead

    def _take(self, frame: Frame) -> Frame:
        """Check the next frame and resize it to the size at which the network works."""
        index, size = self._taken, frame.rgb.shape[:2]
        self._taken += 1
        if size not in self._sizes:
            raise UserError(
                f"frame {index} is {_show(size)}, the first one {_show(self._size)}; expected one size; convert it"
            )
        if self._depth and frame.depth is None:
            raise UserError(
                f"frame {index} has no depth map; expected one, because the network takes depth; make it first"
            )
        if self._depth and frame.depth is not None and frame.depth.shape not in (size, self._work):
            raise UserError(
                f"the depth map of frame {index} is {_show(frame.depth.shape)}, its frame {_show(size)}; expected the "
                "same size; rerun the depth stage"
            )
        if size == self._work:
            return frame
        depth = frame.depth
        if depth is not None and depth.shape != self._work:
            depth = np.asarray(shrink(depth, self._work), np.float32)
        return Frame(np.asarray(shrink(frame.rgb, self._work), np.uint8), depth)

    def _advance(self, frames: list[Frame]) -> Iterator[Found]:
        """Results for the next frames; no mode of torch stays active during a yield."""
        known = self._known is not None and self._index < self._known.end
        with torch.inference_mode():
            self._load(frames)
        if self._soft or known:
            for _ in frames:
                with torch.inference_mode():
                    found = self._step()
                    mask = found[0].cpu().numpy()
                yield Found(mask, found[1])
        else:
            with torch.inference_mode():
                labels = torch.stack([self._step()[0] for _ in frames])  # one copy from the device for all of them
            yield from (Found(mask, None) for mask in labels.cpu().numpy())
        self._report_thinning()

    def _report_thinning(self) -> None:
        """Log once if the budget, not `memory_frames`, has removed frames from the memory."""
        if not self._told and self._slots != self._config.memory_frames and any(t.thinned for t in self._tracks):
            self._told = True
            log(f"frame {self._index}: infer.memory_gb allows {self._slots} frames in the memory: thinned from here on")

    def _load(self, frames: list[Frame]) -> None:
        rgb = torch.from_numpy(np.stack([f.rgb for f in frames])).to(self._device)
        planes = rgb.permute(0, 3, 1, 2).float() / 255  # L,3,h,w
        depth = None
        if self._depth:
            maps = [f.depth for f in frames if f.depth is not None]
            depth = torch.from_numpy(np.stack(maps)).to(self._device)[:, None]  # L,1,h,w
        skip = 0 if self._known is None else min(max(0, self._known.end - self._index), len(frames))
        if not self._seen.any():  # up to and including the first given mask, nothing is segmented
            indices = range(self._index, self._index + len(frames))
            skip = max(skip, next((i + 1 for i, t in enumerate(indices) if self._brings_objects(t)), len(frames)))
        for track in self._tracks:
            track.look_ahead(planes, depth, skip)

    def _brings_objects(self, index: int) -> bool:
        statement = self._given.at(index)
        return statement is not None and bool(statement.named.any())

    def _step(self) -> tuple[Tensor, Tensor | None]:
        """Label map of the next frame, uint8 H,W on the device, and its probabilities K+1,h,w if they are requested."""
        index, statement = self._index, self._given.at(self._index)
        self._index += 1
        if self._known is not None and index < self._known.end:
            return self._take_over(index, statement, self._known.mask(index)), None
        estimates = self._segment() if self._seen.any() else None
        if statement is not None:
            self._seen = self._given.seen(self._seen, statement)
        if estimates is None and not self._seen.any():
            for track in self._tracks:
                track.skip()
            return self._result(index, self._average(None), None)
        average = self._average(estimates)
        planes = None if statement is None else self._planes(statement, self._work)
        masks = average if planes is None else correct(average, *planes)
        for i, track in enumerate(self._tracks):
            if estimates is None or self._averaged:
                own = track.to_views(masks, nearest=estimates is None)
            elif planes is None:
                own = estimates[i]
            else:
                own = correct(estimates[i], *(track.to_views(p, nearest=True) for p in planes))
            track.finish(index, own, given=_has_mask(statement))
        return self._result(index, masks, statement)

    def _result(self, index: int, masks: Tensor, statement: Statement | None) -> tuple[Tensor, Tensor | None]:
        if self._merge is not None:
            masks = self._merge(index, masks)
        probabilities = masks[0]
        if statement is not None and self._work != self._size:  # exact at the video's own size
            larger = correct(resize(masks, self._size), *self._planes(statement, self._size))[0]
            return self._id_of_slot[label(larger, self._size)], probabilities
        return self._id_of_slot[label(probabilities, self._size)], probabilities

    def _take_over(self, index: int, statement: Statement | None, mask: NDArray[np.uint8]) -> Tensor:
        """Memorize a frame whose mask is known, if the memory will keep it."""
        if statement is not None:
            self._seen = self._given.seen(self._seen, statement)
        for track in self._tracks:
            if not self._seen.any():
                track.skip()
            elif index not in self._held:
                track.pass_over(index, _has_mask(statement))
            else:
                planes = resize(one_hot(self._slots_of(mask), len(self._given.ids)), self._work)
                track.finish(index, track.to_views(planes, nearest=True), _has_mask(statement))
        return torch.from_numpy(mask)

    def _slots_of(self, mask: NDArray[np.uint8]) -> Tensor:
        """H,W int64 slot numbers of ids; 0 for ids without a slot."""
        table = np.zeros(VOID + 1, np.int64)
        table[self._given.ids] = np.arange(len(self._given.ids))
        return torch.from_numpy(table[mask]).to(self._device)

    def _planes(self, statement: Statement, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Inputs of `correct`, each 1,K+1,h,w: the shares of a statement's mask, and where objects are absent."""
        mask = np.zeros(self._size, np.uint8) if statement.mask is None else statement.mask
        shares = one_hot(self._slots_of(mask), len(self._given.ids))
        shares[:, 0] = 0
        void = torch.from_numpy((mask == VOID).astype(np.float32)).to(self._device)
        named, gone = (
            torch.from_numpy(np.append(False, which)).to(self._device).float()[:, None, None]
            for which in (statement.named, statement.gone)
        )
        return resize(shares, size), resize((named * (1 - void) + gone)[None], size)

    def _segment(self) -> list[Tensor]:
        objects = None if self._seen.all() else torch.from_numpy(self._seen).to(self._device)
        return [track.segment(objects) for track in self._tracks]

    def _average(self, estimates: list[Tensor] | None) -> Tensor:
        """1,K+1,h,w float32 mean over all views; all background before the first estimate."""
        if estimates is None:
            everywhere = torch.zeros(self._work, dtype=torch.int64, device=self._device)
            return one_hot(everywhere, len(self._given.ids))
        total = sum(track.from_views(e, *self._work) for track, e in zip(self._tracks, estimates))
        assert isinstance(total, Tensor)
        return total[None] / self._views


def _has_mask(statement: Statement | None) -> bool:
    return statement is not None and bool(statement.named.any())


def _show(size: tuple[int, ...]) -> str:
    return "x".join(str(side) for side in reversed(size))
