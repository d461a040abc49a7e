"""The command for a user's own video: what it reads, what it refuses, what it leaves behind."""

from __future__ import annotations

import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pipeline import segment
from pipeline.core.errors import UserError
from pipeline.core.images import decode_mask, encode_png
from pipeline.core.runtime import run_main
from pipeline.footage.drawings import DrawingOptions
from pipeline.footage.footage import Shot, open_footage
from pipeline.footage.input_checks import check_output
from pipeline.hourglass.checkpoint import save_hourglass
from pipeline.hourglass.config import HourglassConfig
from pipeline.hourglass.estimator import DepthEstimator
from pipeline.hourglass.network import Hourglass
from pipeline.hourglass.normalise import DepthRange
from pipeline.inference import video_job
from pipeline.inference.frames import Found
from pipeline.inference.segmenter import FrameDepth, Segmenter
from tests.support.tiny_archives import make_toy
from tests.support.tiny_footage import counted, damaged, number_of, save_network, write_frames, write_mask, write_video
from tests.support.toy_inference import CONFIG, CPU, PLAIN, make_network, video

BARE, OVERLAID = DrawingOptions(), DrawingOptions(overlay=True)
ROOT = Path(__file__).resolve().parents[1]
HOURGLASS = HourglassConfig(width=0.25, stem_stride=2, input_height=32, input_width=64)


@pytest.fixture
def weights(tmp_path: Path) -> tuple[Path, Path]:
    """Checkpoints of both networks."""
    torch.manual_seed(0)
    save_hourglass(tmp_path / "depth.pt", Hourglass(HOURGLASS))
    return save_network(tmp_path / "dstm.pt", make_network()), tmp_path / "depth.pt"


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """The command, in this process."""

    def call(*arguments: object) -> None:
        monkeypatch.setattr("sys.argv", ["segment", *map(str, arguments)])
        segment.main()

    return call


def plain_segmenter() -> Segmenter:
    return Segmenter(make_network(depth=False), None, PLAIN, CONFIG, CPU)


class Echo(Segmenter):
    """Takes frames as a segmenter does and finds an object nowhere; counts the frames that are alive."""

    def __init__(self) -> None:
        self.depth = None
        self.alive: list[weakref.ref[NDArray[np.uint8]]] = []
        self.max_alive = 0
        self.found: NDArray[np.uint8] | None = None

    def forward(self, frames: Any, *_: object, **__: object) -> Generator[Found, None, None]:
        for rgb in frames:
            self.alive = [one for one in self.alive if one() is not None] + [weakref.ref(rgb)]
            self.max_alive = max(self.max_alive, len(self.alive))
            yield Found(np.zeros(rgb.shape[:2], np.uint8) if self.found is None else self.found, None)


def read(folder: Path) -> dict[str, NDArray[np.uint8]]:
    return {path.stem: decode_mask(path.read_bytes(), str(path)) for path in sorted(folder.glob("*.png"))}


