"""Joint augmentation, compared with coordinates written into the images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.core.errors import UserError
from pipeline.core.params import build
from pipeline.datasets.config import AugmentConfig, ClipConfig
from pipeline.datasets.transforms import View, draw_view

H, W = 100, 140
PLAIN = AugmentConfig(
    crop=32, max_scale=1.0, flip=False, color_jitter=0.0, affine_degrees=0.0, affine_scale=0.0, affine_shear=0.0
)
AFFINE = replace(PLAIN, affine_degrees=25.0, affine_scale=0.1, affine_shear=10.0)


def _coordinates(height: int = H, width: int = W) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.uint8]]:
    """Red is the column, green the row; depth is the column; the mask is a board of 8-pixel squares, some void."""
    rows, columns = np.mgrid[:height, :width]
    rgb = np.stack([columns, rows, np.zeros_like(rows)], axis=-1).astype(np.uint8)
    mask = np.choose((rows // 8 + 2 * (columns // 8)) % 4, [0, 1, 2, 255]).astype(np.uint8)
    return rgb, (columns / 255).astype(np.float32), mask


def _draw(config: AugmentConfig, seed: int, mask: NDArray[np.uint8], n_frames: int = 3) -> View:
    return draw_view(np.random.default_rng(seed), config, mask, [1, 2], n_frames)


@pytest.mark.parametrize(
    "config", [PLAIN, AFFINE, replace(PLAIN, flip=True, max_scale=1.7), replace(AFFINE, flip=True)]
)
@pytest.mark.parametrize("shape", [(H, W), (W, H), (28, 40), (32, 90)])
def test_frame_depth_and_mask_show_the_same_place(config: AugmentConfig, shape: tuple[int, int]) -> None:
    rgb, depth, mask = _coordinates(*shape)
    judged = 0
    for seed in range(20):
        view = _draw(config, seed, mask)
        for t in range(3):
            frame, near, ids = view.frame(rgb, t), view.depth(depth, t), view.mask(mask, t)
            assert (frame.shape, near.shape, ids.shape) == ((3, 32, 32), (1, 32, 32), (32, 32))
            assert [str(x.dtype) for x in (frame, near, ids)] == ["uint8", "float32", "uint8"]
            column, row = frame[0].astype(float), frame[1].astype(float)
            np.testing.assert_allclose(near[0] * 255, column, atol=1)  # frames are sampled in 8 bits
            # where the coordinate lies safely within a square, the mask is that square's
            inner = np.logical_and.reduce([(c % 8 > 0.9) & (c % 8 < 6.1) for c in (column, row)])
            expected = mask[np.rint(row).astype(int), np.rint(column).astype(int)]
            np.testing.assert_array_equal(ids[inner], expected[inner])
            judged += int(inner.sum())
    assert judged > 10_000


def test_masks_invent_no_ids() -> None:
    _, _, mask = _coordinates()
    for config in (PLAIN, AFFINE, replace(PLAIN, max_scale=3.0)):
        for seed in range(10):
            assert set(np.unique(_draw(config, seed, mask).mask(mask, 0))) <= {0, 1, 2, 255}


def test_views_differ_over_frames_only_by_the_affine() -> None:
    rgb, _, mask = _coordinates()
    still, moving = _draw(PLAIN, 0, mask), _draw(AFFINE, 0, mask)
    np.testing.assert_array_equal(still.frame(rgb, 0), still.frame(rgb, 2))
    assert np.abs(moving.frame(rgb, 0).astype(int) - moving.frame(rgb, 2)).max() > 3


def test_short_side_lies_between_crop_and_original() -> None:
    _, _, mask = _coordinates()
    sides = np.array([_draw(PLAIN, seed, mask).side for seed in range(300)])
    scaled = 32 * H / sides  # the short side after scaling
    assert sides.max() <= H
    assert scaled.min() >= 32
    assert sides.min() >= 32
    assert scaled.min() < 34
    assert scaled.max() > 97
    assert abs(scaled.mean() - (32 + H) / 2) < 4
    larger = [_draw(replace(PLAIN, max_scale=2.0), seed, mask).side for seed in range(300)]
    assert min(larger) < 17  # up to twice the original


def test_small_frames_are_scaled_up_to_the_crop() -> None:
    _, _, mask = _coordinates(20, 50)
    assert {_draw(PLAIN, seed, mask).side for seed in range(20)} == {20}


def test_window_holds_an_object() -> None:
    mask = np.zeros((H, W), np.uint8)
    mask[3, 5] = 1
    mask[98, 139] = 2
    seen = set()
    for seed in range(60):
        view = _draw(PLAIN, seed, mask)
        window = mask[view.top : view.top + view.side, view.left : view.left + view.side]
        assert window.shape == (view.side, view.side)
        assert window.any()
        seen |= set(np.unique(window))
    assert seen == {0, 1, 2}


def test_flip_mirrors_half_of_the_clips() -> None:
    rgb, _, mask = _coordinates()
    flips = 0
    for seed in range(200):
        view = _draw(replace(PLAIN, flip=True), seed, mask)
        columns = view.frame(rgb, 0)[0, 0]
        assert (columns[0] > columns[-1]) == view.flip
        flips += view.flip
    assert 70 < flips < 130
    assert not any(_draw(PLAIN, seed, mask).flip for seed in range(20))


def test_color_jitter_is_bounded_and_alike_over_the_clip() -> None:
    grey = np.full((H, W, 3), 128, np.uint8)
    _, _, mask = _coordinates()
    values = []
    for seed in range(100):
        view = _draw(replace(PLAIN, color_jitter=0.2), seed, mask)
        first, last = view.frame(grey, 0), view.frame(grey, 2)
        np.testing.assert_array_equal(first, last)
        np.testing.assert_allclose(first.astype(int), int(first[0, 0, 0]), atol=1)  # grey stays grey, but for rounding
        values.append(float(first[0, 0, 0]) / 255)
    assert 0.4 - 0.01 <= min(values) < 0.45
    assert 0.55 < max(values) <= 0.6 + 0.01
    np.testing.assert_allclose(_draw(PLAIN, 0, mask).color, np.eye(3, 4), atol=1e-6)
    white = np.full((H, W, 3), 255, np.uint8)
    assert _draw(replace(PLAIN, color_jitter=0.9), 1, mask).frame(white, 0).dtype == np.uint8


def test_equal_seeds_give_equal_views() -> None:
    rgb, _, mask = _coordinates()
    config = replace(AFFINE, flip=True, color_jitter=0.3)
    np.testing.assert_array_equal(_draw(config, 5, mask).frame(rgb, 1), _draw(config, 5, mask).frame(rgb, 1))
    assert not np.array_equal(_draw(config, 5, mask).frame(rgb, 1), _draw(config, 6, mask).frame(rgb, 1))


def test_configuration_refuses_impossible_values() -> None:
    augment: dict[str, object] = {
        "crop": 384,
        "max_scale": 1.0,
        "flip": True,
        "color_jitter": 0.1,
        "affine_degrees": 0.0,
        "affine_scale": 0.0,
        "affine_shear": 0.0,
    }
    clips: dict[str, object] = {"n_frames": 3, "max_objects": 3, "augment": augment}
    assert build(ClipConfig, clips, "clips").augment.crop == 384
    wrong = {"crop": 8, "max_scale": 0.5, "color_jitter": 1.0, "affine_degrees": -1.0, "affine_scale": 1.5}
    for key, value in wrong.items():
        with pytest.raises(UserError, match=key):
            build(ClipConfig, clips | {"augment": augment | {key: value}}, "clips")
    for key, value in {"n_frames": 1, "max_objects": 0}.items():
        with pytest.raises(UserError, match=key):
            build(ClipConfig, clips | {key: value}, "clips")
