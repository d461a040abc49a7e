"""Video files: upright frames, each once, whatever the container, the flags and the name."""

from __future__ import annotations

import gc
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition

from pipeline.core.errors import UserError
from pipeline.footage.video_file import VideoFile, evenly
from tests.support.tiny_archives import make_toy
from tests.support.tiny_footage import counted, damaged, number_of, write_video


def test_uneven_times(tmp_path: Path) -> None:
    toy, times = make_toy(5, 2, 40, 56), [0, 40, 400, 410, 1000]
    video = VideoFile(write_video(tmp_path / "clip.mp4", toy.frames, times))
    frames = list(video.frames())
    assert video.length == len(frames) == 5
    np.testing.assert_allclose([seconds for seconds, _ in frames], np.array(times) / 1000, atol=1e-3)
    assert all(np.abs(rgb.astype(int) - toy.frames[t]).mean() < 8 for t, (_, rgb) in enumerate(frames))


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt"),
    [
        ("a.mp4", "libx264", "yuv420p"),
        ("a.MOV", "libx264", "yuv420p"),
        ("a.mkv", "libx264", "yuv420p"),
        ("a.ts", "libx264", "yuv420p"),
        ("a.avi", "mpeg4", "yuv420p"),
        ("a.webm", "libvpx-vp9", "yuv420p"),
        ("a.gif", "gif", "rgb8"),
        ("a.h264", "libx264", "yuv420p"),
    ],
)
def test_containers(tmp_path: Path, name: str, codec: str, pix_fmt: str) -> None:
    """Every frame comes once and is counted, also where the header does not tell and where frames carry no time."""
    video = VideoFile(write_video(tmp_path / name, counted(30), codec=codec, pix_fmt=pix_fmt))
    frames = list(video.frames())
    assert video.length == 30
    assert [number_of(rgb) for _, rgb in frames] == list(range(30))
    steps = np.diff([seconds for seconds, _ in frames])
    np.testing.assert_allclose(steps, 0.04, atol=0.011)


@pytest.mark.parametrize("pix_fmt", ["bgr0", "gray", "yuv444p10le", "yuva444p"])
def test_odd_sides_and_kinds_of_pixels(tmp_path: Path, pix_fmt: str) -> None:
    """Grey becomes RGB, ten bits eight, alpha goes."""
    rgb = np.random.default_rng(0).integers(0, 256, (1, 97, 161, 3)).astype(np.uint8)
    if pix_fmt != "bgr0":
        rgb[:] = rgb[..., :1]  # the same in all of these
    video = VideoFile(write_video(tmp_path / "odd.mkv", rgb, codec="ffv1", pix_fmt=pix_fmt))
    ((_, frame),) = video.frames()
    np.testing.assert_allclose(frame.astype(int), rgb[0], atol=0 if pix_fmt == "bgr0" else 3)


