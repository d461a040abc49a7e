"""The command for a user's own video: what it reads, what it refuses, what it leaves behind."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from pipeline import segment
from pipeline.core.checkpoint import save_checkpoint
from pipeline.core.errors import UserError
from pipeline.core.images import decode_mask, encode_jpeg, encode_mask, encode_png
from pipeline.dstm.checkpoint import KIND
from pipeline.dstm.config import to_plain
from pipeline.dstm.network import DSTM
from pipeline.hourglass.checkpoint import save_hourglass
from pipeline.hourglass.config import HourglassConfig
from pipeline.hourglass.network import Hourglass
from pipeline.inference.ahead import prefetch
from pipeline.inference.footage import open_footage
from pipeline.inference.overlay import OverlayVideo
from pipeline.inference.segmenter import FrameDepth, Segmenter
from tests.tiny_archives import Toy, make_toy
from tests.toy_inference import CONFIG, CPU, PLAIN, labels, make_network, video

HOURGLASS = HourglassConfig(width=0.25, stem_stride=2, input_height=32, input_width=64)


def save_network(path: Path, network: DSTM) -> Path:
    save_checkpoint(path, KIND, to_plain(network.switches, network.config), network.state_dict())
    return path


@pytest.fixture
def weights(tmp_path: Path) -> tuple[Path, Path]:
    """Checkpoints of both networks."""
    torch.manual_seed(0)
    save_hourglass(tmp_path / "depth.pt", Hourglass(HOURGLASS))
    return save_network(tmp_path / "dstm.pt", make_network()), tmp_path / "depth.pt"


def write_frames(folder: Path, toy: Toy, pattern: str = "{}.jpg") -> Path:
    folder.mkdir(parents=True)
    for t, rgb in enumerate(toy.frames):
        (folder / pattern.format(t)).write_bytes(encode_jpeg(rgb))
    return folder


def write_video(path: Path, frames: NDArray[np.uint8], times: list[int] | None = None) -> Path:
    """H.264 with given presentation times in milliseconds."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", options={"crf": "1"})
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for t, rgb in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
            frame.pts, frame.time_base = (times[t] if times else 40 * t), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_mask(path: Path, mask: NDArray[np.uint8]) -> Path:
    path.write_bytes(encode_mask(mask))
    return path


def plain_segmenter() -> Segmenter:
    return Segmenter(make_network(depth=False), None, PLAIN, CONFIG, CPU)


