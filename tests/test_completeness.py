"""Files that break off are recognised by what their format announces, and whole files are not suspected."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from pipeline.core.errors import UserError
from pipeline.footage.completeness import missing_end
from pipeline.footage.video_file import VideoFile
from tests.support.tiny_footage import counted, write_video

FRAGMENTS = {"movflags": "+frag_keyframe+empty_moov+default_base_moof"}
FORMATS = {
    "index first.mp4": ("libx264", "yuv420p", {"movflags": "+faststart"}),
    "index last.mov": ("libx264", "yuv420p", {}),
    "fragments.mp4": ("libx264", "yuv420p", FRAGMENTS),
    "a.mkv": ("libx264", "yuv420p", {}),
    "live.mkv": ("libx264", "yuv420p", {"live": "1"}),
    "a.webm": ("libvpx-vp9", "yuv420p", {}),
    "a.avi": ("mpeg4", "yuv420p", {}),
    "a.ts": ("libx264", "yuv420p", {}),
    "a.m2ts": ("libx264", "yuv420p", {}),
    "a.mpg": ("mpeg2video", "yuv420p", {}),
    "a.flv": ("libx264", "yuv420p", {}),
    "a.wmv": ("wmv2", "yuv420p", {}),
    "a.ogg": ("libvpx", "yuv420p", {}),
    "a.gif": ("gif", "rgb8", {}),
}


@pytest.fixture(params=FORMATS)
def whole(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    codec, pix_fmt, options = FORMATS[request.param]
    return write_video(
        tmp_path / str(request.param), counted(30, 64, 64), codec=codec, pix_fmt=pix_fmt, gop=5, options=options
    )


def test_whole_files_are_whole(whole: Path) -> None:
    video = VideoFile(whole)
    assert video.broken_off is None and missing_end(whole) is None
    assert len(list(video.frames())) == 30 and video.broken_off is None


def test_every_cut_is_recognised(whole: Path) -> None:
    """Only a few places of these tiny files fall exactly between two parts, where nothing can tell."""
    data = whole.read_bytes()
    missed, places = [], np.linspace(0.3, 0.98, 10)
    for place in places:
        whole.write_bytes(data[: int(len(data) * place)])
        try:
            video = VideoFile(whole)
            frames = [rgb for _, rgb in video.frames()]
        except UserError:
            continue  # no index, or nothing to decode: refused
        if video.broken_off is None:
            missed.append((place, len(frames)))
        assert all(rgb.shape == (64, 64, 3) for rgb in frames)
    assert len(missed) <= 2, missed


@pytest.mark.parametrize("more", [b"\0" * 5000, b"\n"], ids=["zeros", "line end"])
@pytest.mark.parametrize("name", ["index first.mp4", "a.mkv", "a.avi"])
def test_something_behind_the_end_is_no_fault(tmp_path: Path, name: str, more: bytes) -> None:
    codec, pix_fmt, options = FORMATS[name]
    path = write_video(tmp_path / name, counted(5, 64, 64), codec=codec, pix_fmt=pix_fmt, options=options)
    path.write_bytes(path.read_bytes() + more)
    assert missing_end(path) is None


def test_sound_longer_than_the_pictures_is_no_fault(tmp_path: Path) -> None:
    path = tmp_path / "sound.mkv"
    with av.open(str(path), "w") as container:
        pictures = container.add_stream("ffv1", rate=25)
        pictures.width, pictures.height, pictures.pix_fmt = 64, 32, "bgr0"
        sound = container.add_stream("pcm_s16le", rate=8000)
        for i, rgb in enumerate(counted(5)):
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
            frame.pts = i
            container.mux(pictures.encode(frame))
        container.mux(pictures.encode(None))
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 24000), np.int16), format="s16", layout="mono")
        samples.pts, samples.sample_rate = 0, 8000
        container.mux(sound.encode(samples))
        container.mux(sound.encode(None))
    video = VideoFile(path)
    assert len(list(video.frames())) == 5 and video.broken_off is None


def test_a_damaged_last_frame_of_a_raw_stream(tmp_path: Path) -> None:
    """A raw stream announces nothing, but its decoder tells where the last frame is not whole."""
    noise = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3)).astype(np.uint8)
    path = write_video(tmp_path / "a.h264", noise, gop=1)
    path.write_bytes(path.read_bytes()[:-2000])
    video = VideoFile(path)
    try:
        list(video.frames())
    except UserError:
        return
    assert video.broken_off == "its last frame is damaged"


def test_any_bytes(tmp_path: Path) -> None:
    """Nothing that is in a file makes the measuring fail."""
    heads = [b"\0\0\0\x18ftyp", b"\x1aE\xdf\xa3", b"RIFF", b"FLV\1\5\0\0\0\t", b"OggS", b"GIF89a", b"\0\0\1\xba", b"G"]
    heads.append(bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c"))
    rng = np.random.default_rng(0)
    for head in heads:
        for length in (0, 1, 3, 8, 20, 400, 3000):
            (tmp_path / "x").write_bytes(head + rng.bytes(length))
            missing_end(tmp_path / "x")