@pytest.mark.parametrize(
    "matrix",
    [
        (1, 0, 0, 1),
        (0, 1, -1, 0),
        (-1, 0, 0, -1),
        (0, -1, 1, 0),
        (-1, 0, 0, 1),
        (1, 0, 0, -1),
        (0, 1, 1, 0),
        (0, -1, -1, 0),
    ],
    ids=["plain", "clockwise", "half", "anticlockwise", "mirrored", "flipped", "transposed", "transversed"],
)
def test_display_matrix(tmp_path: Path, matrix: tuple[int, int, int, int]) -> None:
    """Against the definition in ISO/IEC 14496-12, pixel by pixel: (x, y) goes to (a x + c y, b x + d y), y down."""
    path = write_video(tmp_path / "flat.mp4", make_toy(1, 2, 20, 28).frames)
    ((_, flat),) = VideoFile(path).frames()
    a, b, c, d = matrix
    with damaged(path) as data:
        at = data.index(b"tkhd") + 4 + 40  # the track header's matrix a b u c d v x y w, 16.16 fixed-point numbers
        for place, value in ((0, a), (4, b), (12, c), (16, d)):
            data[at + place : at + place + 4] = (value * 65536).to_bytes(4, "big", signed=True)
    ((_, turned),) = VideoFile(path).frames()
    points = {(a * x + c * y, b * x + d * y): flat[y, x] for x in range(28) for y in range(20)}
    left, top = (min(point[i] for point in points) for i in (0, 1))
    assert turned.shape == ((28, 20, 3) if a == 0 else (20, 28, 3))
    for (x, y), colour in points.items():
        np.testing.assert_array_equal(turned[y - top, x - left], colour)
    with av.open(str(path)) as container:  # and against FFmpeg's own angle, counterclockwise, where nothing is mirrored
        angle = next(container.decode(video=0)).rotation
    if a * d - b * c == 1:
        np.testing.assert_array_equal(turned, np.rot90(flat, angle // 90))


def test_what_an_edit_list_cuts_does_not_come(tmp_path: Path) -> None:
    path = write_video(tmp_path / "cut.mp4", counted(12), gop=12)
    with damaged(path) as data:
        at = data.index(b"elst") + 16  # media time, in units of which a frame has 512 and two are waited for
        start = int.from_bytes(data[at : at + 4], "big")
        data[at : at + 4] = (start + 3 * 512).to_bytes(4, "big")
    video = VideoFile(path)
    assert [number_of(rgb) for _, rgb in video.frames()] == list(range(3, 12))
    assert video.length == 9


def test_frames_are_let_go(tmp_path: Path) -> None:
    """At once, not when Python gets to looking for cycles: it does not know how large they are."""
    video = VideoFile(write_video(tmp_path / "clip.mp4", counted(40)))
    gc.collect()
    gc.disable()
    try:
        frames = video.frames()
        shown = [number_of(next(frames)[1]) for _ in range(30)]
        alive = sum(type(o) is av.VideoFrame for o in gc.get_objects())
    finally:
        gc.enable()
    assert shown == list(range(30)) and alive <= 12  # those that the decoder gives at a time


def test_no_video(tmp_path: Path) -> None:
    """A sound file is none, even with a cover, and text is none."""
    path = tmp_path / "sound.mp3"
    with av.open(str(path), "w") as container:
        sound = container.add_stream("libmp3lame", rate=44100)
        cover = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 32, 32, "yuvj420p"
        cover.disposition = Disposition.attached_pic
        picture = av.VideoFrame.from_ndarray(counted(1)[0], format="rgb24")
        samples = av.AudioFrame.from_ndarray(np.zeros((2, 1152), np.float32), format="fltp", layout="stereo")
        picture.pts, samples.pts, samples.sample_rate = 0, 0, 44100
        for stream, frame in ((sound, samples), (cover, picture)):
            container.mux(stream.encode(frame))  # type: ignore[arg-type]
            container.mux(stream.encode(None))
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "empty.mp4").touch()
    for name, message in (("sound.mp3", "no video stream"), ("text.mp4", "cannot be opened"), ("empty.mp4", "opened")):
        with pytest.raises(UserError, match=f"{name} .*{message}"):
            VideoFile(tmp_path / name)


@pytest.mark.parametrize("name", ["12:30 clip.mp4", "[1] 100% %03d.mp4", "Grüße 犬.mp4", "-x.mp4"])
def test_names(tmp_path: Path, name: str) -> None:
    assert len(list(VideoFile(write_video(tmp_path / name, counted(3))).frames())) == 3


def test_a_title_in_another_encoding(tmp_path: Path) -> None:
    path = tmp_path / "titled.mkv"
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "TITLE!"
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "bgr0"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(counted(1)[0], format="rgb24")))
        container.mux(stream.encode(None))
    path.write_bytes(path.read_bytes().replace(b"TITLE!", b"Stra\xdfe"))
    assert VideoFile(path).length == 1


def test_evenly() -> None:
    assert evenly(0, 5) == []
    assert evenly(3, 5) == [0, 1, 2]
    assert evenly(101, 5) == [0, 25, 50, 75, 100]


def test_spread_over_a_short_video(tmp_path: Path) -> None:
    video = VideoFile(write_video(tmp_path / "short.mp4", counted(9)))
    assert [number_of(rgb) for rgb in video.spread(48)] == list(range(9))


def test_spread_without_enough_key_frames(tmp_path: Path) -> None:
    video = VideoFile(write_video(tmp_path / "long.mp4", counted(101), gop=50))
    assert [number_of(rgb) for rgb in video.spread(5)] == [0, 25, 50, 75, 100]


def test_spread_decodes_key_frames_alone(tmp_path: Path) -> None:
    """Whatever lies between them: here it is overwritten."""
    path = write_video(tmp_path / "long.mkv", counted(120), gop=5)
    with av.open(str(path)) as container:
        packets = [(p.is_keyframe, bytes(p)) for p in container.demux(video=0) if p.size]
    keys = [i for i, (is_key, _) in enumerate(packets) if is_key]
    assert 20 <= len(keys) <= 40
    with damaged(path) as data:
        for is_key, payload in packets:
            if not is_key:
                at = data.index(payload)
                data[at : at + len(payload)] = bytes(len(payload))
    found = [number_of(rgb) for rgb in VideoFile(path).spread(6)]
    assert found == [keys[i] for i in evenly(len(keys), 6)]
    assert found[0] == 0 and found[-1] >= 110


def test_a_damaged_video_says_so(tmp_path: Path) -> None:
    path = write_video(tmp_path / "torn.avi", counted(20), codec="png", pix_fmt="rgb24")
    with av.open(str(path)) as container:
        payload = bytes([p for p in container.demux(video=0) if p.size][12])
    with damaged(path) as data:
        at = data.index(payload)
        data[at : at + len(payload)] = bytes(len(payload))
    video = VideoFile(path)
    frames = video.frames()
    assert [number_of(next(frames)[1]) for _ in range(10)] == list(range(10))
    with pytest.raises(UserError, match=r"torn\.avi cannot be decoded at frame 1[0-2] .*repair"):
        list(frames)
    assert {0, 6, 19} <= {number_of(rgb) for rgb in video.spread(4)} <= {0, 6, 13, 19}
    assert [number_of(rgb) for rgb in video.spread(48)] == list(range(12)), "and no error, which is left to frames()"
