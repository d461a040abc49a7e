"""What the command writes besides masks, and how it continues an interrupted run."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline import segment
from pipeline.core.errors import UserError
from pipeline.core.images import decode_mask, encode_mask
from pipeline.footage.drawings import DrawingOptions
from pipeline.footage.footage import open_footage
from pipeline.inference import video_job
from pipeline.inference.frames import Found
from pipeline.inference.segmenter import Segmenter
from pipeline.inference.video_job import Wanted
from tests.support.tiny_archives import make_toy
from tests.support.tiny_footage import save_network, write_frames, write_mask, write_video
from tests.support.toy_inference import CONFIG, CPU, PLAIN, make_network

ROOT = Path(__file__).resolve().parents[1]
TOY = make_toy(12, 2, 40, 56)
Masks = dict[str, NDArray[np.uint8]]
Run = Callable[..., Masks]


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return Segmenter(make_network(depth=False), None, PLAIN, CONFIG, CPU)


@pytest.fixture
def run(tmp_path: Path, segmenter: Segmenter) -> Run:
    """Segments the toy into a folder and returns the masks in it."""
    footage = open_footage(str(write_frames(tmp_path / "frames", TOY, "{:02d}.jpg")))

    def call(
        out: str, masks: dict[int, NDArray[np.uint8]], overlay: bool = False, **wanted: object
    ) -> dict[str, NDArray[np.uint8]]:
        segment.run(segmenter, footage, masks, tmp_path / out, DrawingOptions(overlay), Wanted(**wanted))  # type: ignore[arg-type]
        return read(tmp_path / out)

    return call


def read(folder: Path) -> Masks:
    return {path.stem: decode_mask(path.read_bytes(), str(path)) for path in sorted(folder.glob("*.png"))}


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def same(one: Masks, other: Masks) -> float:
    """Share of equal pixels."""
    assert one.keys() == other.keys()
    return float(np.mean([one[name] == other[name] for name in one]))


def test_probabilities_and_doubt(run: Run, tmp_path: Path) -> None:
    masks = run("out", {0: TOY.masks[0]}, probabilities=True)
    for number in (1, 2):
        folder = tmp_path / "out" / "probabilities" / str(number)
        planes = {p.stem: np.asarray(cv2.imread(str(p), cv2.IMREAD_UNCHANGED)) for p in folder.iterdir()}
        assert planes.keys() == masks.keys()
        assert all(plane.dtype == np.uint8 and plane.shape == (40, 56) for plane in planes.values())
        for name, plane in planes.items():
            assert (plane[masks[name] == number] >= 255 // 3).all()
            assert (masks[name][plane > 128] == number).all()
    table = rows(tmp_path / "out" / "doubt.csv")
    assert [(row["frame"], row["object"]) for row in table] == [(f"{t:02d}", k) for t in range(12) for k in ("1", "2")]
    assert all(int(row["pixels"]) == (masks[row["frame"]] == int(row["object"])).sum() for row in table)
    assert float(table[0]["doubt"]) == 0 and float(table[0]["confidence"]) == 1
    assert max(float(row["doubt"]) for row in table) > 0.05
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        *(f"{n}.png" for n in masks),
        "probabilities",
        "doubt.csv",
    }
    only_doubt = run("other", {0: TOY.masks[0]}, doubt=True)
    assert same(masks, only_doubt) == 1
    assert rows(tmp_path / "other" / "doubt.csv") == table and not (tmp_path / "other" / "probabilities").exists()


@pytest.mark.parametrize("direction", ["auto", "both"])
def test_backwards_from_a_mask_in_the_middle(run: Run, tmp_path: Path, segmenter: Segmenter, direction: str) -> None:
    """The same as from Python; the overlay has all frames in order; nothing else is left in the folder."""
    given = {5: TOY.masks[5], 8: TOY.masks[8]}
    found = run("out", given, overlay=True, direction=direction, probabilities=True)
    frames = [shot.rgb for shot in open_footage(str(tmp_path / "frames")).shots()]
    expected = list(segmenter.propagate(frames, given, direction=direction))  # type: ignore[call-overload]
    np.testing.assert_array_equal(np.stack(list(found.values())), np.stack(expected))
    assert found["00"].any()
    assert len(list(open_footage(str(tmp_path / "out" / "overlay.mp4")).shots())) == 12
    assert not [p for p in (tmp_path / "out").iterdir() if p.name.startswith(".")]
    assert len(rows(tmp_path / "out" / "doubt.csv")) == 24
    assert len(list((tmp_path / "out" / "probabilities" / "1").iterdir())) == 12


def interrupt_after(count: int) -> Callable[..., Iterator[Found]]:
    def interrupted(masks: Iterator[Found], *_: object, **__: object) -> Iterator[Found]:
        for i, mask in enumerate(masks):
            if i == count:
                raise KeyboardInterrupt
            yield mask

    return interrupted


@pytest.mark.parametrize(
    ("given", "direction", "after"), [((0,), "auto", 7), ((6,), "auto", 4), ((2, 9), "both", 5), ((6,), "forward", 8)]
)
def test_resuming_is_close_to_no_interruption(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: tuple[int, ...], direction: str, after: int
) -> None:
    """Masks that exist stay to the byte; the others differ a little, since the memory is rebuilt from masks."""
    masks = {index: TOY.masks[index] for index in given}
    whole = run("whole", masks, direction=direction)
    with monkeypatch.context() as patch:
        patch.setattr(video_job, "progress", interrupt_after(after))
        with pytest.raises(KeyboardInterrupt, match=r"complete and in .*--resume continues"):
            run("out", masks, direction=direction, doubt=True)
    left = {path.name: path.read_bytes() for path in (tmp_path / "out").glob("*.png")}
    assert len(left) < 12
    segmented: list[int] = []
    step = video_job.VideoJob._writing

    def counted(self: video_job.VideoJob, index: int, *arguments: object) -> Callable[[], None]:
        segmented.append(index)
        return step(self, index, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(video_job.VideoJob, "_writing", counted)
    resumed = run("out", masks, direction=direction, doubt=True, resume=True)
    assert sorted(segmented) == sorted(set(range(12)) - {int(name[:2]) for name in left}) or direction == "both"
    assert all((tmp_path / "out" / name).read_bytes() == data for name, data in left.items()) or direction == "both"
    assert same(resumed, whole) > 0.8, "random weights magnify every difference; test_corrections compares exactly"
    assert len(rows(tmp_path / "out" / "doubt.csv")) == 24


def test_resuming_what_is_complete_or_of_another_run(run: Run, tmp_path: Path) -> None:
    first = run("out", {0: TOY.masks[0]})
    assert same(run("out", {0: TOY.masks[0]}, overlay=True, resume=True), first) == 1
    assert len(list(open_footage(str(tmp_path / "out" / "overlay.mp4")).shots())) == 12
    with pytest.raises(UserError, match=r"00\.png does not fit this video and these masks; .*leave out --resume"):
        run("out", {0: TOY.masks[4]}, resume=True)
    (tmp_path / "out" / "03.png").write_bytes(encode_mask(np.zeros((4, 4), np.uint8)))
    with pytest.raises(UserError, match=r"03\.png does not fit this video"):
        run("out", {0: TOY.masks[0]}, resume=True)


def test_corrections_from_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A smaller mask, an object that leaves, and a large video, in which given masks are still exact."""
    large = TOY._replace(
        frames=TOY.frames.repeat(3, axis=1).repeat(3, axis=2), masks=TOY.masks.repeat(3, 1).repeat(3, 2)
    )
    folder = write_frames(tmp_path / "frames", large)
    small = np.zeros((120, 168), np.uint8)
    small[7:16, 100:113] = 1
    arguments = [folder, "--mask", write_mask(tmp_path / "first.png", large.masks[0])]
    arguments += ["--mask", f"3:{write_mask(tmp_path / 'third.png', small)}", "--gone", "5:1,2", "--size", 40]
    arguments += ["--weights", save_network(tmp_path / "net.pt", make_network(depth=False)), "--out", tmp_path / "out"]
    monkeypatch.setattr("sys.argv", ["segment", *map(str, arguments)])
    segment.main()
    found = read(tmp_path / "out")
    np.testing.assert_array_equal(found["0"], large.masks[0])
    np.testing.assert_array_equal(found["3"] == 1, small == 1)
    assert found["4"].any() and not any(found[str(t)].any() for t in range(5, 12))


