"""One video from footage to files: masks and other results, written as they are made."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import UserError
from pipeline.core.files import write_bytes
from pipeline.core.images import VOID, encode_mask
from pipeline.core.runtime import log, progress
from pipeline.core.threads import WriteBehind, prefetch
from pipeline.footage.drawings import DrawingOptions, Drawings
from pipeline.footage.footage import Footage, Shot
from pipeline.footage.input_checks import check_masks, make_folder
from pipeline.footage.matte import soft_opacity
from pipeline.footage.readable_part import ReadablePart
from pipeline.footage.soft_files import DoubtRow, DoubtTable, read_probability, write_probabilities
from pipeline.footage.write_errors import writing
from pipeline.hourglass.normalise import DepthRange
from pipeline.inference.directions import Blend, Direction, ProbabilityStore
from pipeline.inference.doubt import measure_doubt
from pipeline.inference.earlier_masks import EarlierMasks
from pipeline.inference.frames import Found, Known
from pipeline.inference.given import Given
from pipeline.inference.segmenter import Segmenter
from pipeline.inference.soft_masks import full_probabilities

T = TypeVar("T")

_RANGE_FRAMES = 48  # number of frames, spread over the video, that give the range of its depth
_WAITING_BYTES = 128 << 20  # of frames read ahead; five frames of 4K


@dataclass(frozen=True)
class Wanted:
    """What a run does in addition to writing masks.

    Attributes:
        gone: frame index -> ids of objects that are absent from that frame on.
        direction: see `Segmenter.propagate`.
        draw: what is drawn in addition to the masks.
        probabilities: write a grey image for each object and frame, and `doubt.csv`.
        doubt: write `doubt.csv`.
        resume: keep the masks of an interrupted run.
    """

    gone: Mapping[int, Iterable[int]] = field(default_factory=dict)
    direction: Direction = "forward"
    draw: DrawingOptions = field(default_factory=DrawingOptions)
    probabilities: bool = False
    doubt: bool = False
    resume: bool = False

    @property
    def soft(self) -> bool:
        """Whether probabilities are needed."""
        return self.probabilities or self.doubt


class VideoJob:
    """A run over one video.

    Args:
        segmenter: the networks.
        footage: the video.
        masks: frame index -> uint8 H,W ids.
        out: folder for the results; other files in it stay unchanged.
        wanted: what to do.

    Raises:
        UserError: masks and frames do not fit each other.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        footage: Footage,
        masks: Mapping[int, NDArray[np.uint8]],
        out: Path,
        wanted: Wanted,
    ) -> None:
        self._size = check_masks(footage, masks)
        self._segmenter, self._footage, self._masks, self._out = segmenter, footage, masks, out
        self._wanted, self._given = wanted, Given(masks, wanted.gone)
        self._ids = [int(i) for i in self._given.ids[1:]]
        self._max_waiting = max(2, min(8, _WAITING_BYTES // (3 * self._size[0] * self._size[1])))
        self._readable = ReadablePart(footage)
        self._start = 0 if wanted.direction == "forward" else self._given.first
        self._count = 0  # frames that have their mask
        self._doubt = DoubtTable(out)
        self._earlier = EarlierMasks(footage, masks, self._ids, self._size, out, wanted.resume)
        self._others: set[str] = set()

    def run(self) -> None:
        """Segment the video.

        Raises:
            UserError: a frame cannot be read, or the video breaks off; files written before that are complete.
            KeyboardInterrupt: it was interrupted; its text says what was written.
        """
        if self._footage.broken_off is not None:
            log(f"the video breaks off ({self._footage.broken_off}): the frames before that get their masks")
        make_folder(self._out)
        self._others = {path.name for path in self._out.glob("*.png")}
        depth_range = None if self._segmenter.depth is None else self._segmenter.depth.range_of(self._spread())
        try:
            with ProbabilityStore(self._out) as store:
                try:
                    if self._start > 0 or self._wanted.direction == "both":
                        self._backward(depth_range, store)
                    self._forward(depth_range, store)
                finally:
                    self._save_doubt()
        except KeyboardInterrupt:
            raise KeyboardInterrupt(self._progress_so_far()) from None
        except UserError as error:
            raise self._readable.fault(self._count) or error from None
        if fault := self._readable.fault(self._count):
            raise fault
        self._report()

    def _backward(self, depth_range: DepthRange | None, store: ProbabilityStore) -> None:
        """Masks of the frames before the first given one; what the forward pass needs goes to the store."""
        first, both = self._given.first, self._wanted.direction == "both"
        begin, stop, known = self._given.last if both else first, 0, None
        done = self._earlier.count(range(first - 1, -1, -1))
        if done == first:  # everything that this pass writes exists already
            self._take_over(range(first))
            stop = first + self._earlier.count(range(first, begin + 1))
            if not both or stop > begin:
                return
        elif not both and done:
            start = np.where(self._masks[first] == VOID, np.uint8(0), self._masks[first])
            known = Known(done + 1, lambda position: self._earlier.mask(first - position) if position else start)
            self._take_over(range(first - done, first))
        log(f"frame {begin} and those before it are segmented backwards first")
        clip, skip = _FootageClip(self._footage), 0 if known is None else done
        found = self._segmenter.backward(
            clip, self._given, self._wanted.direction, depth_range, store, stop, known, self._wanted.soft
        )
        with closing(found), WriteBehind(self._max_waiting, threads=1) as writer:
            shown = progress(found, begin - stop + 1, "frames, backwards", every_s=5.0)
            with closing(_generator(shown)):
                for index, one in shown:
                    if stop <= index < first - skip:
                        writer.put(self._writing(index, self._footage.name_of(index), one))
                        self._count += 1

    def _forward(self, depth_range: DepthRange | None, store: ProbabilityStore) -> None:
        """Masks of the frames from the first given one on, or of all if there is no backward pass."""
        start, waiting = self._start, deque[Shot]()
        given = self._given.forward(start) if start else self._given
        done = self._earlier.count(_indices(start, self._footage.length))
        known = Known(done, lambda position: self._earlier.mask(start + position)) if done else None
        blend = Blend(self._given, self._wanted.direction, store, start) if start or store.filled else None
        self._take_over(range(start, start + done))

        def frames() -> Iterator[NDArray[np.uint8]]:
            with closing(_generator(prefetch(self._readable.shots(start), self._max_waiting))) as shots:
                for shot in shots:
                    waiting.append(shot)
                    yield shot.rgb

        with ExitStack() as stack:
            drawings = stack.enter_context(Drawings(self._out, self._wanted.draw)) if self._wanted.draw.names else None
            # ends first, so that the drawings have all frames when they end
            writer = stack.enter_context(WriteBehind(self._max_waiting, threads=1))
            if drawings is not None:
                for i, shot in enumerate(self._footage.shots(0, start) if start else ()):
                    writer.put(partial(self._draw, drawings, shot, self._earlier.mask(i)))
            source = stack.enter_context(closing(_generator(frames())))
            found = stack.enter_context(
                closing(
                    self._segmenter.forward(source, given, depth_range, None, start, self._wanted.soft, known, blend)
                )
            )
            total = None if self._footage.length is None else self._footage.length - start
            shown = progress(found, total, "frames", every_s=5.0)
            for index, one in enumerate(stack.enter_context(closing(_generator(shown))), start=start):
                shot = waiting.popleft()
                show = None if drawings is None else partial(self._draw, drawings, shot, one.mask)
                if index >= start + done:
                    writer.put(self._writing(index, shot.name, one, show))
                    self._count += 1
                elif show is not None:
                    writer.put(show)

    def _draw(self, drawings: Drawings, shot: Shot, mask: NDArray[np.uint8]) -> None:
        """Draw a frame whose files are written; the matte has soft borders if there are probabilities."""
        probability = None
        if self._wanted.draw.matte is not None and self._wanted.probabilities:
            objects = self._wanted.draw.objects
            probability = read_probability(self._out, shot.name, self._ids if objects is None else objects)
        drawings.add(shot, mask, None if probability is None else soft_opacity(probability))

    def _writing(
        self, index: int, name: str, found: Found, show: Callable[[], None] | None = None
    ) -> Callable[[], None]:
        """A call that writes all files of a frame."""
        self._others.discard(f"{name}.png")
        planes = None
        if self._wanted.soft and found.probabilities is not None:
            pixels = np.bincount(found.mask.ravel(), minlength=VOID + 1)
            rows = measure_doubt(found.probabilities, self._ids)
            self._doubt.add(
                index, name, [DoubtRow(d.object, int(pixels[d.object]), d.confidence, d.doubt) for d in rows]
            )
            planes = full_probabilities(found)[1:] if self._wanted.probabilities else None

        def write() -> None:
            with writing(path := self._out / f"{name}.png"):
                if planes is not None:
                    write_probabilities(self._out, name, self._ids, planes)
                write_bytes(path, encode_mask(found.mask))
            if show is not None:
                show()

        return write

    def _take_over(self, indices: range) -> None:
        """Count the frames of an earlier run as done."""
        names = {self._footage.name_of(index): index for index in indices}
        self._count += len(names)
        self._others -= {f"{name}.png" for name in names}
        if names and self._wanted.soft:
            self._doubt.take_over(names)
        if names:
            log(f"{len(names)} frames have their masks already ({min(names)} to {max(names)})")

    def _spread(self) -> Iterator[NDArray[np.uint8]]:
        log("the range of depth is computed from frames spread over the video")
        yield from self._footage.spread(_RANGE_FRAMES)

    def _save_doubt(self) -> None:
        if self._wanted.soft and self._count:
            self._doubt.save()

    def _progress_so_far(self) -> str:
        of = "" if self._footage.length is None else f" of {self._footage.length}"
        what = f"the first {self._count}{of} frames" if self._start == 0 else f"{self._count}{of} frames"
        return (
            f"the masks of {what} are complete and in {self._out}; the same command with --resume continues, without "
            "it starts again"
        )

    def _report(self) -> None:
        if self._footage.length is not None and self._count != self._footage.length:
            log(
                f"the header announces {self._footage.length} frames; {self._count} could be decoded, and each has "
                "its mask"
            )
        if self._others:
            log(f"{self._out} contained {len(self._others)} other PNG files before; they are unchanged")
        worst = [f"{name} (object {row.object}: {row.doubt:.2f})" for name, row in self._doubt.worst(3)]
        if worst:
            log(f"check the frames with the most doubt first: {', '.join(worst)}")


class _FootageClip:
    """Footage as a `Clip`."""

    def __init__(self, footage: Footage) -> None:
        self._footage = footage

    def frames(self, start: int = 0, stop: int | None = None) -> Iterator[NDArray[np.uint8]]:
        """See `Clip`."""
        return (shot.rgb for shot in self._footage.shots(start, stop))


def _indices(start: int, length: int | None) -> Iterable[int]:
    return range(start, 1 << 31 if length is None else length)


def _generator(items: Iterator[T]) -> Generator[T, None, None]:
    return cast("Generator[T, None, None]", items)  # a generator function returns something that can be closed
