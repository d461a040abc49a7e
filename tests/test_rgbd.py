from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.core.errors import UserError
from pipeline.core.images import encode_jpeg, encode_mask
from pipeline.datasets.rgbd import open_rgbd
from tests.tiny_archives import make_toy, write_folder, write_zip


def _png16(depth: NDArray[np.float64]) -> bytes:
    return bytes(cv2.imencode(".png", np.rint(depth * 1000).astype(np.uint16))[1].tobytes())


@pytest.fixture
def files() -> dict[str, bytes]:
    toy = make_toy(2)
    depth = np.full((48, 64), 2.5)
    depth[:, :4] = 0
    files = {}
    for split in ("train", "val"):
        for t in range(2):
            start = f"MannequinChallenge/{split}/{split}-7"
            files[f"{start}/rgb/{t:05d}.jpg"] = encode_jpeg(toy.frames[t])
            files[f"{start}/depth/{t:05d}.png"] = _png16(depth + t * (depth > 0))
    files["MannequinChallenge/val/val-7/instances/00000.png"] = encode_mask(toy.masks[0])
    return files


def test_reads_depth_in_scene_units(tmp_path: Path, files: dict[str, bytes]) -> None:
    for raw in (write_zip(tmp_path / "raw" / "mannequin.zip", files).parent, write_folder(tmp_path / "x", files)):
        source = open_rgbd(raw, "val")
        assert source.frames() == [("val-7", "00000"), ("val-7", "00001")]
        rgb, depth, ids = source.read("val-7", "00001")
        assert (rgb.shape, str(rgb.dtype), str(depth.dtype)) == ((48, 64, 3), "uint8", "float32")
        assert ids is None
        assert (depth[:, :4] == 0).all()
        np.testing.assert_allclose(depth[:, 4:], 3.5)
        instances = source.read("val-7", "00000").instances
        assert instances is not None
        np.testing.assert_array_equal(instances, make_toy(2).masks[0])
        assert open_rgbd(raw, "train").frames()[0][0] == "train-7"


def test_refuses(tmp_path: Path, files: dict[str, bytes]) -> None:
    with pytest.raises(UserError, match="no frame of that split"):
        open_rgbd(write_zip(tmp_path / "a.zip", files), "test")
    start = "MannequinChallenge/val/val-7"
    lacking = {n: d for n, d in files.items() if n != f"{start}/depth/00001.png"}
    with pytest.raises(UserError, match=r"no .*depth/00001\.png"):
        open_rgbd(write_zip(tmp_path / "b.zip", lacking), "val")
    files[f"{start}/depth/00000.png"] = encode_mask(np.zeros((48, 64), np.uint8))
    files[f"{start}/depth/00001.png"] = _png16(np.ones((48, 63)))
    source = open_rgbd(write_zip(tmp_path / "c.zip", files), "val")
    with pytest.raises(UserError, match="expected a 16-bit grey PNG"):
        source.read("val-7", "00000")
    with pytest.raises(UserError, match="is 63x48, its frame 64x48"):
        source.read("val-7", "00001")
