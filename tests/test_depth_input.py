"""The controls of the depth channel: each keeps what it says and loses what it says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.core.errors import UserError
from pipeline.datasets.depth_input import DepthInput, DepthKind, open_depth_input
from pipeline.datasets.video import Video
from tests.support.tiny_archives import Toy, make_toy, write_depth

A, B = make_toy(4, 1), make_toy(3, 2, 24, 32)
VIDEOS = tuple(
    Video(name, ids := tuple(f"{i:05d}" for i in range(n)), ids, {1: "00000"}) for name, n in (("a", 4), ("b", 3))
)


def opened(folder: Path, kind: DepthKind) -> DepthInput:
    return open_depth_input(write_depth(folder, {"a": A, "b": B}), kind, VIDEOS)


def close(found: NDArray[np.float32], wanted: NDArray[np.float32]) -> bool:
    return found.dtype == np.float32 and found.shape == wanted.shape and float(np.abs(found - wanted).max()) < 1e-4


def test_estimated_is_the_map_itself(tmp_path: Path) -> None:
    assert close(opened(tmp_path, "estimated").read(VIDEOS[0], "00002", A.frames[2]), A.depths[2])


def test_constant_and_luminance_need_no_maps(tmp_path: Path) -> None:
    constant = open_depth_input(tmp_path / "none", "constant", VIDEOS).read(VIDEOS[0], "00001", A.frames[1])
    assert constant.shape == A.depths[1].shape and set(constant.ravel()) == {0.5}
    luminance = open_depth_input(tmp_path / "none", "luminance", VIDEOS).read(VIDEOS[0], "00001", A.frames[1])
    weights = np.array([0.299, 0.587, 0.114])  # Rec. 601
    assert np.abs(luminance - (A.frames[1] @ weights) / 255).max() < 1 / 255


def test_shuffled_keeps_the_histogram_and_loses_the_place(tmp_path: Path) -> None:
    depth = opened(tmp_path, "shuffled")
    first = depth.read(VIDEOS[0], "00001", A.frames[1])
    assert close(np.sort(first.ravel()), np.sort(A.depths[1].ravel()))
    assert not close(first, A.depths[1])
    assert (first == depth.read(VIDEOS[0], "00001", A.frames[1])).all()  # the same at every reading
    assert (first != depth.read(VIDEOS[0], "00002", A.frames[2])).any()


@pytest.mark.parametrize("video,frame,toy,at", [(0, "00002", B, 2), (0, "00003", B, 2), (1, "00001", A, 1)])
def test_other_video_is_the_next_ones_at_the_same_moment(
    tmp_path: Path, video: int, frame: str, toy: Toy, at: int
) -> None:
    import cv2

    rgb = (A, B)[video].frames[int(frame)]
    found = opened(tmp_path, "other_video").read(VIDEOS[video], frame, rgb)
    wanted = cv2.resize(toy.depths[at], (rgb.shape[1], rgb.shape[0]), interpolation=cv2.INTER_LINEAR)
    assert close(found, wanted)


def test_other_video_needs_another_video(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected at least 2"):
        open_depth_input(write_depth(tmp_path, {"a": A}), "other_video", VIDEOS[:1])
