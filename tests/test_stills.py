"""Readers of still images: MSRA10K and VOC (COCO has its own file)."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from pipeline.core.errors import UserError
from pipeline.core.images import encode_jpeg, encode_mask
from pipeline.core.stills import StillSource
from pipeline.datasets.msra10k import open_msra10k
from pipeline.datasets.voc import open_voc
from tests.support.tiny_archives import make_toy, write_folder, write_tar, write_zip

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


SCENE = make_toy(1)
PICTURE, DISC = SCENE.frames[0], SCENE.masks[0] == 1


def saved(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def msra(tmp_path: Path, image: bytes, mask: bytes) -> StillSource:
    return open_msra10k(write_zip(tmp_path / "m.zip", {"Imgs/1.jpg": image, "Imgs/1.png": mask}))


def binary_masks() -> dict[str, bytes]:
    """The same silhouette in every form that a tool may write."""
    ids = DISC.astype(np.uint8)
    palette = Image.fromarray(ids, mode="P")
    palette.putpalette([255, 255, 255, 0, 0, 0])  # index 1 is black
    colours = Image.fromarray(ids, mode="P")
    colours.putpalette([0, 0, 0, 128, 0, 0])  # DAVIS' first colour, of brightness 38
    inverted = Image.fromarray(1 - ids, mode="P")
    inverted.putpalette([255, 255, 255, 0, 0, 0])  # white object, index 0
    return {
        "grey 0 and 255": saved(Image.fromarray(ids * 255)),
        "grey 0 and 1": saved(Image.fromarray(ids)),
        "one bit": saved(Image.fromarray(DISC)),
        "coloured palette": saved(colours),
        "white palette colour": saved(inverted),
    }


@pytest.mark.parametrize("form", sorted(binary_masks()))
def test_msra10k_masks_of_every_form(tmp_path: Path, form: str) -> None:
    (mask,) = msra(tmp_path, JPEG, binary_masks()[form]).instances("1").masks
    np.testing.assert_array_equal(mask, DISC)


def test_a_mask_that_is_a_jpeg_is_refused(tmp_path: Path) -> None:
    jpeg = saved(Image.fromarray(DISC.astype(np.uint8) * 255), "JPEG")
    with pytest.raises(UserError, match=r"Imgs/1\.png is a JPEG; expected a PNG"):
        msra(tmp_path, JPEG, jpeg).instances("1")


@pytest.mark.parametrize("dataset", ["msra10k", "voc"])
def test_a_mask_of_another_size_is_refused(tmp_path: Path, dataset: str) -> None:
    smaller = np.ones((H - 1, W), np.uint8)
    if dataset == "msra10k":
        source, image = msra(tmp_path, JPEG, _grey(smaller * 255)), "1"
    else:
        source, image = open_voc(write_tar(tmp_path / "v.tar", _voc_files(smaller))), "2007_000032"
    with pytest.raises(UserError, match="is 64x48; expected 64x47, as its mask; replace one of them"):
        source.image(image)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("drawn_on", ["stored", "shown"])
def test_a_turned_picture_fits_its_mask(tmp_path: Path, orientation: int, drawn_on: str) -> None:
    """Where the size does not decide (no swap of the sides), the mask counts for the stored pixels."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = saved(Image.fromarray(PICTURE), "JPEG", quality=100, subsampling=0, exif=exif)
    turned = ImageOps.exif_transpose(Image.open(io.BytesIO(stored)))
    mask = Image.fromarray(DISC.astype(np.uint8) * 255)
    if drawn_on == "shown":
        mask.info["exif"] = exif.tobytes()
        mask = ImageOps.exif_transpose(Image.open(io.BytesIO(saved(mask, "PNG", exif=exif))))
    source = msra(tmp_path, stored, saved(mask))
    (found,) = source.instances("1").masks
    image = source.image("1")
    assert image.shape[:2] == found.shape
    if drawn_on == "stored" or orientation >= 5:
        inside = image[found].astype(int)
        assert (inside[:, 0] - inside[:, 2]).min() > 100, "the disc is red"
        if drawn_on == "shown":
            np.testing.assert_allclose(image, np.asarray(turned), atol=2)