def test_a_folder_of_images_from_the_command_line(
    tmp_path: Path, weights: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    toy = make_toy(12, 2, 41, 57)
    folder = write_frames(tmp_path / "frames", toy, "img_{}.jpg")
    late = np.where(toy.masks[10] == 2, 2, 0).astype(np.uint8)
    first = write_mask(tmp_path / "first.png", np.where(toy.masks[0] == 1, 1, 0).astype(np.uint8))
    arguments = ["segment", str(folder), "--mask", str(first), "--mask", f"10:{write_mask(tmp_path / 'l.png', late)}"]
    arguments += ["--out", str(tmp_path / "out"), "--weights", str(weights[0]), "--depth-weights", str(weights[1])]
    monkeypatch.setattr("sys.argv", [*arguments, "--overlay", "--tta"])
    segment.main()
    names = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert names == sorted([f"img_{t}.png" for t in range(12)] + ["overlay.mp4"])
    written = [decode_mask((tmp_path / "out" / f"img_{t}.png").read_bytes(), "") for t in range(12)]
    assert all(mask.shape == (41, 57) for mask in written)
    assert not any((mask == 2).any() for mask in written[:10]), "img_10 is the eleventh, not the third"
    assert (written[10][late == 2] == 2).all()
    with av.open(str(tmp_path / "out" / "overlay.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert (stream.width, stream.height, len(list(container.decode(stream)))) == (58, 42, 12)


def test_api_equals_the_propagation() -> None:
    frames, mask = video(6)
    found = np.stack(list(plain_segmenter().propagate((f.rgb for f in frames), {0: mask})))
    np.testing.assert_array_equal(found, labels(make_network(depth=False), frames, {0: mask}))


def test_open_segmenter(weights: tuple[Path, Path]) -> None:
    frames, mask = video(6)
    segmenter = segment.open_segmenter(*weights)
    masks = list(segmenter.propagate((f.rgb for f in frames), {0: mask}))
    assert len(masks) == 6 and masks[3].shape == mask.shape
    with pytest.raises(UserError, match="no depth weights"):
        segment.open_segmenter(weights[0], None)


def test_depth_is_one_range_for_all_frames(weights: tuple[Path, Path]) -> None:
    frames = [f.rgb for f in video(6)[0]]
    depth = segment.open_segmenter(*weights).depth
    assert depth is not None
    depth_range = depth.range_of(frames)
    whole = depth.maps(frames, depth_range)
    for rgb, expected in zip(frames, whole):
        assert expected.shape == rgb.shape[:2] and expected.dtype == np.float32
        assert expected.min() >= 0 and expected.max() <= 1
        np.testing.assert_allclose(depth.maps([rgb], depth_range)[0], expected, atol=0.02)  # bf16
    assert np.ptp(whole[0]) > 0.2


def test_depth_of_the_controls() -> None:
    rgb = make_toy(1).frames[0]
    assert (FrameDepth("constant", None, 2.0, 98.0).maps([rgb], None)[0] == 0.5).all()
    grey = FrameDepth("luminance", None, 2.0, 98.0).maps([rgb], None)[0]
    np.testing.assert_allclose(grey, cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY) / 255, atol=1e-6)
    with pytest.raises(UserError, match="shuffled"):
        FrameDepth("shuffled", None, 2.0, 98.0)


def test_video_file_with_uneven_times(tmp_path: Path) -> None:
    toy = make_toy(5, 2, 40, 56)
    times = [0, 40, 400, 410, 1000]
    footage = open_footage(str(write_video(tmp_path / "clip.mp4", toy.frames, times)))
    shots = list(footage.shots())
    assert footage.length == 5 and [s.name for s in shots] == [f"{t:05d}" for t in range(5)]
    np.testing.assert_allclose([s.seconds for s in shots], np.array(times) / 1000, atol=1e-3)
    assert all(np.abs(s.rgb.astype(int) - toy.frames[t]).mean() < 8 for t, s in enumerate(shots))
    with OverlayVideo(tmp_path / "again.mp4") as again:
        for shot, mask in zip(shots, toy.masks):
            again.add(shot.rgb, mask, shot.seconds)
    seconds = [s.seconds for s in open_footage(str(tmp_path / "again.mp4")).shots()]
    np.testing.assert_allclose(seconds, np.array(times) / 1000, atol=1e-3)


@pytest.mark.parametrize("degrees", [90, 180, -90])
def test_rotation_flag(tmp_path: Path, degrees: int) -> None:
    """A file that says it is to be turned gives upright frames, as ffmpeg shows them."""
    toy = make_toy(2, 2, 40, 56)
    flat = write_video(tmp_path / "flat.mp4", toy.frames)
    turned = tmp_path / "turned.mp4"
    data = bytearray(flat.read_bytes())
    at = data.index(b"tkhd") + 4 + 40  # the track header's 3x3 matrix of 16.16 fixed-point numbers
    # the matrix maps (x, y) to (ax + cy, bx + dy), y down: this one turns the picture counterclockwise by the angle
    cos, sin = round(np.cos(np.radians(degrees))), round(np.sin(np.radians(degrees)))
    for place, value in ((0, cos), (4, -sin), (12, sin), (16, cos)):
        data[at + place : at + place + 4] = (value * 65536).to_bytes(4, "big", signed=True)
    turned.write_bytes(data)
    for upright, shot in zip(open_footage(str(flat)).shots(), open_footage(str(turned)).shots()):
        np.testing.assert_array_equal(shot.rgb, np.rot90(upright.rgb, degrees // 90))


def test_images_of_all_kinds(tmp_path: Path) -> None:
    """Grey and alpha become RGB, EXIF orientation is applied, names are in natural order, other files are left out."""
    rgb = make_toy(1, 2, 40, 56).frames[0]
    (tmp_path / "f10.png").write_bytes(encode_png(rgb[..., 0]))
    Image.fromarray(np.dstack([rgb, np.full(rgb.shape[:2], 9, np.uint8)])).save(tmp_path / "f9.PNG")
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    Image.fromarray(rgb).save(tmp_path / "f11.jpg", exif=exif, quality=95)
    (tmp_path / "notes.txt").write_text("no image")
    shots = list(open_footage(str(tmp_path)).shots())
    assert [s.name for s in shots] == ["f9", "f10", "f11"]
    np.testing.assert_array_equal(shots[0].rgb, rgb)
    np.testing.assert_array_equal(shots[1].rgb, np.repeat(rgb[..., :1], 3, axis=2))
    assert shots[2].rgb.shape == (56, 40, 3)
    assert [s.name for s in open_footage(str(tmp_path / "f1*.*")).shots()] == ["f10", "f11"]


def test_unfit_footage(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.mp4").write_text("no video")
    write_frames(tmp_path / "twice", make_toy(1))
    (tmp_path / "twice" / "0.png").write_bytes(encode_png(make_toy(1).frames[0]))
    for source, message in (
        ("nowhere", "does not exist"),
        ("empty", "holds no image"),
        ("none*.jpg", "holds no image"),
        ("text.mp4", "cannot be opened as a video"),
        ("twice", "several images named 0"),
    ):
        with pytest.raises(UserError, match=message):
            open_footage(str(tmp_path / source))


def test_a_broken_video_leaves_whole_masks(tmp_path: Path) -> None:
    toy = make_toy(60, 1, 64, 80)
    path = write_video(tmp_path / "clip.mkv", toy.frames)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 :] = b""
    path.write_bytes(data)
    segment.run(plain_segmenter(), open_footage(str(path)), {0: toy.masks[0]}, tmp_path / "out", False)
    masks = sorted((tmp_path / "out").iterdir())
    assert 1 < len(masks) < 60 and all(decode_mask(p.read_bytes(), "").shape == (64, 80) for p in masks)


def test_masks_of_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mask = make_toy(1, 2).masks[0]
    one = write_mask(tmp_path / "one.png", mask)
    read = segment.read_masks([str(one), f"40:{one}"])
    assert sorted(read) == [0, 40]
    np.testing.assert_array_equal(read[40], mask)
    (tmp_path / "white.png").write_bytes(encode_png(np.where(mask > 0, 255, 0).astype(np.uint8)))
    np.testing.assert_array_equal(segment.read_masks([str(tmp_path / "white.png")])[0], mask > 0)
    assert "black and white" in capsys.readouterr().out


def test_unfit_masks(tmp_path: Path) -> None:
    mask = make_toy(1, 2).masks[0]
    one, empty = write_mask(tmp_path / "one.png", mask), write_mask(tmp_path / "empty.png", np.zeros_like(mask))
    (tmp_path / "rgb.png").write_bytes(encode_png(make_toy(1).frames[0]))
    noise = np.arange(48 * 64).reshape(48, 64).astype(np.uint8)
    (tmp_path / "smooth.png").write_bytes(encode_png(noise))
    for arguments, message in (
        ([str(tmp_path / "nowhere.png")], "does not exist"),
        ([str(one), str(one)], "two masks are given for frame 0"),
        ([str(empty)], "holds no object"),
        ([str(tmp_path / "rgb.png")], "mode RGB"),
        ([str(tmp_path / "smooth.png")], "254 different values"),
    ):
        with pytest.raises(UserError, match=message):
            segment.read_masks(arguments)
    footage = open_footage(str(write_frames(tmp_path / "frames", make_toy(3, 2))))
    for masks, message in (
        ({0: mask[:-2]}, "mask of frame 0 is 64x46, its frame 64x48"),
        ({0: mask, 3: mask}, "frame 3, but the video has 3 frames"),
        ({0: mask, 1: mask[:-2]}, "2 different sizes"),
    ):
        with pytest.raises(UserError, match=message):
            segment.run(plain_segmenter(), footage, masks, tmp_path / "out", True)
    assert not list((tmp_path / "out").glob("*")), "nothing is left behind"


def test_an_interruption_leaves_whole_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toy = make_toy(9, 2, 40, 56)
    footage = open_footage(str(write_frames(tmp_path / "frames", toy, "{:05d}.jpg")))

    def interrupted(masks: Iterator[NDArray[np.uint8]], *_: object, **__: object) -> Iterator[NDArray[np.uint8]]:
        for i, mask in enumerate(masks):
            if i == 5:
                raise KeyboardInterrupt
            yield mask

    monkeypatch.setattr(segment, "progress", interrupted)
    with pytest.raises(KeyboardInterrupt):
        segment.run(plain_segmenter(), footage, {0: toy.masks[0]}, tmp_path / "out", True)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [*(f"{t:05d}.png" for t in range(5)), "overlay.mp4"]
    assert all(decode_mask(p.read_bytes(), "").shape == (40, 56) for p in (tmp_path / "out").glob("*.png"))
    assert len(list(open_footage(str(tmp_path / "out" / "overlay.mp4")).shots())) == 5


def test_memory_stays_bounded(tmp_path: Path) -> None:
    """Frames are read as they are needed, and a limit on the memory holds for a long video."""
    frames, mask = video(3)
    taken = 0

    def endless() -> Iterator[NDArray[np.uint8]]:
        nonlocal taken
        while True:
            taken += 1
            yield frames[taken % 3].rgb

    config = replace(CONFIG, memory_every=1, memory_frames=4)
    segmenter = Segmenter(make_network(depth=False), None, PLAIN, config, CPU)
    for i, _ in enumerate(segmenter.propagate(prefetch(endless(), 4), {0: mask})):
        if i == 60:
            break
    assert taken <= 60 + 1 + config.lookahead + 4 + 1
