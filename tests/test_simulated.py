from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.core.archives import ZipWriter
from pipeline.core.errors import UserError
from pipeline.datasets.depth_maps import DepthMaps
from pipeline.datasets.simulated import open_simulated
from tests.support.tiny_archives import make_toy, write_depth, write_simulated


def test_clips_over_several_shards(tmp_path: Path) -> None:
    clips = {f"clip-{i}": make_toy(3, 1 + i % 2) for i in range(7)}
    folder = write_simulated(tmp_path / "coco", clips, limit_bytes=6_000)
    assert len(list(folder.glob("shard-*.zip"))) > 1
    source = open_simulated(folder)
    assert [v.name for v in source.videos] == sorted(clips)
    for video in source.videos:
        assert video.frames == video.annotated == ("00000", "00001", "00002")
        np.testing.assert_array_equal(source.mask(video, "00001"), clips[video.name].masks[1])
    assert dict(source.videos[1].first_seen) == {1: "00000", 2: "00000"}


def test_refuses_empty_and_unpaired(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no simulated clip"):
        open_simulated(tmp_path)
    with ZipWriter(tmp_path / "shard-00000.zip") as shard:
        shard.write("JPEGImages/a/00000.jpg", b"")
    with pytest.raises(UserError, match="clip a has 1 frames and 0 masks"):
        open_simulated(tmp_path)


def test_a_data_set_that_is_switched_off_gives_no_videos(tmp_path: Path) -> None:
    (tmp_path / "clips.csv").write_text("name,image,n_objects\n")
    assert open_simulated(tmp_path).videos == ()


def test_depth_maps(tmp_path: Path) -> None:
    toy = make_toy()
    maps = DepthMaps(write_depth(tmp_path, {"a": toy, "b": toy}))
    depth = maps.read("b", "00004")
    assert depth.dtype == np.float32
    np.testing.assert_allclose(depth, toy.depths[4], atol=1 / 65535)
    with pytest.raises(UserError, match=r"c/00000\.png"):
        maps.read("c", "00000")
    with pytest.raises(UserError, match="contains no depth map"):
        DepthMaps(tmp_path / "nowhere")
