from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from pipeline import depth as stage
from pipeline.core.archives import ShardWriter, ZipWriter, open_archive, open_shards
from pipeline.core.errors import UserError
from pipeline.core.images import decode_depth, encode_jpeg, encode_mask
from pipeline.core.processes import Processes
from pipeline.datasets.davis import open_davis
from pipeline.datasets.depth_input import DepthInput
from pipeline.datasets.depth_maps import DepthMaps
from pipeline.depth_maps.write_maps import FrameRef, InverseDepth
from pipeline.hourglass.batches import input_sides
from pipeline.hourglass.checkpoint import save_hourglass
from pipeline.hourglass.config import DepthConfig, HourglassConfig
from pipeline.hourglass.network import Hourglass

CONFIG = DepthConfig(
    estimator="hourglass",
    folder="none",
    folder_holds="inverse_depth",
    batch=4,
    precision="fp32",
    steady=0.9,
    percentile_low=2.0,
    percentile_high=98.0,
    store="frame",
    bits=16,
    shard_frames=5,
)
SIDES = {"bear": (50, 70), "camel": (33, 91), "dog": (70, 50), "tiny": (5, 3)}  # none a multiple of 16
N_FRAMES = 4


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    assert torch.get_num_threads() == 1  # the stage puts back what it changes
    torch.set_num_threads(before)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    model = Hourglass(HourglassConfig(width=0.125, stem_stride=2, input_height=64, input_width=96))
    torch.nn.init.normal_(model.pred_layer.weight, std=0.3)
    save_hourglass(tmp_path / "depth.pt", model)
    return tmp_path / "depth.pt"


def picture(name: str, i: int) -> NDArray[np.uint8]:
    height, width = SIDES[name]
    rng = np.random.default_rng([len(name), i])
    small = rng.integers(0, 255, (5, 7, 3), np.uint8)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)


@pytest.fixture
def davis(tmp_path: Path) -> Path:
    folder = tmp_path / "raw" / "davis"
    with ZipWriter(folder / "DAVIS-2017-trainval-480p.zip") as archive:
        archive.write("DAVIS/ImageSets/2017/train.txt", b"bear\ncamel\n")
        archive.write("DAVIS/ImageSets/2017/val.txt", b"camel\ndog\ntiny\n")
        for name, (height, width) in SIDES.items():
            for i in range(N_FRAMES):
                archive.write(f"DAVIS/JPEGImages/480p/{name}/{i:05d}.jpg", jpeg(name, i))
                archive.write(
                    f"DAVIS/Annotations/480p/{name}/{i:05d}.png", encode_mask(np.ones((height, width), np.uint8))
                )
    return folder


def jpeg(name: str, i: int) -> bytes:
    if name != "camel":
        return encode_jpeg(picture(name, i))
    buffer = io.BytesIO()
    image = Image.fromarray(picture(name, i))
    image.convert("CMYK" if i % 2 else "L").save(buffer, "JPEG")
    return buffer.getvalue()


def run(dataset: str, frames: Path, checkpoint: Path, out: Path, config: DepthConfig = CONFIG) -> Path:
    scratch = out.parent / f"{out.name}-scratch"
    stage.run(dataset, config, frames, checkpoint, out, scratch, torch.device("cpu"))
    return out


def maps(folder: Path) -> dict[str, NDArray[np.float32]]:
    archive = open_shards(folder)
    return {name: decode_depth(archive.read(name), name) for name in archive.names()}


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_a_map_for_every_frame_at_its_size(davis: Path, checkpoint: Path, tmp_path: Path) -> None:
    out = run("davis", davis, checkpoint, tmp_path / "out")
    depth = maps(out)
    assert sorted(depth) == sorted(f"{name}/{i:05d}.png" for name in SIDES for i in range(N_FRAMES))
    assert [path.name for path in sorted(out.iterdir())] == ["shard-00000.zip", "shard-00001.zip"]
    for name, sides in SIDES.items():
        video = np.stack([depth[f"{name}/{i:05d}.png"] for i in range(N_FRAMES)])
        assert video.shape[1:] == sides
        assert video.min() >= 0 and video.max() <= 1 and video.std() > 0.05
    assert not list((tmp_path / "out-scratch").iterdir())
    assert content(out) == content(run("davis", davis, checkpoint, tmp_path / "again"))


