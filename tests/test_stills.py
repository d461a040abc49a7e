"""Readers of still images: MSRA10K, VOC, COCO."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask

from pipeline.core.errors import UserError
from pipeline.core.images import encode_jpeg, encode_mask
from pipeline.datasets.coco import open_coco
from pipeline.datasets.msra10k import open_msra10k
from pipeline.datasets.voc import open_voc
from tests.support.tiny_archives import make_toy, write_folder, write_tar, write_zip

# pycocotools 2.0.11 hands numpy 2 arrays in an old way
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

H, W = 48, 64
JPEG = encode_jpeg(make_toy(1).frames[0])


def _grey(levels: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(levels, mode="L").save(buffer, "PNG")
    return buffer.getvalue()


def test_msra10k_cuts_the_grey_border_at_one_half(tmp_path: Path) -> None:
    levels = np.zeros((H, W), np.uint8)
    levels[10:30, 10:40] = 255
    levels[10, 10:40], levels[29, 10:40] = 127, 128
    files = {f"MSRA10K_Imgs_GT/Imgs/{i}.jpg": JPEG for i in (12, 7)}
    files |= {"MSRA10K_Imgs_GT/Imgs/12.png": _grey(levels), "MSRA10K_Imgs_GT/Imgs/7.png": _grey(levels * 0)}
    files["MSRA10K_Imgs_GT/Readme.txt"] = b""
    for raw in (write_zip(tmp_path / "raw" / "MSRA10K_Imgs_GT.zip", files).parent, write_folder(tmp_path / "x", files)):
        source = open_msra10k(raw)
        assert source.images == ("12", "7")
        assert source.counts == {"images": 2}
        assert source.image("12").shape == (H, W, 3)
        masks, void = source.instances("12")
        expected = np.zeros((1, H, W), np.bool_)
        expected[0, 11:30, 10:40] = True
        np.testing.assert_array_equal(masks, expected)
        assert void.shape == (H, W)
        assert not void.any()
        assert source.instances("7").masks.shape == (0, H, W)


def test_msra10k_refuses(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no Imgs"):
        open_msra10k(write_zip(tmp_path / "a.zip", {"readme.txt": b""}))
    with pytest.raises(UserError, match=r"Imgs/1 has only one of \.jpg and \.png"):
        open_msra10k(write_zip(tmp_path / "b.zip", {"Imgs/1.jpg": JPEG}))


def _voc_files(mask: NDArray[np.uint8]) -> dict[str, bytes]:
    root = "VOCdevkit/VOC2012/"
    return {
        f"{root}ImageSets/Segmentation/trainval.txt": b"2007_000032\n",
        f"{root}JPEGImages/2007_000032.jpg": JPEG,
        f"{root}JPEGImages/2007_999999.jpg": JPEG,  # without a mask, as most of the published ones
        f"{root}SegmentationObject/2007_000032.png": encode_mask(mask),
    }


def test_voc_separates_instances_and_void(tmp_path: Path) -> None:
    mask = np.zeros((H, W), np.uint8)
    mask[5:20, 5:20], mask[25:40, 30:60] = 2, 5
    mask[20:22] = 255
    source = open_voc(write_tar(tmp_path / "VOCtrainval_11-May-2012.tar", _voc_files(mask)).parent)
    assert source.images == ("2007_000032",)
    masks, void = source.instances("2007_000032")
    np.testing.assert_array_equal(masks, np.stack([mask == 2, mask == 5]))
    np.testing.assert_array_equal(void, mask == 255)
    assert masks.dtype == void.dtype == np.bool_


def test_voc_refuses(tmp_path: Path) -> None:
    files = _voc_files(np.zeros((H, W), np.uint8))
    missing = {n: d for n, d in files.items() if "SegmentationObject" not in n}
    with pytest.raises(UserError, match=r"no VOCdevkit/VOC2012/SegmentationObject/2007_000032\.png"):
        open_voc(write_tar(tmp_path / "a.tar", missing))
    with pytest.raises(UserError, match=r"no ImageSets/Segmentation/trainval\.txt"):
        open_voc(write_tar(tmp_path / "b.tar", {"x.txt": b""}))
    cut = write_tar(tmp_path / "c.tar", files).read_bytes()[:700]
    (tmp_path / "c.tar").write_bytes(cut)
    with pytest.raises(UserError):
        open_voc(tmp_path / "c.tar")
    assert open_voc(write_tar(tmp_path / "d.tar", files)).instances("2007_000032").masks.shape == (0, H, W)


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
        "categories": [{"id": 1, "name": "person", "isthing": 1}, {"id": 40, "name": "moss", "isthing": 0}],
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


def test_coco_reads_every_form_of_segmentation(tmp_path: Path) -> None:
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
            (1, 125, 0, _compressed(_box(0, 0, 48, 64))),  # stuff by its id
            (1, 40, 0, _compressed(_box(0, 0, 48, 64))),  # stuff by its category
            (2, 1, 1, _uncompressed(crowd)),  # nothing but a crowd
            (3, 1, 0, [[1.0, 1.0, 2.0, 2.0]]),  # a line
        ]
    )
    source = open_coco(_write_coco(tmp_path, data))
    assert source.images == ("000000000001",)
    assert source.counts == {
        "images": 1,
        "images_left_out": 2,
        "instances": 3,
        "crowds": 2,
        "stuff": 2,
        "degenerate": 1,
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

    assert "cannot be understood" in fault(b"[1]")
    assert "cannot be understood" in fault(b"{")
    assert "cannot be understood" in fault(b'{"images": [], "annotations": [{}]}')
    assert "lacks 1 images" in fault(_coco([(3, 1, 0, whole)]), images=2)
    assert "no image with an object" in fault(_coco([]))
    (tmp_path / "annotations_trainval2017.zip").unlink()
    with pytest.raises(UserError, match=r"no instances_\*\.json"):
        open_coco(tmp_path)


def test_coco_names_what_does_not_fit_its_image(tmp_path: Path) -> None:
    wrong = {"size": [H, W + 1], "counts": [H * (W + 1)]}
    data = _coco([(1, 1, 0, wrong), (2, 1, 0, {"size": [H, W]}), (3, 1, 0, _compressed(_box(2, 2, 9, 9)))])
    data["images"][2]["width"] = W + 1
    source = open_coco(_write_coco(tmp_path, data))
    for image in source.images:
        with pytest.raises(UserError, match=rf"{image}\.jpg cannot be decoded"):
            source.instances(image)
    with pytest.raises(UserError, match="is 64x48; expected 65x48"):
        source.image("000000000003")
