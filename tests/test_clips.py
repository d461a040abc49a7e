from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pipeline.core.errors import UserError
from pipeline.datasets.clips import Clip, ClipDataset, ClipSource, collate, draw_frames
from pipeline.datasets.config import AugmentConfig, ClipConfig
from pipeline.datasets.davis import open_davis
from pipeline.datasets.depth_input import open_depth_input
from pipeline.datasets.simulated import open_simulated
from pipeline.datasets.video import Video
from pipeline.datasets.youtubevos import open_youtubevos
from tests.support.tiny_archives import (
    Toy,
    davis_files,
    make_toy,
    write_depth,
    write_simulated,
    write_zip,
    youtubevos_files,
)

AUGMENT = AugmentConfig(
    crop=32, max_scale=1.0, flip=True, color_jitter=0.1, affine_degrees=0.0, affine_scale=0.0, affine_shear=0.0
)
CONFIG = ClipConfig(n_frames=3, max_objects=3, augment=AUGMENT)


class Fake:
    """Videos from memory; every pixel of frame t is t."""

    def __init__(self, name: str, n_videos: int, mask: Callable[[int], NDArray[np.uint8]], n_frames: int = 6) -> None:
        ids = tuple(f"{t:05d}" for t in range(n_frames))
        self.name = name
        self.videos = tuple(Video(f"{name}-{i}", ids, ids, {1: "00000"}) for i in range(n_videos))
        self._mask = mask

    def frame(self, video: Video, frame_id: str) -> NDArray[np.uint8]:
        return np.full((*self._mask(0).shape, 3), int(frame_id), np.uint8)

    def mask(self, video: Video, frame_id: str) -> NDArray[np.uint8]:
        return self._mask(int(frame_id))


def _stripes(n: int) -> Callable[[int], NDArray[np.uint8]]:
    return lambda t: np.repeat(np.arange(n + 1, dtype=np.uint8), 8)[None].repeat(48, axis=0)


def _ids(n: int) -> tuple[str, ...]:
    return tuple(f"{t:05d}" for t in range(n))


@pytest.mark.parametrize(("length", "max_skip", "largest"), [(90, 0, 0), (90, 3, 3), (20, 25, 8), (3, 5, 0), (5, 5, 1)])
def test_skips_are_uniform_and_fit_the_video(length: int, max_skip: int, largest: int) -> None:
    rng = np.random.default_rng(0)
    skips: Counter[int] = Counter()
    starts = set()
    for _ in range(4000):
        clip = [int(i) for i in draw_frames(rng, _ids(length), 3, max_skip)]
        assert 0 <= clip[0] < clip[1] < clip[2] < length
        skips.update(np.diff(clip) - 1)
        starts.add(clip[0])
    assert sorted(skips) == list(range(largest + 1))
    expected = 8000 / (largest + 1)
    assert all(abs(count - expected) < 5 * expected**0.5 + 1e-9 for count in skips.values())
    assert min(starts) == 0
    assert max(starts) == length - 3


def test_a_video_shorter_than_the_clip_stands_still_at_its_end() -> None:
    rng = np.random.default_rng(0)
    assert {draw_frames(rng, _ids(2), 3, 5) for _ in range(50)} == {("00000", "00001", "00001")}
    assert draw_frames(rng, _ids(1), 3, 0) == ("00000",) * 3


def test_sampling_from_archives(davis_raw: Path, tmp_path: Path) -> None:
    toys = {"bear": make_toy(5, 1), "dogs": make_toy(6, 2)}
    bears = open_davis(davis_raw, "train")
    depth = open_depth_input(write_depth(tmp_path / "d", toys), "estimated", bears.videos)
    davis = ClipSource(bears, depth, 0.4, True)
    late = make_toy(6, 2)
    late.masks[:3][late.masks[:3] == 2] = 0
    ids = [f"{5 * t:05d}" for t in range(6)]
    files = youtubevos_files({"v": late}, {"v": {"1": ids, "2": ids[3:]}})
    videos = open_youtubevos(write_zip(tmp_path / "train.zip", files), "train")
    youtube = ClipSource(
        videos,
        open_depth_input(write_depth(tmp_path / "y", {"v": late}, step=5), "estimated", videos.videos),
        None,
        True,
    )
    dataset = ClipDataset([davis, youtube], CONFIG)
    counts = set()
    rng = np.random.default_rng(3)
    for _ in range(40):
        clip = dataset.sample(rng, 2)
        assert (clip.frames.shape, str(clip.frames.dtype)) == ((3, 3, 32, 32), "uint8")
        assert clip.depth is not None
        assert (clip.depth.shape, str(clip.depth.dtype)) == ((3, 1, 32, 32), "float32")
        assert (clip.masks.shape, str(clip.masks.dtype)) == ((3, 32, 32), "uint8")
        assert set(np.unique(clip.masks[0])) - {0} == set(range(1, clip.n_objects + 1))
        assert clip.masks.max() <= clip.n_objects  # an object that comes late is background
        counts.add(clip.n_objects)
        # depth and mask belong together: background far, objects at their own depths
        assert (clip.depth[:, 0][clip.masks > 0].mean() > 0.2) and clip.depth.max() <= 0.51
    assert counts == {1, 2}