def test_a_small_map_is_enlarged_to_the_map_of_the_frames_size(davis: Path, checkpoint: Path, tmp_path: Path) -> None:
    """`depth.store: network` loses only the rounding to 16 bits."""
    network = HourglassConfig(width=0.125, stem_stride=2, input_height=32, input_width=32)  # its output: 16 x 16
    torch.manual_seed(0)
    model = Hourglass(network)
    torch.nn.init.normal_(model.pred_layer.weight, std=0.3)
    save_hourglass(tmp_path / "small.pt", model)
    large = maps(run("davis", davis, tmp_path / "small.pt", tmp_path / "large"))
    small = run("davis", davis, tmp_path / "small.pt", tmp_path / "small", replace(CONFIG, store="network"))
    source = open_davis(davis, "train")
    depth = DepthInput(DepthMaps(small), "estimated", source.videos)
    for video in source.videos:
        for frame_id in video.frames:
            frame = source.frame(video, frame_id)
            found = depth.read(video, frame_id, frame)
            assert found.shape == frame.shape[:2] and found.dtype == np.float32
            np.testing.assert_allclose(found, large[f"{video.name}/{frame_id}.png"], atol=1.1 / 65535)
    sizes = {name: one.size for name, one in maps(small).items()}
    assert all(size <= large[name].size for name, size in sizes.items())
    assert sizes["bear/00000.png"] < large["bear/00000.png"].size / 5
    assert maps(small)["tiny/00000.png"].shape == SIDES["tiny"]  # never larger than the frame


class Pretended(Processes):
    """One of several processes that run one after the other, the first one last."""

    def agree(self, value: object) -> object:  # type: ignore[override]
        return value

    def gather(self, values: list[object]) -> list[object]:  # type: ignore[override]
        return values


def test_processes_share_the_shards(davis: Path, checkpoint: Path, tmp_path: Path) -> None:
    alone = content(run("davis", davis, checkpoint, tmp_path / "alone", replace(CONFIG, shard_frames=1)))
    assert len(alone) == 4
    out, scratch = tmp_path / "shared", tmp_path / "shared-scratch"
    for rank in (2, 1, 0):
        config, cpu = replace(CONFIG, shard_frames=1), torch.device("cpu")
        stage.run("davis", config, davis, checkpoint, out, scratch, cpu, Pretended(rank, 3))
        assert out.exists() == (rank == 0)
    assert content(out) == alone


def test_batches_do_not_change_the_maps(davis: Path, checkpoint: Path, tmp_path: Path) -> None:
    some = maps(run("davis", davis, checkpoint, tmp_path / "four"))
    single = maps(run("davis", davis, checkpoint, tmp_path / "one", replace(CONFIG, batch=1, shard_frames=1000)))
    for name, depth in some.items():
        np.testing.assert_allclose(depth, single[name], atol=2e-3)


