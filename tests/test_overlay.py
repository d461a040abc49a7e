"""The video of the masks over the frames: what players show of it, and what an end before time leaves."""

from __future__ import annotations

from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from pipeline.core.images import overlay
from pipeline.footage.overlay import OverlayVideo
from tests.support.tiny_archives import Toy, make_toy


def write(path: Path, toy: Toy, times: list[float]) -> Path:
    with OverlayVideo(path) as video:
        for rgb, mask, seconds in zip(toy.frames, toy.masks, times):
            video.add(rgb, mask, seconds)
    return path


def shown(path: Path) -> list[float]:
    with av.open(str(path)) as container:
        return [float(frame.time or 0) for frame in container.decode(video=0)]


def test_what_browsers_need(tmp_path: Path) -> None:
    """H.264, 4:2:0, even sides, the index before the pictures, and colours that say what they are."""
    toy = make_toy(5, 2, 97, 161)
    path = write(tmp_path / "overlay.mp4", toy, [t / 25 for t in range(5)])
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert (stream.width, stream.height) == (162, 98)
        assert (stream.codec_context.colorspace, stream.codec_context.color_range) == (1, 1)  # BT.709, limited
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        assert stream.duration is not None and stream.time_base is not None
        assert float(stream.duration * stream.time_base) == pytest.approx(0.2, abs=0.01)
    assert len(frames) == 5
    for frame, rgb, mask in zip(frames, toy.frames, toy.masks):
        wanted = overlay(rgb, mask)
        assert np.abs(frame[:97, :161].astype(int) - wanted).mean() < 6
        inside = cv2.erode(np.asarray(mask == 1, np.uint8), np.ones((9, 9), np.uint8)) > 0  # colours run over borders
        np.testing.assert_allclose(frame[:97, :161][inside].mean(axis=0), wanted[inside].mean(axis=0), atol=4)


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([0.0, 0.04, 0.4, 0.41, 1.0], [0.0, 0.04, 0.4, 0.41, 1.0]),
        ([90000.5, 90000.6, 90001.0, 90001.1], [0.0, 0.1, 0.5, 0.6]),
        ([-0.08, -0.04, 0.0, 0.04], [0.0, 0.04, 0.08, 0.12]),
        ([5.0, 5.1, 5.2, 0.0, 0.1], [0.0, 0.1, 0.2, 0.3, 0.4]),
        ([0.0, 0.0, 0.0], [0.0, 1 / 24, 2 / 24]),
    ],
    ids=["uneven", "late start", "early start", "joined files", "no times"],
)
def test_times(tmp_path: Path, times: list[float], expected: list[float]) -> None:
    found = shown(write(tmp_path / "overlay.mp4", make_toy(len(times), 1, 32, 32), times))
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_times_do_not_drift(tmp_path: Path) -> None:
    times = [t * 1001 / 30000 for t in range(300)]
    found = shown(write(tmp_path / "overlay.mp4", make_toy(300, 1, 16, 16), times))
    np.testing.assert_allclose(found, times, atol=1e-4)


@pytest.mark.parametrize(("error", "kept"), [(KeyboardInterrupt, "new"), (ValueError, "old")])
def test_an_end_before_time(tmp_path: Path, error: type[BaseException], kept: str) -> None:
    """Ctrl-C leaves what there is, playable; an error leaves the older file."""
    path, toy = tmp_path / "12:30 overlay.mp4", make_toy(4, 1, 32, 32)
    write(path, toy, [0.0])
    with pytest.raises(error), OverlayVideo(path) as video:
        for t in range(3):
            video.add(toy.frames[t], toy.masks[t], t / 25)
        raise error
    assert len(shown(path)) == (3 if kept == "new" else 1)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_no_frame_no_file(tmp_path: Path) -> None:
    with OverlayVideo(tmp_path / "overlay.mp4"):
        pass
    assert not list(tmp_path.iterdir())