def test_a_folder_of_images_from_the_command_line(
    tmp_path: Path, weights: tuple[Path, Path], command: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    toy = make_toy(12, 2, 41, 57)
    folder = write_frames(tmp_path / "frames", toy, "img_{}.jpg")
    late = np.where(toy.masks[10] == 2, 2, 0).astype(np.uint8)
    first = write_mask(tmp_path / "first.png", np.where(toy.masks[0] == 1, 1, 0).astype(np.uint8))
    masks = ["--mask", first, "--mask", f"10:{write_mask(tmp_path / 'late.png', late)}"]
    files = ["--out", tmp_path / "out", "--weights", weights[0], "--depth-weights", weights[1]]
    command(folder, *masks, *files, "--overlay", "--tta")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted(
        [f"img_{t}.png" for t in range(12)] + ["overlay.mp4"]
    )
    written = read(tmp_path / "out")
    assert all(mask.shape == (41, 57) for mask in written.values())
    assert not any((written[f"img_{t}"] == 2).any() for t in range(10)), "img_10 is the eleventh, not the third"
    assert (written["img_10"][late == 2] == 2).all()
    with av.open(str(tmp_path / "out" / "overlay.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert (stream.width, stream.height, len(list(container.decode(stream)))) == (58, 42, 12)
    printed = capsys.readouterr().out
    assert "frame 0: object 1\n" in printed and "frame 10: object 2\n" in printed
    assert re.search(r"frames: 12 done in \d+\.\d s", printed)


def test_a_phone_clip_from_the_command_line(tmp_path: Path, command: Callable[..., None]) -> None:
    """Turned, of uneven times, odd once turned, with a name of all kinds; the masks are drawn on upright frames."""
    toy, times = make_toy(5, 1, 46, 62), [0, 40, 400, 410, 1000]
    path = write_video(tmp_path / "my [1] clip 100% ü.mp4", toy.frames, times)
    with damaged(path) as data:
        at = data.index(b"tkhd") + 44
        for place, value in ((0, 0), (4, 1), (12, -1), (16, 0)):  # clockwise
            data[at + place : at + place + 4] = (value * 65536).to_bytes(4, "big", signed=True)
    upright = np.ascontiguousarray(np.rot90(toy.masks[0], -1))
    mask, net = write_mask(tmp_path / "mask.png", upright), save_network(tmp_path / "n.pt", make_network(depth=False))
    command(path, "--mask", mask, "--out", tmp_path / "out", "--weights", net, "--overlay")
    written = read(tmp_path / "out")
    assert list(written) == [f"{t:05d}" for t in range(5)]
    np.testing.assert_array_equal(written["00000"], upright)
    seconds = [shot.seconds for shot in open_footage(str(tmp_path / "out" / "overlay.mp4")).shots()]
    np.testing.assert_allclose(seconds, np.array(times) / 1000, atol=1e-3)


def test_open_segmenter(weights: tuple[Path, Path], tmp_path: Path) -> None:
    frames, mask = video(6)
    masks = list(segment.open_segmenter(str(weights[0]), str(weights[1])).propagate((f.rgb for f in frames), mask))
    assert len(masks) == 6 and masks[3].shape == mask.shape
    for missing, message in (
        (None, "no depth weights"),
        (tmp_path / "gone.pt", r"gone\.pt does not exist.*make repro"),
    ):
        with pytest.raises(UserError, match=message):
            segment.open_segmenter(weights[0], missing)


def test_weights_without_depth_need_none(tmp_path: Path) -> None:
    """As those converted from STM."""
    path = save_network(tmp_path / "plain.pt", make_network(depth=False))
    frames, mask = video(3)
    for depth_weights in (None, tmp_path / "nowhere.pt"):
        segmenter = segment.open_segmenter(path, depth_weights)
        assert segmenter.depth is None and len(list(segmenter.propagate((f.rgb for f in frames), mask))) == 3


def test_missing_weights_say_how_to_get_them(
    tmp_path: Path, command: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    mask = write_mask(tmp_path / "mask.png", make_toy(1).masks[0])
    arguments = [write_frames(tmp_path / "frames", make_toy(1)), "--mask", mask, "--out", tmp_path / "out"]
    with pytest.raises(UserError, match=r"dstm\.pt does not exist; .*make repro.*--weights"):
        command(*arguments, "--weights", "trained")
    with pytest.raises(UserError, match=r"mine\.pt does not exist; .*correct the path"):
        command(*arguments, "--weights", "mine.pt")
    monkeypatch.chdir(tmp_path / "frames")
    with pytest.raises(UserError, match=r"params\.yaml does not exist"):
        command(*arguments)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({0: (46, 64)}, "mask of frame 0 is 64x46, the video 64x48; "),
        ({0: (64, 48)}, r"48x64, the video 64x48 \(turned"),
        ({0: (48, 64), 2: (24, 32)}, "mask of frame 2 is 32x24"),
        ({3: (48, 64)}, r"frame 3, but the video has 3 frames \(0 to 2\)"),
    ],
)
def test_unfit_masks_are_refused_first(
    tmp_path: Path,
    command: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    given: dict[int, tuple[int, int]],
    message: str,
) -> None:
    """Before a network is loaded, and with nothing left behind."""
    monkeypatch.setattr(segment, "open_segmenter", lambda *_: pytest.fail("the networks are loaded"))
    (tmp_path / "net.pt").touch()
    masks = []
    for index, size in given.items():
        masks += ["--mask", f"{index}:{write_mask(tmp_path / f'{index}.png', np.ones(size, np.uint8))}"]
    for source in (write_frames(tmp_path / "f", make_toy(3)), write_video(tmp_path / "v.mkv", make_toy(3).frames)):
        with pytest.raises(UserError, match=message) as error:
            command(source, *masks, "--out", tmp_path / "out" / "deep", "--weights", tmp_path / "net.pt", "--overlay")
        assert "\n" not in str(error.value)
        assert not (tmp_path / "out").exists()


def test_masks_that_begin_late(tmp_path: Path) -> None:
    """Frames before the first mask are background; each object begins in its own."""
    toy = make_toy(7, 2)
    footage = open_footage(str(write_frames(tmp_path / "frames", toy)))
    masks = {
        2: np.where(toy.masks[2] == 1, 1, 0).astype(np.uint8),
        5: np.where(toy.masks[5] == 2, 2, 0).astype(np.uint8),
    }
    segment.run(plain_segmenter(), footage, masks, tmp_path / "out", BARE)
    written = read(tmp_path / "out")
    assert not written["0"].any() and not written["1"].any()
    np.testing.assert_array_equal(written["2"], masks[2])
    assert not any((written[str(t)] == 2).any() for t in range(5))
    assert (written["5"][masks[5] == 2] == 2).all()


def test_no_input_is_overwritten(tmp_path: Path) -> None:
    toy = make_toy(3)
    frames = write_frames(tmp_path / "frames", toy)
    links = tmp_path / "links"
    links.mkdir()
    for path in frames.iterdir():
        (links / path.name).symlink_to(path)
    masks = {0: write_mask(tmp_path / "frames" / "mask.png", toy.masks[0])}
    images = open_footage(str(frames / "*.jpg"))
    linked = open_footage(str(links))
    for footage, out in ((images, frames), (images, frames / ".." / "frames"), (linked, links), (linked, frames)):
        with pytest.raises(UserError, match="contains the input"):
            check_output(footage, {}, out)
    check_output(images, masks, frames / "masks")
    check_output(images, masks, links)
    film = open_footage(str(write_video(tmp_path / "overlay.mp4", toy.frames)))
    with pytest.raises(UserError, match="contains the input"):
        check_output(film, masks, tmp_path)
    clip = open_footage(str(write_video(tmp_path / "clip.mp4", toy.frames)))
    for footage, name, refused in ((clip, "00002.png", True), (clip, "first.png", False), (images, "2.png", True)):
        path = write_mask(tmp_path / name, toy.masks[0])
        if refused:
            with pytest.raises(UserError, match=rf"{name} would be overwritten"):
                check_output(footage, {0: path}, tmp_path)
        else:
            check_output(footage, {0: path}, tmp_path)


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toy = make_toy(2)
    footage = open_footage(str(write_frames(tmp_path / "frames", toy)))
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file" / "masks"):
        with pytest.raises(UserError, match="file is not a folder"):
            check_output(footage, {}, out)
        with pytest.raises(UserError, match=r"cannot be created \("):
            segment.run(Echo(), footage, {0: toy.masks[0]}, out, OVERLAID)
    monkeypatch.setattr("os.access", lambda path, mode: False)  # tests may run as root, who may do anything
    with pytest.raises(UserError, match="may not be written to"):
        check_output(footage, {}, tmp_path / "new" / "masks")


@pytest.mark.parametrize("draw", [BARE, OVERLAID, DrawingOptions(matte="mov"), DrawingOptions(matte="png")])
def test_no_room_for_the_results(tmp_path: Path, draw: DrawingOptions) -> None:
    """One line, whichever of the files it is; a limit on the size of files stands for a full disk."""
    toy = make_toy(30, 2)
    footage = open_footage(str(write_frames(tmp_path / "frames", toy)))
    noise = np.random.default_rng(0).integers(1, 3, (48, 64)).astype(np.uint8)
    limits, action = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300 if draw == BARE else 1500, limits[1]))
    echo = Echo()
    if draw.matte == "png" or draw == BARE:
        echo.found = noise
    try:
        with pytest.raises(UserError, match=r"/out/\S+ cannot be written \(File too large\); .*--out$"):
            segment.run(echo, footage, {0: toy.masks[0]}, tmp_path / "out", draw)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, action)
    assert not list((tmp_path / "out").rglob("*.tmp"))


