"""Builders of small video files and image folders, shared by the tests of the command for a user's own video."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from pipeline.core.checkpoint import save_checkpoint
from pipeline.core.images import encode_jpeg, encode_mask
from pipeline.dstm.checkpoint import KIND
from pipeline.dstm.config import to_plain
from pipeline.dstm.network import DSTM
from tests.support.tiny_archives import Toy


def write_video(
    path: Path,
    frames: NDArray[np.uint8],
    times: list[int] | None = None,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    gop: int = 12,
    options: dict[str, str] | None = None,
) -> Path:
    """A video file of T,H,W,3 frames with given presentation times in milliseconds, 40 apart by default."""
    with av.open(f"file:{path}", "w", options=options or {}) as container:
        stream = container.add_stream(codec, options={"crf": "1"} if codec == "libx264" else {})
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], pix_fmt
        # formats with a fixed rate count in frames
        stream.codec_context.time_base = tick = Fraction(1, 1000) if times else Fraction(1, 25)
        stream.codec_context.gop_size = gop
        for t, rgb in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format=pix_fmt, threads=1)
            frame.pts, frame.time_base = (times[t] if times else t), tick
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def counted(n_frames: int, height: int = 32, width: int = 64) -> NDArray[np.uint8]:
    """Frames, T,H,W,3, of eight stripes, black or white, that are the bits of their number."""
    bits = np.arange(n_frames)[:, None] >> np.arange(8) & 1
    stripes = np.repeat(bits, width // 8, axis=1)
    return np.broadcast_to(stripes[:, None, :, None] * 255, (n_frames, height, width, 3)).astype(np.uint8)


def number_of(rgb: NDArray[np.uint8]) -> int:
    """The number of one of the frames of `counted`."""
    stripes = rgb.reshape(rgb.shape[0], 8, -1).mean(axis=(0, 2)) > 127
    return int(stripes @ (1 << np.arange(8)))


def write_frames(folder: Path, toy: Toy, pattern: str = "{}.jpg") -> Path:
    folder.mkdir(parents=True)
    for t, rgb in enumerate(toy.frames):
        (folder / pattern.format(t)).write_bytes(encode_jpeg(rgb))
    return folder


def write_mask(path: Path, mask: NDArray[np.uint8]) -> Path:
    path.write_bytes(encode_mask(mask))
    return path


def save_network(path: Path, network: DSTM) -> Path:
    save_checkpoint(path, KIND, to_plain(network.switches, network.config), network.state_dict())
    return path


@contextmanager
def damaged(path: Path) -> Iterator[bytearray]:
    """The bytes of a file, to be changed in place."""
    data = bytearray(path.read_bytes())
    yield data
    path.write_bytes(data)