def test_objects_beyond_the_limit_become_background() -> None:
    source = ClipSource(Fake("f", 1, _stripes(5), 4), None, None, True)
    augment = replace(AUGMENT, crop=48, flip=False, color_jitter=0.0)
    dataset = ClipDataset([source], ClipConfig(3, 2, augment))
    rng = np.random.default_rng(0)
    chosen: Counter[tuple[int, ...]] = Counter()
    for _ in range(200):
        clip = dataset.sample(rng, 0)
        assert clip.n_objects == 2
        assert set(np.unique(clip.masks)) == {0, 1, 2}
        assert clip.depth is None
        columns = [int(np.flatnonzero((clip.masks[0] == k).any(axis=0))[0]) // 8 for k in (1, 2)]
        assert columns == sorted(columns)
        for k in (1, 2):
            assert (clip.masks[:, :, columns[k - 1] * 8] == k).all()  # the same object in all frames
        chosen[tuple(columns)] += 1
    assert len(chosen) == 10  # every pair of five


def test_void_stays_void_and_is_no_object() -> None:
    def mask(t: int) -> NDArray[np.uint8]:
        ids = np.zeros((32, 32), np.uint8)
        ids[:16], ids[16:20], ids[20:] = 255, 9, 4
        return ids

    dataset = ClipDataset([ClipSource(Fake("f", 1, mask), None, None, True)], CONFIG)
    clip = dataset.sample(np.random.default_rng(0), 0)
    assert clip.n_objects == 2
    np.testing.assert_array_equal(clip.masks[:, :16], 255)
    np.testing.assert_array_equal(clip.masks[:, 16:20], 2)
    np.testing.assert_array_equal(clip.masks[:, 20:], 1)


def test_draws_again_until_the_first_frame_shows_an_object() -> None:
    def mask(t: int) -> NDArray[np.uint8]:
        return np.full((32, 32), 1 if t == 3 else 0, np.uint8)

    augment = replace(AUGMENT, color_jitter=0.0)
    dataset = ClipDataset([ClipSource(Fake("f", 1, mask, 7), None, None, True)], replace(CONFIG, augment=augment))
    for seed in range(5):
        clip = dataset.sample(np.random.default_rng(seed), 0)
        np.testing.assert_array_equal(clip.frames[:, 0, 0, 0], [3, 4, 5])
    with pytest.raises(UserError, match="no object in their first frame"):
        empty = Fake("empty", 2, lambda t: np.zeros((32, 32), np.uint8))
        ClipDataset([ClipSource(empty, None, None, True)], CONFIG).sample(np.random.default_rng(0), 0)


def test_simulated_clips_ignore_the_skip(tmp_path: Path) -> None:
    source = open_simulated(write_simulated(tmp_path, {f"c{i}": make_toy(3, 2) for i in range(3)}))
    dataset = ClipDataset([ClipSource(source, None, None, False)], replace(CONFIG, max_objects=1))
    plain = replace(CONFIG, augment=replace(AUGMENT, color_jitter=0.0))
    long = ClipDataset([ClipSource(Fake("f", 1, _stripes(2), 9), None, None, False)], plain)
    rng = np.random.default_rng(0)
    for _ in range(10):
        assert dataset.sample(rng, 25).n_objects == 1
        values = long.sample(rng, 25).frames[:, 0, 0, 0].astype(int)
        np.testing.assert_array_equal(np.diff(values), 1)


def test_shares_of_the_sources() -> None:
    one, two = Fake("one", 3, _stripes(1)), Fake("two", 9, _stripes(2))
    config = ClipConfig(2, 3, replace(AUGMENT, crop=16))

    def dataset(*shares: float | None) -> ClipDataset:
        return ClipDataset([ClipSource(s, None, share, True) for s, share in zip((one, two), shares)], config)

    assert dataset(0.08, None).shares == pytest.approx((0.08, 0.92))
    assert dataset(None, None).shares == pytest.approx((0.25, 0.75))
    assert dataset(0.3, 0.3).shares == pytest.approx((0.5, 0.5))
    drawn = Counter(dataset(0.2, None)._draw_source(np.random.default_rng(i)) for i in range(3000))
    assert 0.2 - 0.03 < drawn[0] / 3000 < 0.2 + 0.03
    for shares in ((0.0, None), (1.2, None), (0.7, 0.7)):
        with pytest.raises(UserError, match="shares of the training clips"):
            dataset(*shares)
    with pytest.raises(UserError, match="has no video"):
        ClipDataset([ClipSource(Fake("none", 0, _stripes(1)), None, None, True)], config)


def _equal(a: Clip, b: Clip) -> bool:
    if a.depth is None or b.depth is None:
        return a.depth is b.depth
    pairs = ((a.frames, b.frames), (a.depth, b.depth), (a.masks, b.masks))
    return a.n_objects == b.n_objects and all(np.array_equal(x, y) for x, y in pairs)


def test_equal_seeds_give_equal_clips_from_any_thread(davis_raw: Path, tmp_path: Path) -> None:
    videos = open_davis(davis_raw, "train")
    toys = {"bear": make_toy(5, 1), "dogs": make_toy(6, 2)}
    depth = open_depth_input(write_depth(tmp_path / "d", toys), "estimated", videos.videos)
    augment = replace(AUGMENT, affine_degrees=10.0, affine_scale=0.1)
    config = replace(CONFIG, augment=augment)
    dataset = ClipDataset([ClipSource(videos, depth, None, True)], config)

    def sample(seed: int) -> Clip:
        return dataset.sample(np.random.default_rng(seed), 3)

    alone = [sample(seed) for seed in range(24)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(sample, range(24)))
    assert all(_equal(a, b) for a, b in zip(alone, together))
    assert not _equal(alone[0], alone[1])


def test_smaller_depth_is_enlarged_and_missing_depth_refused(davis_raw: Path, tmp_path: Path) -> None:
    videos = open_davis(davis_raw, "train")
    toys = {"bear": make_toy(5, 1, 24, 32), "dogs": make_toy(6, 2, 24, 32)}
    small = ClipSource(
        videos, open_depth_input(write_depth(tmp_path / "small", toys), "estimated", videos.videos), None, True
    )
    clip = ClipDataset([small], CONFIG).sample(np.random.default_rng(0), 0)
    assert clip.depth is not None and clip.depth.shape[2:] == clip.masks.shape[1:]
    other = ClipSource(
        videos,
        open_depth_input(write_depth(tmp_path / "other", {"cat": make_toy()}), "estimated", videos.videos),
        None,
        True,
    )
    with pytest.raises(UserError, match="run the depth stage"):
        ClipDataset([other], CONFIG).sample(np.random.default_rng(0), 0)


def test_a_damaged_frame_is_named(toy_video: Toy, tmp_path: Path) -> None:
    files = davis_files({"a": toy_video}, {"2017/train": ["a"]})
    files |= {name: data[:40] for name, data in files.items() if name.endswith(".jpg")}
    source = open_davis(write_zip(tmp_path / "davis.zip", files), "train")
    with pytest.raises(UserError, match=r"JPEGImages/480p/a/\d{5}\.jpg"):
        ClipDataset([ClipSource(source, None, None, True)], CONFIG).sample(np.random.default_rng(0), 0)


def test_frames_that_change_size_within_a_video_are_refused() -> None:
    class Growing(Fake):
        def frame(self, video: Video, frame_id: str) -> NDArray[np.uint8]:
            return np.zeros((*self.mask(video, frame_id).shape, 3), np.uint8)

        def mask(self, video: Video, frame_id: str) -> NDArray[np.uint8]:
            return np.ones((48, 60 if frame_id < "00002" else 80), np.uint8)

    source = ClipSource(Growing("grow", 1, _stripes(1), 3), None, None, True)
    with pytest.raises(UserError, match=r"frame grow-0/00002 is 80x48, frame grow-0/00000 is 60x48; expected one size"):
        ClipDataset([source], CONFIG).sample(np.random.default_rng(0), 0)


def test_collate() -> None:
    rng = np.random.default_rng(0)
    sources = [Fake("one", 1, _stripes(1)), Fake("two", 1, _stripes(2))]
    datasets = [ClipDataset([ClipSource(s, None, None, True)], replace(CONFIG, max_objects=2)) for s in sources]
    clips = [d.sample(rng, 0) for d in datasets]
    clips[0].masks[1, 0, 0] = 255
    clips[0] = replace(clips[0], n_objects=1)
    batch = collate(clips, 3)
    assert batch.frames.shape == (2, 3, 3, 32, 32)
    assert batch.depth is None
    assert (batch.labels.shape, batch.labels.dtype) == ((2, 3, 32, 32), torch.uint8)
    assert batch.objects.dtype == torch.bool
    assert batch.objects[0].tolist() == [True, False, False]
    assert batch.objects.sum(1).tolist() == [clip.n_objects for clip in clips]
    assert batch.labels[0, 1, 0, 0] == 255
    np.testing.assert_array_equal(batch.frames[1].numpy(), clips[1].frames)
    on_device = batch.to(torch.device("cpu"))
    assert (on_device.labels.dtype, on_device.frames.dtype) == (torch.int64, torch.float32)
    torch.testing.assert_close(on_device.frames * 255, batch.frames.float())
    deep = replace(clips[0], depth=np.full((3, 1, 32, 32), 0.5, np.float32))
    both = collate([deep, deep], 3).depth
    assert both is not None and both.shape == (2, 3, 1, 32, 32)
    with pytest.raises(ValueError, match="1 of 2 clips have depth"):
        collate([deep, clips[1]], 3)
    with pytest.raises(ValueError, match="the batch has 0 slots"):
        collate(clips, 0)