def test_unfinished_files_of_a_killed_run_go(tmp_path: Path) -> None:
    toy = make_toy(2)
    footage = open_footage(str(write_frames(tmp_path / "frames", toy)))
    out = tmp_path / "out"
    out.mkdir()
    gone = subprocess.Popen(["true"])
    gone.wait()
    for name in (f".overlay.mp4.{gone.pid}.tmp", f".1.png.{gone.pid}.tmp", f".2.png.{os.getpid()}.tmp", ".mine.tmp"):
        (out / name).touch()
    segment.run(Echo(), footage, {0: toy.masks[0]}, out, BARE)
    assert {path.name for path in out.iterdir()} == {"0.png", "1.png", f".2.png.{os.getpid()}.tmp", ".mine.tmp"}


def test_other_files_of_the_folder_stay(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    out.mkdir()
    kept = {"1.png": b"old", "9.png": b"other", "notes.txt": b"mine", "overlay.mp4": b"film"}
    for name, data in kept.items():
        (out / name).write_bytes(data)
    toy = make_toy(3)
    footage = open_footage(str(write_frames(tmp_path / "frames", toy)))
    segment.run(Echo(), footage, {0: toy.masks[0]}, out, BARE)
    assert {path.name for path in out.iterdir()} == {"0.png", "1.png", "2.png", "9.png", "notes.txt", "overlay.mp4"}
    assert decode_mask((out / "1.png").read_bytes(), "").shape == (48, 64)
    assert all((out / name).read_bytes() == kept[name] for name in ("9.png", "notes.txt", "overlay.mp4"))
    assert "1 other PNG" in capsys.readouterr().out


def test_a_broken_video_leaves_whole_masks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of a file that ends too soon there are the masks and the overlay of its frames, and a line says so at the end."""
    path = write_video(tmp_path / "clip.mp4", counted(60, 64, 64), gop=5, options={"movflags": "+faststart"})
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    mask = np.ones((64, 64), np.uint8)
    line = r"breaks off after frame (\d+) \(\d+ bytes of \d+ are there\); .* of these (\d+) frames are complete"
    with pytest.raises(UserError, match=line) as error:
        segment.run(plain_segmenter(), open_footage(str(path)), {0: mask}, tmp_path / "out", OVERLAID)
    written = read(tmp_path / "out")
    assert 1 < len(written) < 60 and all(found.shape == (64, 64) for found in written.values())
    said = re.search(line, str(error.value))
    assert said and (int(said[1]) + 1, int(said[2])) == (len(written), len(written))
    assert len(list(open_footage(str(tmp_path / "out" / "overlay.mp4")).shots())) == len(written)
    assert "the video breaks off (" in capsys.readouterr().out
    footage = open_footage(str(path))
    footage.length = None
    with pytest.raises(UserError, match=line):  # not that frame 59, of which there is a mask, is missing
        segment.run(plain_segmenter(), footage, {0: mask, 59: mask}, tmp_path / "late", BARE)


def test_a_broken_video_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_video(tmp_path / "clip.mkv", counted(40, 64, 64), gop=5)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    mask = write_mask(tmp_path / "mask.png", np.ones((64, 64), np.uint8))
    net = save_network(tmp_path / "net.pt", make_network(depth=False))
    arguments = [path, "--mask", mask, "--out", tmp_path / "out", "--weights", net]
    monkeypatch.setattr("sys.argv", ["segment", *map(str, arguments)])
    assert run_main(segment.main) == 1
    printed = capsys.readouterr()
    assert re.fullmatch(r"error: the video breaks off after frame \d+ .*\n", printed.err)
    assert 1 < len(read(tmp_path / "out")) < 40


def test_fewer_frames_than_counted_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a sign of damage, packets and pictures may differ in number."""
    footage = open_footage(str(write_video(tmp_path / "clip.mp4", counted(5, 64, 64))))
    footage.length = 6
    segment.run(plain_segmenter(), footage, {0: np.ones((64, 64), np.uint8)}, tmp_path / "out", BARE)
    assert "6 frames; 5 could be decoded" in capsys.readouterr().out


def test_an_error_on_the_way_leaves_whole_masks(tmp_path: Path) -> None:
    """All frames before it have their masks, and the overlay has them too."""
    toy = make_toy(9)
    folder = write_frames(tmp_path / "frames", toy)
    footage = open_footage(str(folder))
    (folder / "7.jpg").write_bytes((folder / "7.jpg").read_bytes()[:-200])
    with pytest.raises(UserError, match=r"7\.jpg cannot be decoded"):
        segment.run(plain_segmenter(), footage, {0: toy.masks[0]}, tmp_path / "out", OVERLAID)
    assert set(read(tmp_path / "out")) == {str(t) for t in range(7)}
    assert {path.name for path in (tmp_path / "out").iterdir()} == {*(f"{t}.png" for t in range(7)), "overlay.mp4"}
    assert len(list(open_footage(str(tmp_path / "out" / "overlay.mp4")).shots())) == 7


def test_4k_streams(tmp_path: Path) -> None:
    """Of frames of 25 MB a few are held at a time, however many there are, also while masks are slow to write."""
    path = write_video(tmp_path / "4k.mp4", counted(2, 2160, 3840), codec="mpeg4")
    footage = open_footage(str(path))
    mask = np.ones((2160, 3840), np.uint8)
    segment.run(Echo(), footage, {0: mask}, tmp_path / "out", BARE)
    assert {found.shape for found in read(tmp_path / "out").values()} == {(2160, 3840)}

    class Long:
        length: int | None = None
        broken_off: str | None = None

        def name_of(self, index: int) -> str:
            return str(index)

        def shots(self, start: int = 0, stop: int | None = None) -> Iterator[Shot]:
            return (Shot(str(i), i / 24, np.zeros((2160, 3840, 3), np.uint8)) for i in range(30))

        def spread(self, count: int) -> Iterator[NDArray[np.uint8]]:
            return iter(())

    echo = Echo()
    segment.run(echo, Long(), {0: mask}, tmp_path / "long", BARE)
    assert len(list((tmp_path / "long").iterdir())) == 30
    assert echo.max_alive <= 3  # the one before may not be let go yet


def test_an_interruption_leaves_whole_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toy = make_toy(9, 2, 40, 56)
    footage = open_footage(str(write_frames(tmp_path / "frames", toy, "{:05d}.jpg")))

    def interrupted(masks: Iterator[Found], *_: object, **__: object) -> Iterator[Found]:
        for i, mask in enumerate(masks):
            if i == 5:
                raise KeyboardInterrupt
            yield mask

    monkeypatch.setattr(video_job, "progress", interrupted)
    with pytest.raises(KeyboardInterrupt, match="the first 5 of 9 frames"):
        segment.run(plain_segmenter(), footage, {0: toy.masks[0]}, tmp_path / "out", OVERLAID)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [*(f"{t:05d}.png" for t in range(5)), "overlay.mp4"]
    assert all(mask.shape == (40, 56) for mask in read(tmp_path / "out").values())
    assert len(list(open_footage(str(tmp_path / "out" / "overlay.mp4")).shots())) == 5


def heed_sigint() -> None:
    """Undo what a shell does to commands it runs in the background, and the tests with them."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_ctrl_c_of_the_real_command(tmp_path: Path) -> None:
    """SIGINT as a terminal sends it: one line, code 130, every PNG whole, no leftovers, a video that plays."""
    net = save_network(tmp_path / "net.pt", make_network(depth=False))
    mask = write_mask(tmp_path / "mask.png", make_toy(1).masks[0])
    frames = np.concatenate([make_toy(50, 2).frames] * 60)
    path = write_video(tmp_path / "clip.avi", frames, codec="mpeg4")
    arguments = [path, "--mask", mask, "--out", tmp_path / "out", "--weights", net, "--overlay"]
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline.segment", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_sigint,
    )
    try:
        while process.poll() is None and len(list((tmp_path / "out").glob("*.png"))) < 10:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        printed, complaint = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130, printed + complaint
    written = read(tmp_path / "out")
    said = re.fullmatch(r"interrupted; the masks of the first (\d+) of 3000 frames are complete .*\n", complaint)
    assert said, complaint
    assert 10 <= len(written) < 3000 and len(written) - int(said[1]) in (0, 1)
    assert list(written) == [f"{t:05d}" for t in range(len(written))]
    assert {mask.shape for mask in written.values()} == {(48, 64)}
    assert {p.name for p in (tmp_path / "out").iterdir()} == {*(f"{name}.png" for name in written), "overlay.mp4"}
    assert len(list(open_footage(str(tmp_path / "out" / "overlay.mp4")).shots())) == len(written)


def test_depth_is_taken_from_all_over_the_video(tmp_path: Path) -> None:
    """The range of depth is that of frames spread over the footage, not of its beginning."""

    class Spy(FrameDepth):
        def range_of(self, frames: Iterable[NDArray[np.uint8]]) -> DepthRange | None:
            self.seen = list(map(number_of, given := list(frames)))
            return super().range_of(given)

    (tmp_path / "frames").mkdir()
    for i, rgb in enumerate(counted(95)):
        (tmp_path / "frames" / f"{i}.png").write_bytes(encode_png(rgb))
    torch.manual_seed(0)
    spy = Spy("estimated", DepthEstimator(Hourglass(HOURGLASS).eval(), CPU, "fp32"), 2.0, 98.0, 0.9)
    echo = Echo()
    echo.depth = spy
    mask = np.ones((32, 64), np.uint8)
    segment.run(echo, open_footage(str(tmp_path / "frames")), {0: mask}, tmp_path / "out", BARE)
    assert len(spy.seen) == 48 and (spy.seen[0], spy.seen[-1]) == (0, 94)
    assert max(np.diff(spy.seen)) == 2
