"""Simulated clips: affines, alignment of colour and label, void, occlusion, what is skipped."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.core.errors import UserError
from pipeline.core.stills import Instances
from pipeline.synthesis.affine import Affine, draw_motion, to_matrix
from pipeline.synthesis.compose import paste_colours, paste_labels
from pipeline.synthesis.config import SynthesisConfig
from pipeline.synthesis.layers import Layer, cover, cut_out, frame_shape
from pipeline.synthesis.simulate import HIDDEN, TINY, UNUSABLE, Clip, count_clips, simulate
from tests.support.fake_stills import CONFIG, GREEN, RED, FakeStills, disc, make_stills


def clips_of(stills: FakeStills, config: SynthesisConfig, n: int) -> list[Clip]:
    found = [simulate(stills, index, config)[0] for index in range(n)]
    return [clip for clip in found if clip is not None]


def near(frame: NDArray[np.uint8], colour: tuple[int, int, int], tolerance: int = 3) -> NDArray[np.bool_]:
    return np.asarray((np.abs(frame.astype(int) - colour) <= tolerance).all(-1))


def grown(mask: NDArray[np.bool_], by: int) -> NDArray[np.bool_]:
    return cv2.dilate(mask.astype(np.uint8), np.ones((2 * by + 1, 2 * by + 1), np.uint8)) > 0


def shrunk(mask: NDArray[np.bool_], by: int) -> NDArray[np.bool_]:
    """What is left away from the mask's edge and the frame's."""
    kernel = np.ones((2 * by + 1, 2 * by + 1), np.uint8)
    return cv2.erode(mask.astype(np.uint8), kernel, borderType=cv2.BORDER_CONSTANT, borderValue=(0,)) > 0


# --- affine ---


@pytest.mark.parametrize("motion", ["independent", "smooth"])
def test_parameters_stay_in_their_ranges(motion: str) -> None:
    config = replace(CONFIG, motion=motion, n_frames=5)  # type: ignore[arg-type]
    rng = np.random.default_rng(0)
    drawn = [affine for _ in range(400) for affine in draw_motion(config, rng)]
    for values, low, high in (
        ([a.rotation for a in drawn], -20, 20),
        ([a.scale for a in drawn], 0.9, 1.1),
        ([a.shear for a in drawn], -10, 10),
        ([a.shift_x for a in drawn], -0.1, 0.1),
        ([a.shift_y for a in drawn], -0.1, 0.1),
    ):
        assert low <= min(values) < low + 0.05 * (high - low)  # inside, and the range is used
        assert high - 0.05 * (high - low) < max(values) <= high


def test_smooth_motion_goes_in_equal_steps() -> None:
    motion = draw_motion(replace(CONFIG, motion="smooth", n_frames=4), np.random.default_rng(1))
    steps = np.diff([[a.rotation, a.scale, a.shear, a.shift_x, a.shift_y] for a in motion], axis=0)
    assert np.allclose(steps, steps[0])
    assert len(draw_motion(replace(CONFIG, motion="smooth", n_frames=1), np.random.default_rng(1))) == 1


def test_matrix_by_hand() -> None:
    quarter = to_matrix(Affine(90.0, 2.0, 0.0, 0.1, -0.2), (3.0, 4.0), (10.0, 20.0), (50, 100))
    assert np.allclose(quarter @ [3, 4, 1], [10 + 0.1 * 100, 20 - 0.2 * 50])  # the pivot: only shifted
    assert np.allclose(quarter @ [4, 4, 1], [20, 10 + 2])  # one to the right of it: two below
    leaning = to_matrix(Affine(0.0, 1.0, 45.0, 0.0, 0.0), (0.0, 0.0), (0.0, 0.0), (50, 100))
    assert np.allclose(leaning @ [0, 1, 1], [1, 1])
    any_one = to_matrix(Affine(13.0, 0.9, 7.0, 0.0, 0.0), (1.0, 2.0), (3.0, 4.0), (50, 100))
    assert np.isclose(np.linalg.det(any_one[:, :2]), 0.81)


# --- layers and their composition ---


def naive_labels(layer: Layer, matrix: NDArray[np.float64], frame: tuple[int, int]) -> NDArray[np.uint8]:
    """Nearest neighbour by a loop over the frame."""
    inverse = np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))
    result = np.zeros(frame, np.uint8)
    for y in range(frame[0]):
        for x in range(frame[1]):
            column, row, _ = np.floor(inverse @ [x, y, 1] + 0.5).astype(int)
            if 0 <= row < layer.labels.shape[0] and 0 <= column < layer.labels.shape[1]:
                result[y, x] = layer.labels[row, column]
    return result


def test_labels_are_warped_by_nearest_neighbour() -> None:
    rng = np.random.default_rng(5)
    labels = np.kron(rng.choice(np.array([0, 1, 255], np.uint8), (6, 8)), np.ones((5, 5), np.uint8))
    layer = Layer(np.zeros((30, 40, 3), np.uint8), labels, (20.0, 15.0), (22.0, 14.0))
    frame = (30, 44)
    matrix = to_matrix(Affine(17.0, 1.05, -6.0, 0.03, 0.05), layer.pivot, layer.place, frame)
    ground = Layer(np.zeros((30, 44, 3), np.uint8), np.zeros((30, 44), np.uint8), (0.0, 0.0), (0.0, 0.0))
    pasted = paste_labels([ground, layer], [0, 7], [np.eye(2, 3), matrix], frame)
    over = naive_labels(layer, matrix, frame)
    assert (pasted == np.where(over == 1, 7, over)).mean() > 0.995  # OpenCV rounds positions to 1/32 of a pixel


def test_target_mirrored_beyond_the_edge_is_void() -> None:
    labels = np.zeros((10, 10), np.uint8)
    labels[:, :3] = 1
    layer = Layer(np.zeros((10, 10, 3), np.uint8), labels, (0.0, 0.0), (0.0, 0.0))
    moved = np.array([[1.0, 0.0, 5.0], [0.0, 1.0, 0.0]])
    mask = paste_labels([layer], [1], [moved], (10, 12))
    assert mask[4].tolist() == [0, 0, 0, 255, 255, 1, 1, 1, 0, 0, 0, 0]


def test_upper_layers_hide_lower_ones() -> None:
    frame = (20, 20)
    ground = Layer(np.full((20, 20, 3), 50, np.uint8), np.zeros((20, 20), np.uint8), (0.0, 0.0), (0.0, 0.0))

    def square(colour: int, left: int) -> Layer:
        labels = np.zeros((20, 20), np.uint8)
        labels[5:15, left : left + 8] = 1
        labels[5:15, left] = 255
        return Layer(np.full((20, 20, 3), colour, np.uint8), labels, (0.0, 0.0), (0.0, 0.0))

    layers = [ground, square(100, 2), square(200, 6)]
    here = [np.eye(2, 3)] * 3
    mask = paste_labels(layers, [0, 1, 2], here, frame)
    assert mask[10].tolist() == [0, 0, 255, 1, 1, 1, 255, *[2] * 7, *[0] * 6]
    frame_colours = paste_colours(layers, here, frame)[10, :, 0]
    assert np.abs(frame_colours[[4, 9, 10, 11]].astype(int) - [100, 200, 200, 200]).max() <= 2  # the soft edge
    assert np.abs(frame_colours[[0, 19]].astype(int) - 50).max() <= 1
    assert set(np.unique(mask)) == {0, 1, 2, 255}  # no label is blended


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [(480, 640, (48, 64)), (640, 480, (64, 48)), (100, 100, (48, 48)), (100, 900, (48, 96)), (900, 100, (96, 48))],
)
def test_frame_shape(height: int, width: int, expected: tuple[int, int]) -> None:
    assert frame_shape(height, width, 48) == expected


@pytest.mark.parametrize("shape", [(80, 120), (300, 100), (31, 400)])
def test_background_crop_lies_in_its_image(shape: tuple[int, int]) -> None:
    frame = frame_shape(*shape, 48)
    rng = np.random.default_rng(0)
    for _ in range(30):
        layer = cover(np.zeros((*shape, 3), np.uint8), np.zeros(shape, np.uint8), frame, 0.5, rng)
        left, top = layer.pivot[0] - layer.place[0], layer.pivot[1] - layer.place[1]
        assert left >= 0
        assert top >= 0
        assert left + frame[1] <= max(layer.rgb.shape[1], frame[1])
        assert top + frame[0] <= max(layer.rgb.shape[0], frame[0])
        assert layer.rgb.shape[:2] == layer.labels.shape
        assert abs(layer.rgb.shape[1] / layer.rgb.shape[0] / (shape[1] / shape[0]) - 1) < 0.05


def test_cut_out_takes_its_own_void_and_limits_its_size() -> None:
    target = disc(100, 100, 40, 50, 30)
    void = (disc(100, 100, 40, 50, 32) & ~target) | disc(100, 100, 90, 10, 5)  # a ring, and a crowd far away
    rng = np.random.default_rng(0)
    layer = cut_out(np.zeros((100, 100, 3), np.uint8), target, void, (100, 100), 0.9, rng)
    assert layer.area == target.sum()  # same scale: nothing lost
    assert (layer.labels == 255).sum() == (void & disc(100, 100, 40, 50, 40)).sum()
    small = cut_out(np.zeros((100, 100, 3), np.uint8), target, void, (100, 100), 0.1, rng)
    assert abs(small.area / 1000 - 1) < 0.1
    assert 0 <= small.place[0] < 100


# --- whole clips ---


def test_clip_form() -> None:
    stills = make_stills()
    clips = clips_of(stills, CONFIG, 12)
    assert len(clips) == 12
    assert {clip.n_objects for clip in clips} == {1, 2, 3}
    for clip in clips:
        shape = clip.masks[0].shape
        assert min(shape) == 48
        assert max(shape) == 72
        assert len(clip.frames) == len(clip.masks) == 3
        assert all(f.shape == (*shape, 3) and f.dtype == np.uint8 for f in clip.frames)
        assert all(m.shape == shape and m.dtype == np.uint8 for m in clip.masks)
        assert sorted(set(np.unique(clip.masks[0])) - {0, 255}) == list(range(1, clip.n_objects + 1))
        assert any((clip.frames[0] != frame).any() for frame in clip.frames[1:])


@pytest.mark.parametrize("in_place", [0.0, 1.0])
def test_labels_lie_where_the_colours_are(in_place: float) -> None:
    """Objects are the only red, so that the mask can be read off the picture."""
    config = replace(CONFIG, in_place=in_place, max_objects=1)
    for clip in clips_of(make_stills(ring=0), config, 20):
        for frame, mask in zip(clip.frames, clip.masks):
            red = near(frame, RED)
            unknown = mask == 255  # beyond the edge of an image whose object is the target
            # a background's own object is not a target; it is red as well, so only one direction is checked
            inside = shrunk(mask == 1, 2)  # resizing, warp and feather blend two pixels
            assert red[inside].all()
            if in_place:
                assert not (red & ~unknown & ~grown(mask == 1, 2)).any()


def test_background_objects_are_background() -> None:
    stills = make_stills(colour=None, ring=0)
    for clip in clips_of(stills, replace(CONFIG, in_place=0.0, max_objects=1), 12):
        red, green, blue = stills.image(clip.image)[stills.instances(clip.image).masks[0]][0].tolist()
        for frame, mask in zip(clip.frames, clip.masks):
            shown = near(frame, (red, green, blue), 6)
            assert not (shown & ~grown(mask == 1, 2)).any()
            assert (mask != 255).all()


@pytest.mark.parametrize("in_place", [0.0, 1.0])
def test_void_stays_void(in_place: float) -> None:
    """Void is the only green."""
    config = replace(CONFIG, in_place=in_place, translation=0.02)
    stills = make_stills(ring=12)
    total = 0
    sure: list[NDArray[np.bool_]] = []
    for clip in clips_of(stills, config, 12):
        for frame, mask in zip(clip.frames, clip.masks):
            green = near(frame, GREEN, 12)
            assert (mask[green] == 255).mean() > 0.97 if green.any() else True
            known = mask != 255
            assert not (green & known & ~grown(mask == 255, 1)).any()
            total += int(green.sum())
            if in_place == 0.0:  # nor is anything else void; where two rings meet a few pixels are mixed
                sure.append(near(frame, GREEN, 40)[shrunk(mask == 255, 2)])
    assert total > 1000
    if sure:
        assert np.concatenate(sure).sum() > 1000
        assert np.concatenate(sure).mean() > 0.99


def test_clips_are_determined_by_seed_and_index() -> None:
    stills = make_stills()
    one, again, other = (simulate(stills, i, CONFIG)[0] for i in (4, 4, 5))
    reseeded = simulate(stills, 4, replace(CONFIG, seed=4))[0]
    assert one is not None
    assert again is not None
    assert other is not None
    assert reseeded is not None
    assert all((a == b).all() for a, b in zip(one.frames + one.masks, again.frames + again.masks))
    for changed in (other, reseeded):
        assert one.frames[0].shape != changed.frames[0].shape or (one.frames[0] != changed.frames[0]).any()


def test_every_image_begins_a_clip() -> None:
    stills = make_stills(7)
    assert count_clips(stills, CONFIG) == 7
    assert count_clips(stills, replace(CONFIG, n_clips=20)) == 20
    assert sorted(clip.image for clip in clips_of(stills, CONFIG, 7)) == sorted(stills.images)


def test_tiny_instances_are_skipped_and_counted() -> None:
    stills = make_stills(4, extra_tiny=2)
    for index in range(4):
        clip, skipped = simulate(stills, index, CONFIG)
        assert clip is not None
        assert skipped == [(clip.image, TINY, 2)]
    for clip in clips_of(stills, replace(CONFIG, in_place=1.0, max_objects=1), 4):
        assert (clip.masks[0] == 1).mean() > 0.05
    clip, skipped = simulate(stills, 0, replace(CONFIG, min_area=0.24))
    assert clip is None
    assert [(s.reason, s.n) for s in skipped] == [(TINY, 3), (UNUSABLE, 1)]


def test_objects_show_in_the_first_frame() -> None:
    config = replace(CONFIG, max_objects=3, min_visible=0.8, max_area=0.1, in_place=0.0)
    for clip in clips_of(make_stills(ring=0), config, 30):
        for identity in range(1, clip.n_objects + 1):
            share = (clip.masks[0] == identity).mean()
            assert share > 0.8 * 0.1 * 0.9**2 * 0.9  # each disc is brought to a tenth of the frame, then scaled


def test_object_that_cannot_stay_visible_is_counted() -> None:
    stills = make_stills(2, ring=0)
    for rgb, found in stills.pictures.values():
        found.masks[...] = True
        rgb[...] = RED
    config = replace(CONFIG, in_place=1.0, max_objects=1, crop_min=0.5, min_visible=0.999, scale_min=1.05)
    clip, skipped = simulate(stills, 0, config)
    assert clip is None
    assert [(s.reason, s.n) for s in skipped] == [(HIDDEN, 1)]


def test_one_image_is_enough() -> None:
    stills = make_stills(1)
    (clip,) = clips_of(stills, replace(CONFIG, in_place=0.0), 1)
    assert clip.n_objects == 1  # nothing to paste from another image


def test_nothing_usable_elsewhere_gives_fewer_objects() -> None:
    stills = make_stills(5)
    alone = stills.images[0]
    for name in stills.images[1:]:
        rgb, found = stills.pictures[name]
        stills.pictures[name] = (rgb, Instances(found.masks[:0], found.void))
    results = [simulate(stills, index, CONFIG) for index in range(5)]
    assert [(c.image, c.n_objects) for c, _ in results if c] == [(alone, 1)]
    assert sum(s.n for _, skipped in results for s in skipped if s.reason == UNUSABLE) == 4


@pytest.mark.parametrize(
    ("key", "value"), [("short_side", 8), ("scale_min", 1.2), ("max_objects", 0), ("min_area", 0.5), ("in_place", 1.5)]
)
def test_settings_out_of_range(key: str, value: float) -> None:
    with pytest.raises(UserError, match=f"synthesis: {key} is"):
        replace(CONFIG, **{key: value})  # type: ignore[arg-type]


# --- what holds for any layers ---


@st.composite
def scenes(draw: st.DrawFn) -> tuple[list[Layer], list[int], list[NDArray[np.float64]], tuple[int, int]]:
    """A background and up to three cut-outs with random labels, anywhere in or outside of a small frame."""
    frame = (draw(st.integers(8, 40)), draw(st.integers(8, 40)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    layers, matrices = [], []
    for _ in range(1 + draw(st.integers(0, 3))):
        sides = rng.integers(3, 30, 2)
        labels = np.asarray(cv2.medianBlur(rng.choice(np.array([0, 0, 1, 1, 255], np.uint8), sides), 3), np.uint8)
        rgb = rng.integers(0, 256, (*sides, 3), dtype=np.uint8)
        layers.append(Layer(rgb, labels, (sides[1] / 2, sides[0] / 2), (0.0, 0.0)))
        place = (rng.uniform(-0.2, 1.2) * frame[1], rng.uniform(-0.2, 1.2) * frame[0])
        affine = Affine(rng.uniform(-180, 180), rng.uniform(0.5, 2), rng.uniform(-30, 30), 0.0, 0.0)
        matrices.append(to_matrix(affine, layers[-1].pivot, place, frame))
    ids = [int(rng.integers(2)), *(2 + rng.permutation(len(layers) - 1))]
    return layers, [int(i) for i in ids], matrices, frame


Scene = tuple[list[Layer], list[int], list[NDArray[np.float64]], tuple[int, int]]


def whole_frame(image: NDArray, matrix: NDArray[np.float64], frame: tuple[int, int], how: int, border: int) -> NDArray:
    return cv2.warpAffine(image, matrix, frame[::-1], flags=how, borderMode=border)


@settings(deadline=None, max_examples=60)
@given(scenes())
def test_no_label_outlives_its_pixels_and_none_is_invented(scene: Scene) -> None:
    """By whole-frame warps of each layer: a pixel has the label of the nearest layer that covers it."""
    layers, ids, matrices, frame = scene
    expected = np.zeros(frame, np.uint8)
    for depth, (layer, identity, matrix) in enumerate(zip(layers, ids, matrices, strict=True)):
        own = whole_frame(layer.labels, matrix, frame, cv2.INTER_NEAREST, cv2.BORDER_CONSTANT)
        if depth == 0:
            mirrored = whole_frame(layer.labels, matrix, frame, cv2.INTER_NEAREST, cv2.BORDER_REFLECT_101)
            own = np.where((own == 0) & (mirrored > 0), 255, own)
        expected = np.where(own == 1, identity, np.where(own == 255, 255, expected)).astype(np.uint8)
    np.testing.assert_array_equal(paste_labels(layers, ids, matrices, frame), expected)
    assert set(np.unique(expected)) <= {0, 255, *ids}


@settings(deadline=None, max_examples=60)
@given(scenes())
def test_bands_of_rows_give_the_colours_of_whole_frames(scene: Scene) -> None:
    layers, _, matrices, frame = scene
    canvas = whole_frame(layers[0].rgb, matrices[0], frame, cv2.INTER_LINEAR, cv2.BORDER_REFLECT_101)
    for layer, matrix in zip(layers[1:], matrices[1:], strict=True):
        solid = (layer.labels > 0).astype(np.float32)
        alpha = whole_frame(solid, matrix, frame, cv2.INTER_LINEAR, cv2.BORDER_CONSTANT)
        left, top, across, down = cv2.boundingRect((alpha > 0).astype(np.uint8))
        if not across:
            continue
        rows, columns = slice(max(0, top - 2), top + down + 2), slice(max(0, left - 2), left + across + 2)
        soft = cv2.GaussianBlur(alpha, (0, 0), 0.7)[..., None]
        colours = whole_frame(layer.rgb, matrix, frame, cv2.INTER_LINEAR, cv2.BORDER_REPLICATE)
        canvas[rows, columns] = np.rint(soft * colours + (1 - soft) * canvas)[rows, columns].astype(np.uint8)
    np.testing.assert_array_equal(paste_colours(layers, matrices, frame), canvas)


def test_the_order_of_a_clip_names_every_object() -> None:
    for clip in clips_of(make_stills(6, colour=None), replace(CONFIG, max_objects=3, in_place=0.5), 12):
        assert sorted(clip.order) == list(range(1, clip.n_objects + 1))
