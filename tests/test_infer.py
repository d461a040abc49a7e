"""The stage: from a checkpoint and an archive to a folder of masks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline import infer
from pipeline.core.checkpoint import save_checkpoint
from pipeline.core.errors import UserError
from pipeline.core.images import DAVIS_PALETTE, decode_mask, decode_rgb, encode_jpeg
from pipeline.core.kernels.onednn import arithmetic
from pipeline.core.threads import WriteBehind, read_ahead
from pipeline.dstm.checkpoint import KIND
from pipeline.dstm.config import to_plain
from pipeline.inference.frames import Frame
from tests.support.tiny_archives import Toy, davis_files, make_toy, write_depth, write_zip
from tests.support.toy_inference import CONFIG, CPU, PLAIN, TTA, labels, make_network

VIDEOS = {"one": make_toy(5, 1, 40, 56), "two": make_toy(4, 2, 45, 61), "three": make_toy(3, 3, 40, 56)}


def set_up(root: Path, videos: dict[str, Toy] = VIDEOS, depth: bool = True) -> dict[str, Any]:
    """Arguments of `run` for a tiny set below `root`."""
    (root / "raw").mkdir(parents=True)
    write_zip(root / "raw" / "DAVIS-2017-trainval-480p.zip", davis_files(videos, {"2017/val": list(videos)}))
    if depth:
        write_depth(root / "depth", videos)
    network = make_network(depth)
    save_checkpoint(root / "dstm.pt", KIND, to_plain(network.switches, network.config), network.state_dict())
    return {
        "raw": root / "raw",
        "depth": root / "depth",
        "weights": root / "dstm.pt",
        "masks": root / "masks",
        "scratch": root / ".scratch",
        "switches": PLAIN,
        "config": CONFIG,
        "device": CPU,
        "workers": 2,
    }


def files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_writes_indexed_masks(tmp_path: Path) -> None:
    arguments = set_up(tmp_path)
    infer.run(**arguments)
    written = files(tmp_path / "masks")
    assert sorted(written) == sorted(
        f"{name}/{t:05d}.png" for name, toy in VIDEOS.items() for t in range(len(toy.frames))
    )
    with Image.open(tmp_path / "masks" / "two" / "00001.png") as image:
        assert image.mode == "P"
        assert image.getpalette() == DAVIS_PALETTE.ravel().tolist()
    for name, toy in VIDEOS.items():
        np.testing.assert_array_equal(decode_mask(written[f"{name}/00000.png"], name), toy.masks[0])
    toy = VIDEOS["two"]
    frames = [
        Frame(decode_rgb(encode_jpeg(rgb), ""), np.rint(depth * 65535).astype(np.float32) / np.float32(65535))
        for rgb, depth in zip(toy.frames, toy.depths)
    ]
    expected = labels(make_network(), frames, {0: toy.masks[0]})
    found = np.stack([decode_mask(written[f"two/{t:05d}.png"], "") for t in range(4)])
    np.testing.assert_array_equal(found, expected)
    assert not list((tmp_path / ".scratch").iterdir()), "nothing is left over"


def test_a_switch_changes_the_result_and_a_repetition_does_not(tmp_path: Path) -> None:
    arguments = set_up(tmp_path)
    infer.run(**arguments)
    first = files(tmp_path / "masks")
    infer.run(**arguments)
    assert files(tmp_path / "masks") == first
    infer.run(**{**arguments, "switches": TTA})
    assert files(tmp_path / "masks") != first


def test_bf16_writes_nearly_the_same_masks(tmp_path: Path) -> None:
    """Each class of each video after its first frame, against fp32; measured 0.84 and more."""
    arguments = set_up(tmp_path)
    infer.run(**arguments)
    single = files(tmp_path / "masks")
    infer.run(**{**arguments, "config": replace(CONFIG, precision="bf16")})
    written = files(tmp_path / "masks")
    assert written.keys() == single.keys()
    computes_in_bf16 = arithmetic("bf16", CPU) == torch.bfloat16
    assert (written != single) == computes_in_bf16, "the setting reaches the network"
    for name, toy in VIDEOS.items():
        names = [f"{name}/{t:05d}.png" for t in range(len(toy.frames))]
        found, expected = (np.stack([decode_mask(masks[n], n) for n in names]) for masks in (written, single))
        np.testing.assert_array_equal(found[0], toy.masks[0])
        for k in range(toy.masks.max() + 1):
            one, other = found[1:] == k, expected[1:] == k
            assert (one & other).sum() > 0.75 * (one | other).sum() > 0, (name, k)


def test_no_depth_maps_needed_without_depth(tmp_path: Path) -> None:
    infer.run(**set_up(tmp_path, depth=False))
    assert len(files(tmp_path / "masks")) == 12


def test_resuming_equals_no_interruption(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = set_up(tmp_path) | {"workers": 1}
    infer.run(**{**arguments, "masks": tmp_path / "whole"})
    segmented: list[str] = []
    write = infer.SetSegmenter.write

    def interrupted(self: infer.SetSegmenter, video: Any, folder: Path) -> None:
        if len(segmented) == 1:
            (folder / "00000.png").write_bytes(b"half a sequence")
            raise KeyboardInterrupt
        write(self, video, folder)
        segmented.append(video.name)

    monkeypatch.setattr(infer.SetSegmenter, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        infer.run(**arguments)
    assert not (tmp_path / "masks").exists() and segmented == ["one"]

    def counted(self: infer.SetSegmenter, video: Any, folder: Path) -> None:
        write(self, video, folder)
        segmented.append(video.name)

    monkeypatch.setattr(infer.SetSegmenter, "write", counted)
    infer.run(**arguments)
    assert segmented == ["one", "two", "three"], "what was done is not repeated"
    assert files(tmp_path / "masks") == files(tmp_path / "whole")


def test_other_parameters_never_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = set_up(tmp_path) | {"workers": 1}
    segmented: list[str] = []
    write = infer.SetSegmenter.write

    def interrupted(self: infer.SetSegmenter, video: Any, folder: Path) -> None:
        if len(segmented) == 2:
            raise KeyboardInterrupt
        write(self, video, folder)
        segmented.append(video.name)

    monkeypatch.setattr(infer.SetSegmenter, "write", interrupted)
    for changes in ({}, {"switches": TTA}, {"config": replace(CONFIG, memory_every=2)}):
        segmented.clear()
        with pytest.raises(KeyboardInterrupt):
            infer.run(**{**arguments, **changes})
        assert segmented == ["one", "two"]


def test_a_failed_sequence_fails_the_stage_after_the_others(tmp_path: Path) -> None:
    missing = {**VIDEOS, "two": VIDEOS["two"]._replace(depths=VIDEOS["two"].depths[:2])}
    arguments = set_up(tmp_path, missing)
    with pytest.raises(UserError, match=r"1 of 3 sequences failed: two \(.*no depth map two/00002.png"):
        infer.run(**arguments)
    assert not (tmp_path / "masks").exists()
    assert {p.name for p in (tmp_path / ".scratch").glob("*/*") if p.is_dir()} == {"one", "three"}


def test_an_interruption_reaches_the_other_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread is interrupted; the sequence in the other one ends at its next frame and leaves no folder."""
    arguments = set_up(tmp_path, {"a": make_toy(40, 1, 40, 56), "b": make_toy(39, 1, 40, 56)})
    write = infer.SetSegmenter.write

    def interrupted(self: infer.SetSegmenter, video: Any, folder: Path) -> None:
        if video.name == "b":
            raise KeyboardInterrupt
        write(self, video, folder)

    monkeypatch.setattr(infer.SetSegmenter, "write", interrupted)
    monkeypatch.setattr(infer, "available_cores", lambda: 2)
    with pytest.raises(KeyboardInterrupt):
        infer.run(**arguments)
    assert not (tmp_path / "masks").exists()
    assert not [p for p in (tmp_path / ".scratch").glob("*/*") if p.is_dir()]


