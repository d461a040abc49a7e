"""Both directions of a video: read frames backwards, and blend the probabilities of two passes."""

from __future__ import annotations

import shutil
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal, Protocol, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.core.errors import UserError
from pipeline.core.files import write_bytes
from pipeline.inference.given import Given

Direction = Literal["forward", "auto", "both"]

_WINDOW_BYTES = 256 << 20  # frames in memory at a time while a video is read backwards


class Clip(Protocol):
    """Frames that can be read again, starting from any of them."""

    def frames(self, start: int = 0, stop: int | None = None) -> Iterator[NDArray[np.uint8]]:
        """Frames `start` to `stop` - 1 (to the last one if None), uint8 H,W,3, read as they are needed."""
        ...


class FrameList:
    """A sequence of frames as a `Clip`.

    Args:
        frames: uint8 H,W,3 each.
    """

    def __init__(self, frames: Sequence[NDArray[np.uint8]] | NDArray[np.uint8]) -> None:
        self._frames = frames

    def frames(self, start: int = 0, stop: int | None = None) -> Iterator[NDArray[np.uint8]]:
        """See `Clip`."""
        end = len(self._frames) if stop is None else min(stop, len(self._frames))
        return (self._frames[i] for i in range(start, end))


def check_direction(direction: str) -> None:
    """Check that a direction is known.

    Raises:
        UserError: it is unknown.
    """
    if direction not in get_args(Direction):
        raise UserError(f"the direction is {direction}; expected {' or '.join(get_args(Direction))}; give one of these")


def frames_backward(clip: Clip, start: int, stop: int) -> Iterator[NDArray[np.uint8]]:
    """Frames `start`, `start` - 1, ..., `stop`.

    As many as fit in 256 MiB are kept in memory. A video file can only be decoded forwards, so each such window is
    decoded from the start of the file.
    """
    first = next(clip.frames(start, start + 1), None)
    if first is None:
        return
    window = max(1, _WINDOW_BYTES // first.nbytes)
    yield first
    del first
    for end in range(start, stop, -window):
        held = list(clip.frames(max(stop, end - window), end))
        while held:
            yield held.pop()


class ProbabilityStore:
    """Probabilities of frames, kept on disk in steps of 1/255 until they are read or the block ends.

    Args:
        parent: folder in which the store creates its own; the system's folder for temporary files if None.
    """

    def __init__(self, parent: Path | None) -> None:
        self._parent = parent
        self._folder: Path | None = None
        self._shape: tuple[int, ...] = ()

    @property
    def filled(self) -> bool:
        """Whether it contains anything."""
        return self._folder is not None

    def write(self, index: int, probabilities: Tensor) -> None:
        """Keep K+1,h,w probabilities of a frame; the folder is created at the first one."""
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix=".backward.", suffix=".tmp", dir=self._parent))
        self._shape = tuple(probabilities.shape)
        steps = (probabilities[1:] * 255).round().to(torch.uint8).cpu().numpy()
        write_bytes(self._folder / str(index), zlib.compress(steps.tobytes(), 1))

    def read(self, index: int) -> Tensor | None:
        """1,K+1,h,w float32 probabilities of a frame, once; None if there are none."""
        path = None if self._folder is None else self._folder / str(index)
        if path is None or not path.is_file():
            return None
        classes, height, width = self._shape
        steps = np.frombuffer(zlib.decompress(path.read_bytes()), np.uint8).reshape(classes - 1, height, width)
        path.unlink()
        objects = torch.from_numpy(steps.astype(np.float32) / np.float32(255))
        return torch.cat([(1 - objects.sum(dim=0, keepdim=True)).clamp(min=0), objects])[None]

    def __enter__(self) -> ProbabilityStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


class Blend:
    """Blends the forward pass's probabilities with those that the backward pass has put into a store.

    Args:
        given: the statements about the video.
        direction: see `Given.weights`.
        store: probabilities of the backward pass.
        start: index in the video of the forward pass' first frame.
    """

    def __init__(self, given: Given, direction: Direction, store: ProbabilityStore, start: int) -> None:
        self._given, self._direction, self._store, self._start = given, direction, store, start

    def __call__(self, index: int, forward: Tensor) -> Tensor:
        """Probabilities of a frame of the forward pass, 1,K+1,h,w float32, from its own."""
        index += self._start
        backward = self._store.read(index)
        if backward is None:
            return forward
        weights = self._given.weights(index, self._direction)
        ahead, back = (torch.from_numpy(w).to(forward.device)[:, None, None] for w in weights)
        objects = ahead * forward[:, 1:] + back * backward.to(forward.device)[:, 1:]
        total = objects.sum(dim=1, keepdim=True)
        return torch.cat([(1 - total).clamp(min=0), objects], dim=1) / total.clamp(min=1)
