"""Reader of COCO: the published data set, and your own data in its format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from pipeline.core.errors import UserError
from pipeline.core.images import encode_jpeg
from pipeline.datasets.coco import open_coco
from pipeline.datasets.coco_segmentation import compact, draw, find_fault
from tests.support.tiny_archives import make_toy, write_folder, write_zip

# pycocotools 2.0.11 hands numpy 2 arrays in an old way
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

H, W = 48, 64
JPEG = encode_jpeg(make_toy(1).frames[0])


def _box(top: int, left: int, bottom: int, right: int) -> NDArray[np.bool_]:
    mask = np.zeros((H, W), np.bool_)
    mask[top:bottom, left:right] = True
    return mask


def _compressed(mask: NDArray[np.bool_]) -> dict[str, Any]:
    runs = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": [H, W], "counts": runs["counts"].decode()}


def _uncompressed(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """Run lengths down the columns, the first of zeros."""
    counts, value, run = [], False, 0
    for pixel in mask.T.ravel():
        if pixel != value:
            counts.append(run)
            value, run = bool(pixel), 0
        run += 1
    return {"size": [H, W], "counts": [*counts, run]}


def _coco(segmentations: list[tuple[int, int, int, Any]], n_images: int = 3) -> dict[str, Any]:
    return {
        "images": [{"id": i, "file_name": f"{i:012d}.jpg", "height": H, "width": W} for i in range(1, n_images + 1)],
        "categories": [
            {"id": 1, "name": "person", "isthing": 1},
            {"id": 40, "name": "moss", "isthing": 0},
            {"id": 125, "name": "gravel", "supercategory": "ground"},
            {"id": 150, "name": "bolt", "supercategory": "screw"},
        ],
        "annotations": [
            {"id": n, "image_id": image, "category_id": category, "iscrowd": crowd, "segmentation": segmentation}
            for n, (image, category, crowd, segmentation) in enumerate(segmentations)
        ],
    }


def _write_coco(folder: Path, data: dict[str, Any] | bytes, images: int = 3) -> Path:
    content = data if isinstance(data, bytes) else json.dumps(data).encode()
    files = {"annotations/instances_train2017.json": content, "annotations/instances_val2017.json": b"{}"}
    write_zip(folder / "annotations_trainval2017.zip", files)
    write_zip(folder / "train2017.zip", {f"train2017/{i:012d}.jpg": JPEG for i in range(1, images + 1)})
    return folder


def test_coco_reads_every_form_of_segmentation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    square = [8.0, 6.0, 20.0, 6.0, 20.0, 16.0, 8.0, 16.0]
    other = [30.0, 6.0, 36.0, 6.0, 36.0, 16.0, 30.0, 16.0]
    compressed, uncompressed = _box(20, 3, 40, 9), _box(0, 50, 48, 52)
    crowd = _box(15, 0, 30, 30)
    data = _coco(
        [
            (1, 1, 0, [square, other]),  # one object of two parts
            (1, 1, 0, _compressed(compressed)),
            (1, 2, 0, _uncompressed(uncompressed)),
            (1, 1, 1, _uncompressed(crowd)),
            (1, 125, 0, _compressed(_box(0, 0, 48, 64))),  # stuff by its id and supercategory
            (1, 40, 0, _compressed(_box(0, 0, 48, 64))),  # stuff by `isthing`
            (1, 150, 0, _compressed(_box(30, 30, 32, 33))),  # a high id alone is not stuff
            (1, 1, 0, []),
            (2, 1, 0, None),
            (9, 1, 0, [square]),
            (2, 1, 1, _uncompressed(crowd)),  # nothing but a crowd
            (3, 1, 0, [[1.0, 1.0, 2.0, 2.0]]),  # a line
        ]
    )
    source = open_coco(_write_coco(tmp_path, data))
    said = capsys.readouterr().out
    assert (
        "left out 2 annotations of stuff categories (125 gravel, 40 moss), 2 annotations without a segmentation" in said
    )
    assert "1 polygons of fewer than three points, 1 annotations of images that the file does not list" in said
    assert source.images == ("000000000001",)
    assert source.counts == {
        "images": 1,
        "images_left_out": 2,
        "instances": 4,
        "crowds": 2,
        "stuff": 2,
        "degenerate": 1,
        "without_segmentation": 2,
        "without_image": 1,
    }
    assert source.image("000000000001").shape == (H, W, 3)
    masks, void = source.instances("000000000001")
    np.testing.assert_array_equal(masks[0], _box(6, 8, 16, 20) | _box(6, 30, 16, 36))
    np.testing.assert_array_equal(masks[1], compressed)
    np.testing.assert_array_equal(masks[2], uncompressed)
    np.testing.assert_array_equal(void, crowd & ~masks.any(axis=0))


def test_coco_keeps_tiny_objects_but_not_empty_ones(tmp_path: Path) -> None:
    thin = [5.1, 5.1, 5.2, 5.1, 5.2, 5.2]
    source = open_coco(_write_coco(tmp_path, _coco([(1, 1, 0, [thin]), (1, 1, 0, _compressed(_box(0, 0, 1, 1)))])))
    masks, _ = source.instances("000000000001")
    np.testing.assert_array_equal(masks, _box(0, 0, 1, 1)[None])


def test_coco_from_folders(tmp_path: Path) -> None:
    data = _coco([(1, 1, 0, _compressed(_box(2, 2, 9, 9)))], n_images=1)
    files = {"annotations/instances_train2017.json": json.dumps(data).encode(), "train2017/000000000001.jpg": JPEG}
    source = open_coco(write_folder(tmp_path, files))
    assert source.instances("000000000001").masks.sum() == 49


def test_coco_refuses(tmp_path: Path) -> None:
    whole = _compressed(_box(2, 2, 9, 9))

    def fault(data: dict[str, Any] | bytes, images: int = 3) -> str:
        with pytest.raises(UserError) as error:
            open_coco(_write_coco(tmp_path, data, images))
        assert "\n" not in str(error.value)
        return str(error.value)

    assert "cannot be interpreted" in fault(b"[1]")
    assert "cannot be interpreted" in fault(b"{")
    assert "cannot be interpreted" in fault(b'{"images": [], "annotations": [{}]}')
    assert "lacks 1 images" in fault(_coco([(3, 1, 0, whole)]), images=2)
    assert "no image with an object" in fault(_coco([]))
    (tmp_path / "annotations_trainval2017.zip").unlink()
    with pytest.raises(UserError, match=r"no instances_\*\.json"):
        open_coco(tmp_path)


def test_coco_names_the_annotation_that_cannot_be_drawn(tmp_path: Path) -> None:
    nan, inf = float("nan"), float("inf")
    area, odd = H * W, [1, 2, 3, 4, 5, 6, 7]
    cases: list[tuple[Any, str]] = [
        ({"size": [H, W + 1], "counts": [H * (W + 1)]}, "its size is [48, 65], the image's [48, 64]"),
        ({"size": [H, W]}, "no 'counts' in it"),
        ({"size": [H, W], "counts": [10, 20, 30]}, "its run lengths add up to 60 pixels, not 64x48"),
        ({"size": [H, W], "counts": [0, area + 1]}, f"its run lengths add up to {area + 1} pixels"),
        ({"size": [H, W], "counts": [-5, area + 5]}, "its run lengths are not a list of integers"),
        ({"size": [H, W], "counts": [10.5, 20]}, "its run lengths are not a list of integers"),
        ({"size": [H, W], "counts": [2**62, 2**62, 2**62]}, "its run lengths add up to"),
        ({"size": [H, W], "counts": [2**80, 5]}, "its run lengths are not a list of integers"),
        ({"size": [H, W], "counts": "abc"}, "its compressed run lengths are damaged"),
        ({"size": [H, W], "counts": "PPPPPPPPPPPPPPPP"}, "its compressed run lengths are damaged"),
        ({"size": [H, W], "counts": "0\n"}, "its compressed run lengths are damaged"),
        ([[nan, 1, 2, 2, 3, 3]], "a polygon has coordinates that are not finite numbers"),
        ([[inf, 1, -inf, 2, 3, 3]], "a polygon has coordinates that are not finite numbers"),
        ([[1e9, 1, 2, 2, 3, 3]], "a polygon has the coordinate 1e+09, far outside the image of 64x48"),
        ([[0, 0, -500, 2, 3, 3]], "a polygon has the coordinate -500, far outside"),
        ([odd], "a polygon has 7 coordinates, an odd number"),
        ("x", "it is a str, neither polygons nor run lengths"),
    ]
    for segmentation, fault in cases:
        data = _coco([(3, 1, 0, _compressed(_box(2, 2, 9, 9))), (2, 1, 0, segmentation)])
        with pytest.raises(UserError) as error:
            open_coco(_write_coco(tmp_path, data))
        message = str(error.value)
        assert "the segmentation of annotation 1 of 000000000002.jpg cannot be drawn: " + fault in message
        assert "\n" not in message
    two = _coco([(1, 1, 0, [odd]), (2, 1, 0, [odd])])
    with pytest.raises(UserError, match=r"annotation 0 of 000000000001\.jpg .*\(2 such annotations\)"):
        open_coco(_write_coco(tmp_path, two))


def test_coco_names_the_image_of_another_size(tmp_path: Path) -> None:
    data = _coco([(3, 1, 0, [[8, 6, 20, 6, 20, 16]])])
    data["images"][2]["width"] = W + 1
    source = open_coco(_write_coco(tmp_path, data))
    with pytest.raises(UserError, match="is 64x48; expected 65x48"):
        source.image("000000000003")


def test_a_last_run_of_background_may_be_left_out(tmp_path: Path) -> None:
    data = _coco([(1, 1, 0, {"size": [H, W], "counts": [10, 20]}), (1, 1, 1, {"size": [H, W], "counts": [0, 3]})])
    masks, void = open_coco(_write_coco(tmp_path, data)).instances("000000000001")
    np.testing.assert_array_equal(masks, _box(10, 0, 30, 1)[None])
    np.testing.assert_array_equal(void, _box(0, 0, 3, 1))


def test_a_polygon_may_reach_over_the_border_and_need_no_inner_list(tmp_path: Path) -> None:
    flat = [-20.0, 10.0, 8.0, 10.0, 8.0, 20.0, -20.0, 20.0]
    masks, _ = open_coco(_write_coco(tmp_path, _coco([(1, 1, 0, flat)]))).instances("000000000001")
    np.testing.assert_array_equal(masks, _box(10, 0, 20, 8)[None])


def test_coco_finds_images_by_their_folders(tmp_path: Path) -> None:
    """`file_name` with a folder; the folder decides where two files have one name, and may differ where none has."""
    data = _coco([(i, 1, 0, _compressed(_box(2, 2, 9, 9))) for i in (1, 2, 3)])
    names = ("train2017/cats/1.jpg", "train2017\\dogs\\1.jpg", "elsewhere/3.jpg")
    for image, name in zip(data["images"], names, strict=True):
        image["file_name"] = name
    files = {"annotations/instances_train2017.json": json.dumps(data).encode(), "train2017/3.jpg": JPEG}
    files |= {"train2017/cats/1.jpg": JPEG, "train2017/dogs/1.jpg": encode_jpeg(make_toy(2).frames[1])}
    source = open_coco(write_folder(tmp_path, files))
    assert len(source.images) == 3
    assert not np.array_equal(source.image("train2017/cats/1"), source.image("train2017\\dogs\\1"))
    data["images"][0]["file_name"] = "1.jpg"
    (tmp_path / "annotations/instances_train2017.json").write_text(json.dumps(data))
    with pytest.raises(UserError, match=r"1\.jpg may be .*cats/1\.jpg and .*dogs/1\.jpg; expected one file"):
        open_coco(tmp_path)


def test_a_set_without_an_object_says_why(tmp_path: Path) -> None:
    data = _coco([(1, 1, 0, []), (2, 40, 0, _compressed(_box(2, 2, 9, 9)))])
    with pytest.raises(UserError, match=r"no image with an object \(1 annotations of stuff categories \(40 moss\), 1 "):
        open_coco(_write_coco(tmp_path, data))


@given(st.integers(1, 40), st.integers(1, 40), st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_compressed_run_lengths_as_pycocotools_writes_them(height: int, width: int, share: float, seed: int) -> None:
    mask = np.random.default_rng(seed).random((height, width)) < share
    counts = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"]
    segmentation = {"size": [height, width], "counts": counts.decode()}
    assert find_fault(segmentation, height, width) is None
    np.testing.assert_array_equal(draw(segmentation, height, width), mask)


@given(st.text(max_size=12), st.integers(1, 20), st.integers(1, 20))
def test_any_text_as_run_lengths_is_drawn_or_refused(counts: str, height: int, width: int) -> None:
    segmentation = {"size": [height, width], "counts": counts}
    if find_fault(segmentation, height, width) is None:
        assert draw(segmentation, height, width).shape == (height, width)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(3, 12), st.booleans())
def test_a_compact_polygon_is_drawn_alike(seed: int, n_points: int, exact: bool) -> None:
    """In hundredths, as COCO is written, without any loss; other numbers are kept as they are."""
    drawn = np.random.default_rng(seed).uniform(-30, 90, 2 * n_points)
    points = [float(f"{value:.2f}") if exact else float(value) for value in drawn]
    assert find_fault([points], H, W) is None
    np.testing.assert_array_equal(draw(compact([points]), H, W), draw([points], H, W))
    (kept,) = compact([points])
    assert isinstance(kept, bytes) == exact
    assert len(kept) == (4 if exact else 1) * len(points)


def test_compact_run_lengths_are_drawn_alike() -> None:
    mask = _box(3, 5, 20, 50)
    for form in (_compressed(mask), _uncompressed(mask)):
        np.testing.assert_array_equal(draw(compact(form), H, W), mask)