@pytest.mark.slow
def test_several_processes_give_the_same(tmp_path: Path) -> None:
    """Two processes under torchrun share the sequences."""
    arguments = set_up(tmp_path)
    infer.run(**{**arguments, "masks": tmp_path / "alone"})
    program = (
        "from pathlib import Path; import torch; from pipeline import infer\n"
        "from pipeline.core.runtime import run_main\n"
        "from tests.test_infer import CONFIG, CPU, PLAIN\n"
        f"root = Path({str(tmp_path)!r})\n"
        "torch.set_num_threads(1)\n"
        "raise SystemExit(run_main(lambda: infer.run(root/'raw', root/'depth', root/'dstm.pt', root/'masks',\n"
        "    root/'.scratch', PLAIN, CONFIG, CPU, 1)))\n"
    )
    (tmp_path / "program.py").write_text(program)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    subprocess.run(
        [*launcher, str(tmp_path / "program.py")],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1]), "OMP_NUM_THREADS": "1"},
        check=True,
        capture_output=True,
        timeout=120,
    )
    assert files(tmp_path / "masks") == files(tmp_path / "alone")


def test_unfit_inputs(tmp_path: Path) -> None:
    arguments = set_up(tmp_path)
    with pytest.raises(UserError, match="does not exist"):
        infer.run(**{**arguments, "weights": tmp_path / "none.pt"})
    with pytest.raises(UserError, match="contains no depth map"):
        infer.run(**{**arguments, "depth": tmp_path / "nowhere"})
    with pytest.raises(UserError, match="test-dev"):
        infer.run(**{**arguments, "config": replace(CONFIG, split="test-dev")})
    assert not (tmp_path / "masks").exists()


