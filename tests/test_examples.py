"""The example: its clip and mask fit, its script runs, and the command that made it makes such files again."""

from __future__ import annotations

import re
import runpy
import shutil
from pathlib import Path

import numpy as np
import pytest

from examples import make_clip
from pipeline import segment
from pipeline.core.images import object_ids
from pipeline.footage.drawn_masks import read_mask
from pipeline.footage.footage import open_footage
from tests.support.tiny_footage import save_network
from tests.support.toy_inference import make_network

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"


def test_clip_and_mask_fit() -> None:
    assert (EXAMPLES / "clip.mp4").stat().st_size < 300_000
    frames = [shot.rgb for shot in open_footage(str(EXAMPLES / "clip.mp4")).shots()]
    mask = read_mask(EXAMPLES / "mask.png")
    assert len(frames) == make_clip.FRAMES and object_ids(mask) == [1, 2, 3]
    assert {rgb.shape for rgb in frames} == {(*mask.shape, 3)} == {(make_clip.HEIGHT, make_clip.WIDTH, 3)}


def test_the_command_makes_such_files_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    make_clip.make(tmp_path, frames=3, height=64, width=112)
    frames = [shot.rgb for shot in open_footage(str(tmp_path / "clip.mp4")).shots()]
    assert len(frames) == 3 and not np.array_equal(frames[0], frames[2])
    assert object_ids(read_mask(tmp_path / "mask.png")) == [1, 2, 3]


def test_the_script_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """On a smaller clip, with a tiny network in place of the weights of the repository."""
    weights = save_network(tmp_path / "tiny.pt", make_network(depth=False))
    monkeypatch.setattr(segment, "SHIPPED", weights)
    monkeypatch.chdir(ROOT)
    make_clip.make(tmp_path / "examples", frames=3, height=64, width=112)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(EXAMPLES / "segment.py"), run_name="__main__")
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("frame ")]
    assert len(lines) == 3
    pixels = [int(n) for n in re.findall(r"has (\d+) pixels", lines[0])]
    mask = read_mask(tmp_path / "examples" / "mask.png")
    assert pixels == [int((mask == i).sum()) for i in (1, 2, 3)]
