"""Natural order of frame names: the same pictures give the same clips, masks and scores, padded names or not."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline import infer, score
from pipeline.core.archives import ShardWriter
from pipeline.core.errors import UserError
from pipeline.core.images import encode_depth, encode_jpeg, encode_mask
from pipeline.core.names import natural_key
from pipeline.datasets.clips import ClipDataset, ClipSource
from pipeline.datasets.config import AugmentConfig, ClipConfig
from pipeline.datasets.davis import open_davis
from pipeline.datasets.rgbd import open_rgbd
from pipeline.datasets.simulated import open_simulated
from pipeline.datasets.youtubevos import open_youtubevos
from pipeline.scoring.results import Results
from pipeline.scoring.submission import wanted_masks, write_submission
from tests.support.tiny_archives import davis_files, make_toy, write_folder, write_zip, youtubevos_files
from tests.support.tiny_footage import save_network
from tests.support.toy_inference import CONFIG, CPU, PLAIN, make_network

COUNT = 12
TOY = make_toy(COUNT, 2, 40, 56)
PADDED = tuple(f"{t:05d}" for t in range(COUNT))
PATTERNS = ["{}", "frame_{}", "shot2-{}b"]


def renamed(files: dict[str, bytes], pattern: str) -> dict[str, bytes]:
    """The files with frame numbers of five digits written by another pattern."""
    return {re.sub(r"\b(\d{5})\b", lambda m: pattern.format(int(m[1])), name): data for name, data in files.items()}


def test_numbers_count_by_value() -> None:
    names = ["f10", "f9", "f010b", "f1", "f01", "g2", "f", "10", "2", "", "f9.5", "f9.10"]
    expected = ["", "2", "10", "f", "f01", "f1", "f9", "f9.5", "f9.10", "f10", "f010b", "g2"]
    assert sorted(names, key=natural_key) == expected
    numbers = np.random.default_rng(0).permutation(3000).tolist()
    assert [int(name[1:]) for name in sorted((f"a{n}" for n in numbers), key=natural_key)] == list(range(3000))


def test_padded_names_keep_their_order() -> None:
    padded = [f"{n:05d}" for n in np.random.default_rng(0).permutation(2000)]
    assert sorted(padded, key=natural_key) == sorted(padded)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_davis_and_its_clips(tmp_path: Path, pattern: str) -> None:
    files = davis_files({"toy": TOY}, {"2017/train": ["toy"]})
    plain = open_davis(write_zip(tmp_path / "a.zip", files), "train")
    other = open_davis(write_folder(tmp_path / "b", renamed(files, pattern)), "train")
    assert other.videos[0].frames == other.videos[0].annotated == tuple(pattern.format(t) for t in range(COUNT))
    assert dict(other.videos[0].first_seen) == dict.fromkeys((1, 2), pattern.format(0))
    augment = AugmentConfig(
        crop=32, max_scale=1.0, flip=True, color_jitter=0.1, affine_degrees=0.0, affine_scale=0.0, affine_shear=0.0
    )
    clips = [
        ClipDataset(
            [ClipSource(source, None, None, True)], ClipConfig(n_frames=3, max_objects=2, augment=augment)
        ).sample(np.random.default_rng(5), 4)
        for source in (plain, other)
    ]
    np.testing.assert_array_equal(clips[0].frames, clips[1].frames)
    np.testing.assert_array_equal(clips[0].masks, clips[1].masks)


def test_the_test_splits_of_davis(tmp_path: Path) -> None:
    """Only the first frame has a mask there: it has to be frame 9, not frame 10."""
    files = davis_files({"toy": TOY}, {"2017/test-dev": ["toy"]}, masks=1)
    late = renamed({re.sub(r"\b(\d{5})\b", lambda m: f"{int(m[1]) + 9:05d}", n): d for n, d in files.items()}, "{}")
    (video,) = open_davis(write_folder(tmp_path / "DAVIS", late), "test-dev").videos
    assert video.annotated == ("9",) and video.frames[:3] == ("9", "10", "11")


@pytest.mark.parametrize("pattern", PATTERNS)
def test_youtubevos(tmp_path: Path, pattern: str) -> None:
    """The first frame of an object is the first by number among those of meta.json that have a mask."""
    seen = [pattern.format(5 * t) for t in range(1, COUNT)]
    files = renamed(youtubevos_files({"v": TOY}, {"v": {"1": seen[::-1], "2": seen[2:]}}), pattern)
    (video,) = open_youtubevos(write_folder(tmp_path / "train", files), "train").videos
    assert video.frames == video.annotated == tuple(pattern.format(5 * t) for t in range(COUNT))
    assert dict(video.first_seen) == {1: pattern.format(5), 2: pattern.format(15)}


def test_a_submission_begins_at_the_first_mask(tmp_path: Path) -> None:
    """YouTube-VOS' server wants the frames from the first mask on: 5, 10, 15, ..., not those that sort after "5"."""
    files = renamed(youtubevos_files({"v": TOY}, {"v": {"1": ["5"], "2": ["10"]}}, root="valid/"), "{}")
    kept = {n: d for n, d in files.items() if "Annotations" not in n or n.endswith(("/5.png", "/10.png"))}
    source = open_youtubevos(write_folder(tmp_path / "valid", kept), "valid")
    (wanted,) = wanted_masks(source, "youtubevos")
    assert wanted.required == tuple(str(5 * t) for t in range(1, COUNT)) and wanted.optional == ("0",)
    masks = {f"v/{5 * t}.png": encode_mask(mask) for t, mask in enumerate(TOY.masks)}
    write_submission(source, Results(write_folder(tmp_path / "masks", masks)), tmp_path / "out.zip", "youtubevos")
    assert (tmp_path / "out.zip").is_file()