def test_read_ahead_keeps_the_order_and_its_bound() -> None:
    started: list[int] = []

    def read(i: int) -> int:
        started.append(i)
        if i == 7:
            raise UserError("seven")
        return i * i

    results = read_ahead(range(20), read, count=3, threads=2)
    assert [next(results) for _ in range(7)] == [i * i for i in range(7)]
    assert len(started) <= 7 + 3
    with pytest.raises(UserError, match="seven"):
        next(results)


def test_write_behind_raises_what_a_write_raised() -> None:
    def fail() -> None:
        raise OSError("disk")

    done: list[int] = []
    with WriteBehind(2, threads=1) as writer:
        for i in range(9):
            writer.put(lambda i=i: done.append(i))  # type: ignore[misc]
    assert done == list(range(9))
    with pytest.raises(OSError, match="disk"), WriteBehind(8, threads=1) as writer:
        writer.put(fail)


@pytest.mark.slow
def test_survives_a_kill(tmp_path: Path) -> None:
    """A process killed in the middle leaves no output, and its successor finishes."""
    videos = {f"clip{i}": make_toy(12, 2, 64, 80) for i in range(6)}
    arguments = set_up(tmp_path, videos)
    program = (
        "from pathlib import Path; import torch; from pipeline import infer\n"
        "from tests.test_infer import CONFIG, CPU, PLAIN\n"
        f"root = Path({str(tmp_path)!r})\n"
        "torch.set_num_threads(1)\n"
        "infer.run(root/'raw', root/'depth', root/'dstm.pt', root/'masks', root/'.scratch', PLAIN, CONFIG, CPU, 1)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert "1/6" in process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "masks").exists()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        infer.run(**arguments)
        infer.run(**{**arguments, "masks": tmp_path / "whole"})
    finally:
        torch.set_num_threads(threads)
    assert files(tmp_path / "masks") == files(tmp_path / "whole")
