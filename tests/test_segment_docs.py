"""Each command of docs/segment.md, started in a process of its own on a toy video."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.support.tiny_archives import make_toy
from tests.support.tiny_footage import save_network, write_frames, write_mask, write_video
from tests.support.toy_inference import make_network

ROOT = Path(__file__).resolve().parents[1]
PLACEHOLDERS = {"VIDEO": "clip.mp4", "MASK.png": "mask.png", "DIR": "masks"}
LENGTH = 95
COMMANDS = [
    line.strip()
    for line in (ROOT / "docs" / "segment.md").read_text().splitlines()
    if line.startswith("    python -m pipeline.segment ")
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with what the commands name: a clip and its frames, masks, weights, params.yaml."""
    toy = make_toy(LENGTH, 3, 32, 48)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    write_video(tmp_path / "clip.mp4", toy.frames)
    write_frames(tmp_path / "frames", toy, "img_{:04d}.jpg")
    for name, index in (("first", 0), ("mask", 0), ("late", 40), ("fixed", 40)):
        write_mask(tmp_path / f"{name}.png", toy.masks[index])
    (tmp_path / "annotated").mkdir()
    for index in (0, 40):
        write_mask(tmp_path / "annotated" / f"img_{index:04d}.png", toy.masks[index])
    for profile in ("sample", "paper"):
        (tmp_path / "models" / profile).mkdir(parents=True)
        save_network(tmp_path / "models" / profile / "dstm.pt", make_network(depth=False))
    return tmp_path


def test_the_page_has_commands() -> None:
    assert len(COMMANDS) >= 7 and any("--both-ways" in line or "--gone" in line for line in COMMANDS)


def test_every_option_is_documented() -> None:
    """The table of options and the program's own list name the same."""
    help_text = subprocess.run(
        [sys.executable, "-m", "pipeline.segment", "--help"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    table = [line for line in (ROOT / "docs" / "segment.md").read_text().splitlines() if line.startswith("| `--")]
    documented = {line.split("`")[1].split()[0] for line in table}
    options = {word.strip("[],") for word in help_text.split() if word.strip("[],").startswith("--")}
    assert options - {"--help"} == documented


@pytest.mark.parametrize(
    "command",
    [pytest.param(c, marks=() if i == 0 else pytest.mark.slow, id=str(i)) for i, c in enumerate(COMMANDS)],
)
def test_command(root: Path, command: str) -> None:
    words = [PLACEHOLDERS.get(word, word) for word in shlex.split(command)]
    done = subprocess.run(
        [sys.executable, *words[1:]],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    written = list((root / "masks").glob("*.png"))
    assert len(written) == LENGTH
    assert np.array([path.stat().st_size > 0 for path in written]).all()