def test_a_video_without_objects_is_named(tmp_path: Path) -> None:
    files = youtubevos_files({"v": TOY}, {"v": {}}, root="valid/")
    with pytest.raises(UserError, match="video v has no object"):
        wanted_masks(open_youtubevos(write_folder(tmp_path / "valid", files), "valid"), "youtubevos")


def test_simulated_clips(tmp_path: Path) -> None:
    with ShardWriter(tmp_path, 1 << 20) as shards:
        for t in (10, 9, 11, 8):
            data = encode_jpeg(TOY.frames[t]), encode_mask(TOY.masks[t])
            shards.write_group([(f"JPEGImages/c/{t}.jpg", data[0]), (f"Annotations/c/{t}.png", data[1])])
    assert open_simulated(tmp_path).videos[0].frames == ("8", "9", "10", "11")


def test_frames_with_depth(tmp_path: Path) -> None:
    depth = bytes(cv2.imencode(".png", np.full((40, 56), 2000, np.uint16))[1].tobytes())
    files: dict[str, bytes] = {}
    for t in range(COUNT):
        files |= {f"train/v/rgb/{t}.jpg": encode_jpeg(TOY.frames[t]), f"train/v/depth/{t}.png": depth}
    files |= {name.replace("train", "val"): data for name, data in files.items()}
    assert [name for _, name in open_rgbd(write_folder(tmp_path / "x", files), "train").frames()] == [
        str(t) for t in range(COUNT)
    ]


def test_masks_and_scores(tmp_path: Path) -> None:
    """From the archive to the figures: the pictures decide, not how their numbers are written."""
    figures, masks = [], []
    weights = save_network(tmp_path / "dstm.pt", make_network())
    for pattern in ("{:05d}", "{}", "frame_{}"):
        root = tmp_path / pattern
        files = renamed(davis_files({"toy": TOY}, {"2017/val": ["toy"]}), pattern)
        write_folder(root / "raw" / "DAVIS", files)
        with ShardWriter(root / "depth", 1 << 20) as shards:
            shards.write_group(
                [(f"toy/{pattern.format(t)}.png", encode_depth(depth)) for t, depth in enumerate(TOY.depths)]
            )
        infer.run(
            root / "raw" / "DAVIS", root / "depth", weights, root / "masks", root / "scratch", PLAIN, CONFIG, CPU, 1
        )
        masks.append([(root / "masks" / "toy" / f"{pattern.format(t)}.png").read_bytes() for t in range(COUNT)])
        score.run(root / "raw" / "DAVIS", root / "masks", "val", root / "metrics", 1)
        with open(root / "metrics" / "per_object.csv") as file:
            figures.append((json.loads((root / "metrics" / "scores.json").read_text()), list(csv.DictReader(file))))
    assert masks[0] == masks[1] == masks[2]
    assert figures[0] == figures[1] == figures[2]