def test_which_weights_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The repository's by default; those that were trained only when they are asked for."""
    from pipeline.core.layout import Layout

    layout, shipped = Layout(tmp_path, "sample"), tmp_path / "shipped.safetensors"
    monkeypatch.setattr(segment, "SHIPPED", shipped)
    with pytest.raises(UserError, match=r"models/sample/dstm\.pt does not exist; .*make repro"):
        segment.choose_weights(None, layout)
    layout.model("dstm").parent.mkdir(parents=True)
    layout.model("dstm").touch()
    assert segment.choose_weights(None, layout) == layout.model("dstm"), "without weights in the repository"
    shipped.touch()
    assert segment.choose_weights(None, layout) == shipped
    assert segment.choose_weights("trained", layout) == layout.model("dstm")
    with pytest.raises(UserError, match=r"mine\.pt does not exist; .*correct the path"):
        segment.choose_weights("mine.pt", layout)


def test_termination_leaves_what_ctrl_c_leaves(tmp_path: Path) -> None:
    net = save_network(tmp_path / "net.pt", make_network(depth=False))
    mask = write_mask(tmp_path / "mask.png", TOY.masks[0])
    path = write_video(tmp_path / "clip.avi", np.concatenate([TOY.frames] * 100), codec="mpeg4")
    arguments = [path, "--mask", mask, "--out", tmp_path / "out", "--weights", net, "--overlay"]
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline.segment", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        while process.poll() is None and len(list((tmp_path / "out").glob("*.png"))) < 10:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        printed, complaint = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 143, printed + complaint
    assert complaint.startswith("interrupted; the masks of the first ") and complaint.count("\n") == 1
    written = {p.name for p in (tmp_path / "out").iterdir()}
    assert "overlay.mp4" in written and not [name for name in written if name.startswith(".")]
    assert len(list(open_footage(str(tmp_path / "out" / "overlay.mp4")).shots())) == len(written) - 1
