from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pipeline import download, train_depth
from pipeline.core.errors import UserError
from pipeline.core.images import encode_jpeg, encode_mask
from pipeline.datasets.rgbd import held_out, open_rgbd
from pipeline.hourglass.checkpoint import load_hourglass
from pipeline.sources.store import Store
from tests.support.downloads import NONE, WHERE
from tests.support.tiny_archives import make_toy, write_folder, write_tar, write_zip
from tests.test_train_depth import CONFIG, NETWORK

Arrays = dict[str, NDArray[Any]]


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
    with pytest.raises(UserError, match="train/ and val/ in one folder"):
        open_rgbd(write_folder(tmp_path / "d", {f"{p}{n}": d for n, d in files.items() for p in ("a/", "")}), "val")
    with pytest.raises(UserError, match=r"holds .*jpg and x\.h5; expected pictures or HDF5"):
        open_rgbd(write_folder(tmp_path / "e", files | {"x.h5": b""}), "val")
    only_val = {n: d for n, d in files.items() if "/val/" in n}
    with pytest.raises(UserError, match=r"no frame of that split \(train\)"):
        open_rgbd(write_folder(tmp_path / "f", only_val), "train")


# --- without a validation split ---


@pytest.mark.parametrize("root", ["", "MannequinChallenge/", "MannequinChallenge/train/"])
def test_a_tenth_of_the_videos_is_held_out(tmp_path: Path, root: str, capsys: pytest.CaptureFixture[str]) -> None:
    rgb, depth = encode_jpeg(np.zeros((16, 16, 3), np.uint8)), _png16(np.ones((16, 16)))
    names = [f"video-{i}" for i in range(24)]
    members = {f"{root}{name}/{kind}": data for name in names for kind, data in
               (("rgb/0.jpg", rgb), ("depth/0.png", depth), ("rgb/1.jpg", rgb), ("depth/1.png", depth))}  # fmt: skip
    raw = write_zip(tmp_path / "any.zip", members)
    parts = {split: {video for video, _ in open_rgbd(raw, split).frames()} for split in ("train", "val")}
    by_hash = sorted(names, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    assert parts["val"] == set(by_hash[:2]) and parts["train"] == set(by_hash[2:])
    assert len(open_rgbd(raw, "val").frames()) == 4
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [
        "any.zip has no validation split: 22 of 24 videos to train on",
        "any.zip has no validation split: 2 of 24 videos held out for validation",
    ]


def test_one_video_more_changes_one_held_out_video_at_most() -> None:
    names = [f"v{i}" for i in range(60)]
    for n in range(2, 60):
        before, after = held_out(names[:n]), held_out(names[: n + 1])
        assert len(before - after) <= 1 and 1 <= len(after) <= max(1, 0.15 * (n + 1))


# --- HDF5 ---


def h5(arrays: Arrays, **options: Any) -> bytes:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for name, values in arrays.items():
            file.create_dataset(name, data=values, **options)
    return buffer.getvalue()


def published(value: float = 2.0) -> Arrays:
    """A frame as the published loader reads it: colours in [0, 1]; what is 0 or next to it is unknown."""
    rng = np.random.default_rng(0)
    depth = np.full((12, 16), value, np.float32)
    depth[0, :4] = 0, 1e-9, -1, np.nan
    image = rng.random((12, 16, 3), np.float32)
    image[..., 2] = 0
    return {"gt/img_1": image, "gt/gt_depth": depth, "gt/human_mask": np.zeros((12, 16), np.float32)}


def video(n_frames: int = 5, seed: int = 0, instances: bool = False, dtype: str = "float32") -> Arrays:
    rng = np.random.default_rng(seed)
    arrays: Arrays = {
        "rgb": rng.integers(0, 256, (n_frames, 12, 16, 3), np.uint8),
        "depth": (rng.random((n_frames, 12, 16)) * 9).astype(dtype),
    }
    arrays["depth"][:, 0, 0] = 0
    if instances:
        arrays["instances"] = rng.integers(0, 4, (n_frames, 12, 16)).astype(np.int64)
    return arrays


def placed(tmp_path: Path, files: dict[str, bytes], how: str) -> Path:
    if how == "folder":
        return write_folder(tmp_path / "data", files)
    if how == "tar":
        return write_tar(tmp_path / "mannequin.tar", files)
    if how == "zip":
        return write_zip(tmp_path / "mannequin.zip", files)
    with zipfile.ZipFile(tmp_path / "mannequin.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return tmp_path / "mannequin.zip"


@pytest.mark.parametrize("how", ["folder", "zip", "deflated zip", "tar"])
def test_hdf5_frames_as_published(tmp_path: Path, how: str) -> None:
    names = ["a_b_9.jpg.h5", "a_b_10.jpg.h5", "c_1.hdf5", "d/7.h5", "d/11.h5"]
    files = {f"tum/train/{name}": h5(published(i + 1.0)) for i, name in enumerate(names)}
    files |= {"tum/val/x/3.h5": h5(published(), compression="gzip"), "tum/notes.md": b"no data"}
    raw = placed(tmp_path, files, how)
    source = open_rgbd(raw, "train")
    assert source.frames() == list(zip(["a_b", "a_b", "c", "d", "d"], [Path(name).name for name in names]))
    rgb, depth, ids = source.read("a_b", "a_b_10.jpg.h5")
    image = published()["gt/img_1"]
    assert rgb.dtype == np.uint8 and np.abs(rgb / 255.0 - image).max() <= 0.5 / 255 + 1e-6  # and so the order R, G, B
    assert (depth[0, :4] == 0).all() and (depth.ravel()[4:] == 2.0).all() and depth.dtype == np.float32
    assert ids is None
    (frame,) = open_rgbd(raw, "val").frames()
    assert frame == ("x", "3.h5") and (open_rgbd(raw, "val").read(*frame).depth.ravel()[4:] == 2.0).all()


@pytest.mark.parametrize("how", ["folder", "zip", "tar"])
def test_hdf5_videos(tmp_path: Path, how: str) -> None:
    one, two, three = video(3, 1, True), video(5, 2, dtype="float16"), video(2, 3, dtype=">f8")
    raw = placed(
        tmp_path,
        {
            "train/one.h5": h5(one, chunks=True, compression="gzip"),
            "train/more/two.hdf5": h5(two),
            "val/three.h5": h5(three),
        },
        how,
    )
    source = open_rgbd(raw, "train")
    expected = {"one": one, "more/two": two}
    assert sorted(source.frames()) == sorted(
        (name, f"{i:05d}") for name, arrays in expected.items() for i in range(len(arrays["rgb"]))
    )
    for name, frame_id in source.frames():
        rgb, depth, ids = source.read(name, frame_id)
        arrays, i = expected[name], int(frame_id)
        assert rgb.dtype == np.uint8 and depth.dtype == np.float32
        np.testing.assert_array_equal(rgb, arrays["rgb"][i])
        np.testing.assert_array_equal(depth, arrays["depth"][i].astype(np.float32))
        assert (ids is None) == (name != "one")
        if ids is not None:
            assert ids.dtype == np.uint8
            np.testing.assert_array_equal(ids, arrays["instances"][i])
    depth = open_rgbd(raw, "val").read("three", "00001").depth
    np.testing.assert_array_equal(depth, three["depth"][1].astype(np.float32))


def test_one_hdf5_file_for_all_gives_its_last_tenth(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = write_folder(tmp_path / "data", {"all.h5": h5(video(25))})
    assert [i for _, i in open_rgbd(raw, "train").frames()] == [f"{i:05d}" for i in range(23)]
    assert [i for _, i in open_rgbd(raw, "val").frames()] == ["00023", "00024"]
    assert "the last 2 of 25 frames held out for validation" in capsys.readouterr().out
    one = write_folder(tmp_path / "one", {"all.h5": h5(video(1))})
    with pytest.raises(UserError, match="a single frame"):
        open_rgbd(one, "train")


def test_hdf5_videos_without_a_split_are_held_out_as_whole_videos(tmp_path: Path) -> None:
    raw = write_folder(tmp_path / "data", {f"films/{i}/x.h5": h5(video(2)) for i in range(12)})
    parts = [{name for name, _ in open_rgbd(raw, split).frames()} for split in ("train", "val")]
    assert len(parts[0]) == 11 and len(parts[1]) == 1 and parts[0] | parts[1] == {f"{i}/x" for i in range(12)}


def test_hdf5_lists(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    films = {f"set/tum/v{v}_{i}.jpg.h5": h5(published()) for v in range(3) for i in range(2)}

    def split(lists: dict[str, str], name: str = "raw") -> dict[str, list[str]]:
        raw = write_folder(tmp_path / name, films | {f"set/{n}.txt": text.encode() for n, text in lists.items()})
        return {part: [frame for _, frame in open_rgbd(raw, part).frames()] for part in ("train", "val")}

    whole = split({"train": "tum/v0_0.jpg.h5\ntum/v0_1.jpg.h5\n", "val": "test_data/tum/v2_1.jpg.h5\n"})
    assert whole == {"train": ["v0_0.jpg.h5", "v0_1.jpg.h5"], "val": ["v2_1.jpg.h5"]}
    assert "3 HDF5 files are in neither list and left out" in capsys.readouterr().out
    alone = split({"val": "tum/v0_0.jpg.h5\n"}, "alone")
    assert alone["val"] == ["v0_0.jpg.h5"] and len(alone["train"]) == 5
    with pytest.raises(UserError, match=r"val\.txt names tum/v9_0\.jpg\.h5; expected a file in or below the list"):
        split({"train": "tum/v0_0.jpg.h5", "val": "tum/v9_0.jpg.h5"}, "absent")
    with pytest.raises(UserError, match=r"both lists name set/tum/v0_0\.jpg\.h5"):
        split({"train": "tum/v0_0.jpg.h5", "val": "tum/v0_0.jpg.h5"}, "twice")
    with pytest.raises(UserError, match=r"has lists set/train\.txt, val\.txt; expected them in one folder"):
        write_folder(tmp_path / "apart", {"val.txt": b"tum/v0_0.jpg.h5"})
        split({"train": "tum/v0_0.jpg.h5"}, "apart")


def changed(arrays: Arrays, **changes: NDArray[Any] | None) -> Arrays:
    merged = arrays | {name.replace("__", "/"): values for name, values in changes.items()}
    return {name: values for name, values in merged.items() if values is not None}


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"image": np.zeros(3)}, r"holds image; expected gt/img_1 and gt/gt_depth \(a frame\) or rgb and depth"),
        ({}, "holds nothing; expected"),
        (changed(video(), depth=None), "has no data set depth; expected N,H,W float"),
        (
            changed(video(), rgb=np.zeros((5, 12, 16, 3), np.float32)),
            "rgb is 5,12,16,3 float32; expected N,H,W,3",
        ),
        (changed(video(), rgb=np.zeros((5, 12, 16, 4), np.uint8)), "rgb is 5,12,16,4 uint8"),
        (changed(video(), rgb=np.zeros((5, 3, 12, 16), np.uint8)), "rgb is 5,3,12,16 uint8"),
        (changed(video(), rgb=np.zeros((0, 12, 16, 3), np.uint8)), "rgb is 0,12,16,3 uint8"),
        (changed(video(), depth=np.ones((5, 12, 16), np.uint16)), "depth is 5,12,16 uint16; expected N,H,W float"),
        (changed(video(), depth=np.ones((4, 12, 16), np.float32)), "depth is 4,12,16 float32; expected 5,12,16 as rgb"),
        (changed(video(), depth=np.ones((5, 12, 16, 1), np.float32)), "depth is 5,12,16,1 float32"),
        (changed(video(), instances=np.ones((5, 12, 15), np.uint8)), "instances is 5,12,15 uint8; expected 5,12,16"),
        (changed(video(), depth=-np.ones((5, 12, 16), np.float32)), "frame 0 has a depth of -1; expected 0"),
        (changed(video(), instances=np.full((5, 12, 16), 300)), "frame 0 has object ids 300 to 300; expected 0 to 255"),
        (changed(published(), gt__gt_depth=None), "has no data set gt/gt_depth"),
        (changed(published(), gt__img_1=np.full((12, 16, 3), 200.0)), r"holds 200 to 200; expected \[0, 1\]"),
        (changed(published(), gt__img_1=np.full((12, 16, 3), np.nan)), r"holds nan to nan; expected \[0, 1\]"),
        (changed(published(), gt__img_1=np.ones((3, 12, 16))), "gt/img_1 is 3,12,16 float64; expected H,W,3 float"),
        (changed(published(), gt__gt_depth=np.ones((12, 15))), "gt/gt_depth is 15x12, its frame 16x12"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_other_hdf5_is_refused(tmp_path: Path, arrays: Arrays, words: str) -> None:
    raw = write_folder(tmp_path, {"train/v_1.h5": h5(arrays), "val/v_1.h5": h5(arrays)})
    with pytest.raises(UserError, match=words) as caught:
        source = open_rgbd(raw, "train")
        source.read(*source.frames()[0])
    assert "\n" not in str(caught.value) and "v_1.h5" in str(caught.value)


def test_hdf5_files_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    whole = h5(video(40))

    def refused(name: str, files: dict[str, bytes], words: str) -> None:
        with pytest.raises(UserError, match=words):
            source = open_rgbd(write_folder(tmp_path / name, files), "train")
            for frame in source.frames():
                source.read(*frame)

    refused("a", {"train/1.h5": h5(published()), "train/2.h5": whole, "val/1.h5": h5(published())}, "no data set gt/im")
    refused("b", {"train/1.h5": whole, "train/2.h5": h5(published()), "val/3.h5": whole}, "2.h5 has no data set rgb")
    refused("c", {"train/1.h5": whole, "2.h5": whole}, r"has 2\.h5 and files in train/ or val/ elsewhere")
    refused("d", {"a/train/1.h5": whole, "b/val/1.h5": whole}, "expected all of them in train/ and val/ of one")
    refused("e", {"x.h5": h5(published()), "y.h5": h5(published())}, r"x\.h5 contains a frame but has no number")
    refused("f", {"x.h5": whole, "x.hdf5": whole}, r"x\.hdf5 is a second file for the video x")
    refused(
        "g",
        {"x.h5": whole[: len(whole) // 2], "y.h5": whole},
        r"x\.h5 is not a readable HDF5 file \(.*truncated.*\);",
    )
    refused("h", {"x.h5": b"text", "y.h5": whole}, r"x\.h5 is not a readable HDF5 file")
    with pytest.raises(UserError, match=r"x\.h5 is compressed; expected videos to be stored"):
        open_rgbd(placed(tmp_path, {"x.h5": whole}, "deflated zip"), "train")


@pytest.mark.parametrize("kind", ["frames", "videos"])
def test_hdf5_is_read_across_threads_and_forks(tmp_path: Path, kind: str) -> None:
    films = {f"{v}.h5": h5(video(6, v), chunks=True, compression="gzip") for v in range(2)}
    frames = {f"{v}_{i}.h5": h5(published(i + 10 * v + 1)) for v in range(2) for i in range(6)}
    source = open_rgbd(placed(tmp_path, films if kind == "videos" else frames, "zip"), "train")
    expected = [source.read(*frame) for frame in source.frames()]

    def same(k: int) -> bool:
        i = k % len(expected)
        read = source.read(*source.frames()[i])
        return np.array_equal(read.rgb, expected[i].rgb) and np.array_equal(read.depth, expected[i].depth)

    with ThreadPoolExecutor(8) as pool:
        running = [pool.submit(same, k) for k in range(200)]
        child = os.fork()  # while others read
        if not child:
            os._exit(0 if all(same(k) for k in range(12)) else 1)
        assert all(future.result() for future in running)
    assert os.waitpid(child, 0)[1] == 0


def test_a_folder_of_hdf5_is_brought_in_and_trained_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From `data.mannequin` to the checkpoint and its figures."""
    rng = np.random.default_rng(0)
    films = {}
    for v in range(11):
        ids = np.zeros((2, 72, 104), np.uint8)
        ids[:, 10:40, 5:45], ids[:, 30:60, 60:90] = 1, 2
        depth = rng.uniform(1, 8, 3)[ids].astype(np.float32)
        rgb = np.repeat((230 - 25 * depth)[..., None], 3, 3).astype(np.uint8)
        films[f"v{v}.h5"] = h5({"rgb": rgb, "depth": depth, "instances": ids})
    raw = tmp_path / "raw" / "mannequin"
    data = replace(NONE, mannequin=str(write_folder(tmp_path / "mine", films)))
    download.run("mannequin", data, WHERE, tmp_path / "published", raw, Store(tmp_path / "store"), tmp_path)
    assert json.loads((raw / "manifest.json").read_text())["files"][0]["name"] == "mannequin"
    model, metrics = tmp_path / "depth.pt", tmp_path / "depth.json"
    config = replace(CONFIG, epochs=1, batch=8, statistics_batch=8, frozen_epochs=0, optimizer="adam")
    scratch = tmp_path / "scratch" / "t"
    train_depth.run(NETWORK, config, raw, model, metrics, scratch, torch.device("cpu"), workers=2, save_every=0)
    figures = json.loads(metrics.read_text())
    assert load_hourglass(model).config == NETWORK
    assert figures["frames"] == 2 and figures["pairs"] > 0 and figures["si_rmse"] > 0
    assert "mine has no validation split: 10 of 11 videos to train on" in capsys.readouterr().out