def test_goes_on_with_the_first_unfinished_shard(
    davis: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = content(run("davis", davis, checkpoint, tmp_path / "whole"))
    estimate = stage.depth_maps

    def killed(
        videos: Sequence[Sequence[FrameRef]], inverse: InverseDepth, config: DepthConfig
    ) -> list[tuple[str, bytes]]:
        if videos[0][0].video == "dog":
            raise KeyboardInterrupt
        return estimate(videos, inverse, config)

    with monkeypatch.context() as patch:
        patch.setattr(stage, "depth_maps", killed)
        with pytest.raises(KeyboardInterrupt):
            run("davis", davis, checkpoint, tmp_path / "cut")
    assert not (tmp_path / "cut").exists()
    assert content(run("davis", davis, checkpoint, tmp_path / "cut")) == whole
    assert "shard-00000.zip is finished already" in capsys.readouterr().out


def test_no_data_gives_no_shards(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "manifest.json").write_text(json.dumps({"files": []}))
    assert [path.name for path in run("voc", empty, checkpoint, tmp_path / "out").iterdir()] == ["EMPTY.txt"]
    assert "no frames" in capsys.readouterr().out


def test_youtubevos_and_simulated_clips(checkpoint: Path, tmp_path: Path) -> None:
    with ZipWriter(tmp_path / "vos" / "train.zip") as archive:
        objects = {"objects": {"1": {"category": "x", "frames": ["00000"]}}}
        archive.write("train/meta.json", json.dumps({"videos": {"bear": objects}}).encode())
        archive.write("train/Annotations/bear/00000.png", encode_mask(np.ones(SIDES["bear"], np.uint8)))
        for i in (0, 5):
            archive.write(f"train/JPEGImages/bear/{i:05d}.jpg", jpeg("bear", i))
    assert list(maps(run("youtubevos", tmp_path / "vos", checkpoint, tmp_path / "a"))) == [
        "bear/00000.png",
        "bear/00005.png",
    ]
    with ShardWriter(tmp_path / "clips", 1000) as writer:
        for clip in ("000", "001"):
            names = [f"{clip}/{i:05d}" for i in range(3)]
            writer.write_group([(f"JPEGImages/{name}.jpg", jpeg("bear", i)) for i, name in enumerate(names)])
            mask = encode_mask(np.ones(SIDES["bear"], np.uint8))
            writer.write_group([(f"Annotations/{name}.png", mask) for name in names])
    assert len(maps(run("coco", tmp_path / "clips", checkpoint, tmp_path / "b"))) == 6


def test_unreadable_frames_fail_clearly(davis: Path, checkpoint: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken" / "DAVIS-2017-trainval-480p.zip"
    with ZipWriter(broken) as copy:
        archive = open_archive(davis / broken.name)
        for name in archive.names():
            copy.write(name, b"\xff\xd8 torn" if name.endswith("dog/00002.jpg") else archive.read(name))
    with pytest.raises(UserError, match=r"dog/00002\.jpg cannot be decoded"):
        run("davis", broken.parent, checkpoint, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match="does not exist"):
        run("davis", davis, tmp_path / "none.pt", tmp_path / "out")


@pytest.mark.parametrize("holds", ["inverse_depth", "depth"])
def test_a_folder_of_depth_maps(
    davis: Path, checkpoint: Path, tmp_path: Path, holds: Literal["depth", "inverse_depth"]
) -> None:
    folder = tmp_path / "own"
    for name, (height, width) in SIDES.items():
        (folder / "davis" / name).mkdir(parents=True)
        for i in range(N_FRAMES):
            near = np.tile(np.linspace(0.5, 1 + i, width), (height, 1))  # inverse depth grows to the right and in time
            values = near if holds == "inverse_depth" else 1 / near
            path = folder / "davis" / name / f"{i:05d}"
            if name == "bear":
                np.save(f"{path}.npy", values)
            else:
                cv2.imwrite(f"{path}.png", (values * 10000).astype(np.uint16))
    config = replace(CONFIG, estimator="folder", folder=str(folder), folder_holds=holds)
    depth = maps(run("davis", davis, checkpoint, tmp_path / "out", config))
    for name in ("bear", "camel"):
        first, last = depth[f"{name}/00000.png"], depth[f"{name}/00003.png"]
        assert np.all(np.diff(last, axis=1) >= 0) and last[0, -1] == 1
        assert first.max() < 0.25 * last.max()  # one range for the video
    (folder / "davis" / "dog" / "00001.png").unlink()
    with pytest.raises(UserError, match=r"has no davis/dog/00001\.png or \.npy"):
        run("davis", davis, checkpoint, tmp_path / "out", config)
    with pytest.raises(UserError, match="has no folder youtubevos"):
        shutil.copytree(davis, tmp_path / "vos")
        stage.ExternalMaps(folder, "youtubevos", "depth")
    assert len(maps(tmp_path / "out")) == 16  # the earlier maps stand


# --- frames of every size and kind ---


def small_davis(folder: Path, videos: dict[str, list[bytes]]) -> Path:
    with ZipWriter(folder / "DAVIS-2017-trainval-480p.zip") as archive:
        archive.write("DAVIS/ImageSets/2017/train.txt", "".join(f"{name}\n" for name in videos).encode())
        for name, frames in videos.items():
            for i, data in enumerate(frames):
                archive.write(f"DAVIS/JPEGImages/480p/{name}/{i:05d}.jpg", data)
                archive.write(f"DAVIS/Annotations/480p/{name}/{i:05d}.png", encode_mask(np.ones((8, 8), np.uint8)))
    return folder


def smooth(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    small = np.random.default_rng(seed).integers(0, 255, (4, 6, 3), np.uint8)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)


@pytest.mark.parametrize("n_frames", [1, 3])
def test_sides_of_every_length(checkpoint: Path, tmp_path: Path, n_frames: int) -> None:
    """Down to one pixel, up to an aspect of 100; also a video of a single frame."""
    sides = [(1, 1), (1, 40), (3, 200), (8, 8), (17, 31), (20, 2000), (2000, 20), (64, 96)]
    videos = {f"{h}x{w}": [encode_jpeg(smooth(h, w, i)) for i in range(n_frames)] for h, w in sides}
    depth = maps(run("davis", small_davis(tmp_path / "raw", videos), checkpoint, tmp_path / "out"))
    assert len(depth) == len(sides) * n_frames
    for height, width in sides:
        video = np.stack([depth[f"{height}x{width}/{i:05d}.png"] for i in range(n_frames)])
        assert video.shape == (n_frames, height, width)
        if video.size > 1:  # a lone pixel may be anything; what is not finite would be stored as zero throughout
            assert video.max() > 0.2 and video.std() > 0.01
        if height * width >= 17 * 31:  # enough for the percentiles to reach both ends
            assert video.min() < 0.2 and video.max() > 0.8


def test_aspect_of_the_input_follows_the_frame() -> None:
    network = HourglassConfig(width=1.0, stem_stride=1, input_height=288, input_width=512)
    for height, width in ((3, 200), (20, 2000), (2000, 20), (1080, 1920), (17, 31)):
        rows, columns = input_sides(height, width, network)
        assert rows % 16 == columns % 16 == 0
        assert 0.75 < rows * columns / (288 * 512) < 1.3
        assert 0.75 < (rows / columns) / (height / width) < 1.34  # as near as steps of 16 come
    assert input_sides(1, 2000, network)[0] == 16  # the shortest side there is


def encoded(image: Image.Image, orientation: int = 1) -> bytes:
    exif, buffer = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    image.save(buffer, "JPEG", quality=100, subsampling=0, exif=exif)
    return buffer.getvalue()


def test_kinds_of_jpeg_give_the_map_of_the_picture_they_show(checkpoint: Path, tmp_path: Path) -> None:
    """Grey, CMYK, and turned or mirrored by EXIF: as the plain picture of the same look."""
    upright = Image.fromarray(smooth(60, 90))
    grey = upright.convert("L")
    turned = {  # orientation -> what is stored, such that the picture stands upright when that is undone
        3: upright.transpose(Image.Transpose.ROTATE_180),
        4: upright.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        6: upright.transpose(Image.Transpose.ROTATE_90),
        8: upright.transpose(Image.Transpose.ROTATE_270),
    }
    videos = {
        "plain": [encoded(upright)],
        "cmyk": [encoded(upright.convert("CMYK"))],
        "cmyk-turned": [encoded(turned[6].convert("CMYK"), 6)],
        **{f"turned-{k}": [encoded(image, k)] for k, image in turned.items()},
        "grey": [encoded(grey)],
        "grey-plain": [encoded(grey.convert("RGB"))],
        "grey-turned": [encoded(turned[8].convert("L"), 8)],
    }
    depth = maps(run("davis", small_davis(tmp_path / "raw", videos), checkpoint, tmp_path / "out"))
    for name in videos:
        found = depth[f"{name}/00000.png"]
        expected = depth["grey-plain/00000.png" if name.startswith("grey") else "plain/00000.png"]
        assert found.shape == (60, 90) and expected.std() > 0.05
        np.testing.assert_allclose(found, expected, atol=0.03)
    unlike = np.abs(depth["plain/00000.png"] - depth["grey-plain/00000.png"]).mean()
    assert unlike > 0.01  # so that the comparison above says something


def test_frames_without_content(checkpoint: Path, tmp_path: Path) -> None:
    """One colour throughout: nothing to estimate from, and still a map; equal frames, equal maps."""
    flat = encode_jpeg(np.full((48, 80, 3), 90, np.uint8))
    raw = small_davis(tmp_path / "raw", {"flat": [flat] * 3, "mixed": [encode_jpeg(smooth(48, 80)), flat]})
    depth = maps(run("davis", raw, checkpoint, tmp_path / "out"))
    video = np.stack([depth[f"flat/{i:05d}.png"] for i in range(3)])
    assert video.shape == (3, 48, 80) and np.ptp(video, axis=0).max() < 1e-3
    config = replace(CONFIG, estimator="folder", folder=str(tmp_path / "own"), folder_holds="inverse_depth")
    for name, n_frames in (("flat", 3), ("mixed", 2)):
        (tmp_path / "own" / "davis" / name).mkdir(parents=True)
        for i in range(n_frames):
            np.save(tmp_path / "own" / "davis" / name / f"{i:05d}.npy", np.full((48, 80), 7.0))
    same = maps(run("davis", raw, checkpoint, tmp_path / "constant", config))
    assert all(np.allclose(values, 0.5, atol=1e-4) for values in same.values())  # constant depth: neither near nor far


def test_frames_of_several_sizes_in_a_video(checkpoint: Path, tmp_path: Path) -> None:
    sides = [(48, 80), (96, 40), (5, 5)]
    raw = small_davis(tmp_path / "raw", {"odd": [encode_jpeg(smooth(*s, i)) for i, s in enumerate(sides)]})
    depth = maps(run("davis", raw, checkpoint, tmp_path / "out"))
    assert [depth[f"odd/{i:05d}.png"].shape for i in range(3)] == sides


def test_a_truncated_jpeg_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    whole = encode_jpeg(smooth(48, 80))
    raw = small_davis(tmp_path / "raw", {"cut": [whole, whole[: len(whole) // 2]]})
    with pytest.raises(UserError, match=r"cut/00001\.jpg cannot be decoded"):
        run("davis", raw, checkpoint, tmp_path / "out")


def test_config_is_checked() -> None:
    with pytest.raises(UserError, match=r"depth.folder is none"):
        replace(CONFIG, estimator="folder")
    with pytest.raises(UserError, match="percentile_low"):
        replace(CONFIG, percentile_low=99.0)
