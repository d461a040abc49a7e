"""docs/tutorial.md: its commands on a generated set of frames and masks, and each mistake with its message."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.core.errors import UserError
from pipeline.core.images import encode_jpeg, encode_mask
from pipeline.datasets.davis import open_davis
from tests.support.commands import DVC, run, set_keys
from tests.support.tiny_archives import make_toy
from tests.support.toy_ablation import make_project

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "tutorial.md").read_text()
NAMES = ("cat", "cow", "dog", "fox")


def commands() -> list[str]:
    """The ten commands."""
    return re.findall(r"^    (\S.*)$", PAGE[PAGE.index("    make setup") : PAGE.index("What happens")], re.MULTILINE)


def write_videos(folder: Path) -> None:
    """`frames` and `masks` of four videos, as the page describes them."""
    for number, name in enumerate(NAMES):
        toy = make_toy(6, 1 + number % 2)
        for t, (frame, mask) in enumerate(zip(toy.frames, toy.masks)):
            for kind, data in (("frames", encode_jpeg(frame)), ("masks", encode_mask(mask))):
                path = folder / kind / name / f"{t:05d}.{'jpg' if kind == 'frames' else 'png'}"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)


def lay_out(folder: Path) -> Path:
    """The commands that give the data its layout, as they are on the page."""
    write_videos(folder)
    script = "\n".join(commands()[1:6])
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", script], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "my"


def test_there_are_ten_commands() -> None:
    assert len(commands()) == 10


def test_the_layout_is_read_as_the_two_splits(tmp_path: Path) -> None:
    my = lay_out(tmp_path)
    assert [video.name for video in open_davis(my, "train").videos] == ["cat", "cow"]
    source = open_davis(my, "val")
    assert [(video.name, len(video.frames)) for video in source.videos] == [("dog", 6), ("fox", 6)]
    assert set(np.unique(source.mask(source.videos[1], "00000"))) == {0, 1, 2}


def opened(my: Path) -> None:
    """Read every mask of both splits, as training and scoring do."""
    for split in ("train", "val"):
        source = open_davis(my, split)
        for video in source.videos:
            len(video.first_seen)
            for frame_id in video.frames:
                source.mask(video, frame_id)


def unknown_video(my: Path) -> None:
    (my / "DAVIS/ImageSets/2017/train.txt").write_text("cat\nhorse\n")


def no_mask(my: Path) -> None:
    (my / "DAVIS/Annotations/480p/cat/00002.png").unlink()


def no_frame(my: Path) -> None:
    shutil.copy(my / "DAVIS/Annotations/480p/cat/00002.png", my / "DAVIS/Annotations/480p/cat/00009.png")


def colour_mask(my: Path) -> None:
    path = my / "DAVIS/Annotations/480p/cat/00002.png"
    Image.open(path).convert("RGB").save(path)


def other_size(my: Path) -> None:
    path = my / "DAVIS/Annotations/480p/cat/00002.png"
    path.write_bytes(encode_mask(np.ones((10, 10), np.uint8)))


def empty_mask(my: Path) -> None:
    path = my / "DAVIS/Annotations/480p/cat/00000.png"
    with Image.open(path) as image:
        width, height = image.size
    path.write_bytes(encode_mask(np.zeros((height, width), np.uint8)))


def empty_list(my: Path) -> None:
    (my / "DAVIS/ImageSets/2017/val.txt").write_text("")


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (unknown_video, "has no frames in DAVIS/JPEGImages/480p"),
        (no_mask, "frame 00002 has no mask (1 such frames)"),
        (no_frame, "mask 00009.png has no frame"),
        (colour_mask, "is a mask of mode RGB; expected an indexed (P) or grey (L) PNG"),
        (other_size, "expected the same size; replace one of them"),
        (empty_mask, "has no object; expected the objects in the first mask"),
        (empty_list, "is empty; expected one name per line"),
    ],
)
def test_mistakes_in_the_data(tmp_path: Path, mistake: Callable[[Path], None], message: str) -> None:
    my = lay_out(tmp_path)
    opened(my)
    mistake(my)
    assert message in PAGE
    with pytest.raises(UserError) as error:
        opened(my)
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("/data/mine", "profiles.sample.data.davis: '/data/mine' not found"),
        ("my", "contains no DAVIS/ImageSets/2017/*.txt"),
    ],
)
def test_mistakes_in_the_source(tmp_path: Path, source: str, message: str) -> None:
    """Through the download stage, which checks the data first."""
    my = lay_out(tmp_path)
    shutil.rmtree(my / "DAVIS/ImageSets")
    text = (ROOT / "params.yaml").read_text()
    changed = text.replace("      davis: embedded", f"      davis: {source}", 1)
    assert changed != text and message in PAGE
    (tmp_path / "params.yaml").write_text(changed)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.download", "davis"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: ") and message in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.slow
def test_a_mistyped_parameter(tmp_path: Path) -> None:
    message = "Key 'davies' is not in struct"
    project = make_project(tmp_path / "project")
    output = run(project, *DVC, "exp", "run", "--dry", "-S", "profiles.sample.data.davies=x", fails=True)
    assert message in PAGE and message in output


@pytest.mark.slow
def test_the_ten_commands(tmp_path: Path) -> None:
    """All of them in a clone with the toy parameters; `make setup` and the programs are those of the tests."""
    from tests.test_end_to_end import TOY

    clone = tmp_path / "clone"
    for name in run(ROOT, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0"):
        if name and name != "dvc.lock" and not name.startswith("metrics/") and (ROOT / name).is_file():
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            (clone / name).write_bytes((ROOT / name).read_bytes())
    set_keys(clone / "params.yaml", {**TOY, "profiles.sample.training.clips.augment.crop": 32})
    run(clone, "git", "init", "-q")
    for key, value in (("user.name", "toy"), ("user.email", "toy@example.org")):
        run(clone, "git", "config", key, value)
    run(clone, "git", "add", "-A")
    run(clone, "git", "commit", "-qm", "toy")
    write_videos(clone)
    shutil.copy(ROOT / "examples" / "clip.mp4", clone / "new.mp4")
    shutil.copy(ROOT / "examples" / "mask.png", clone / "first.png")
    programs = f"{Path(sys.executable).parent}/"
    for line in commands()[1:]:
        line = line.replace(".venv/bin/", programs)
        line = line.replace("make report", "make -o setup -o .dvc/plots.html report")
        run(clone, "bash", "-euo", "pipefail", "-c", line)
    assert sorted(path.name for path in (clone / "data/sample/masks").iterdir()) == ["dog", "fox"]
    assert "sequence-dog" in (clone / "report.html").read_text()
    assert (clone / "result" / "overlay.mp4").is_file()
    assert "davis" in (clone / "models/sample/CARD.md").read_text()
