"""The embedded sample's archives: published names, modes, ids and oddities."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from pipeline import render
from pipeline.core.archives import Archive, open_archive
from pipeline.core.images import DAVIS_PALETTE
from pipeline.sample.stills import outline_polygons, run_lengths, with_void_border
from tests.support.toy_world import TOY


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world") / "embedded"
    render.run(TOY, folder, workers=1)
    return folder


def picture(archive: Archive, name: str) -> Image.Image:
    return Image.open(io.BytesIO(archive.read(name)))


def test_manifests_tell_the_archives(published: Path) -> None:
    names = {
        "davis": ["DAVIS-2017-trainval-480p.zip"],
        "youtubevos": ["train.zip"],
        "msra10k": ["MSRA10K_Imgs_GT.zip"],
        "coco": ["annotations_trainval2017.zip", "train2017.zip"],
        "voc": ["VOCtrainval_11-May-2012.tar"],
        "mannequin": ["mannequin.zip"],
    }
    for dataset, expected in names.items():
        manifest = json.loads((published / dataset / "manifest.json").read_text())
        assert [f["name"] for f in manifest["files"]] == expected
        assert sorted(p.name for p in (published / dataset).iterdir()) == sorted([*expected, "manifest.json"])
        for file in manifest["files"]:
            assert file["bytes"] == (published / dataset / file["name"]).stat().st_size
            assert len(file["sha256"]) == 64


def test_davis(published: Path) -> None:
    archive = open_archive(published / "davis" / "DAVIS-2017-trainval-480p.zip")
    for year in ("2016", "2017"):
        assert archive.read(f"DAVIS/ImageSets/{year}/train.txt") == b"single-000\nmulti-000\nlookalike-000\n"
        assert archive.read(f"DAVIS/ImageSets/{year}/val.txt") == b"single-001\nmulti-001\nlookalike-001\n"
    for sequence in ("multi-000", "lookalike-001"):
        first = picture(archive, f"DAVIS/Annotations/480p/{sequence}/00000.png")
        assert first.mode == "P"
        assert np.array_equal(np.array(first.getpalette()).reshape(-1, 3)[:8], DAVIS_PALETTE[:8])
        ids = np.unique(np.array(first))
        assert ids.tolist() == list(range(len(ids)))
        for number in range(3):
            frame = picture(archive, f"DAVIS/JPEGImages/480p/{sequence}/{number:05d}.jpg")
            assert (frame.size, frame.mode, frame.format) == ((128, 72), "RGB", "JPEG")
    assert len(archive.names()) == 6 * 3 * 2 + 4


def test_youtubevos_meta_and_late_objects(published: Path) -> None:
    archive = open_archive(published / "youtubevos" / "train.zip")
    videos = json.loads(archive.read("train/meta.json"))["videos"]
    assert len(videos) == 6
    late = 0
    for name, video in videos.items():
        stems = [n.split("/")[-1][:5] for n in archive.names() if n.startswith(f"train/JPEGImages/{name}/")]
        assert stems == [f"{5 * i:05d}" for i in range(16)]
        masks = {stem: np.array(picture(archive, f"train/Annotations/{name}/{stem}.png")) for stem in stems}
        for label, entry in video["objects"].items():
            assert entry["category"] in ("blob", "flower", "box", "walker")
            assert entry["frames"] == [stem for stem in stems if (masks[stem] == int(label)).any()]
            assert (masks[entry["frames"][0]] == int(label)).sum() >= TOY.min_pixels
            late += entry["frames"][0] != "00000"
        assert np.unique(np.stack(list(masks.values()))).max() == max(map(int, video["objects"]))
    assert late >= 2


def test_msra10k_masks_are_binary_but_for_their_edge(published: Path) -> None:
    archive = open_archive(published / "msra10k" / "MSRA10K_Imgs_GT.zip")
    assert archive.names() == [f"MSRA10K_Imgs_GT/Imgs/{i}.{e}" for i in (100001, 100008) for e in ("jpg", "png")]
    for name in archive.names()[1::2]:
        mask = np.array(picture(archive, name))
        assert picture(archive, name).mode == "L"
        grey = (mask > 0) & (mask < 255)
        assert grey.any()
        assert (mask == 255).sum() > 3 * TOY.min_pixels
        inner = cv2.erode((mask >= 128).astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
        outer = cv2.dilate((mask >= 128).astype(np.uint8), np.ones((5, 5), np.uint8)) == 0
        assert not grey[inner | outer].any()


def test_coco_annotations(published: Path) -> None:
    images = open_archive(published / "coco" / "train2017.zip")
    content = open_archive(published / "coco" / "annotations_trainval2017.zip").read(
        "annotations/instances_train2017.json"
    )
    instances = json.loads(content)
    categories = {category["id"] for category in instances["categories"]}
    sizes = {}
    for image in instances["images"]:
        sizes[image["id"]] = (image["height"], image["width"])
        frame = picture(images, f"train2017/{image['file_name']}")
        assert image["file_name"] == f"{image['id']:012d}.jpg"
        assert (frame.height, frame.width) == sizes[image["id"]]
    assert len({a["id"] for a in instances["annotations"]}) == len(instances["annotations"])
    crowds, tiny = 0, 0
    for annotation in instances["annotations"]:
        height, width = sizes[annotation["image_id"]]
        assert annotation["category_id"] in categories
        segmentation = annotation["segmentation"]
        if annotation["iscrowd"]:
            crowds += 1
            assert segmentation["size"] == [height, width]
            region = coco_mask.frPyObjects(segmentation, height, width)
        else:
            region = coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))
        area = float(coco_mask.area(region))
        tiny += annotation["area"] < 12
        assert abs(area - annotation["area"]) <= max(2.0, 0.12 * annotation["area"])
        x, y, w, h = annotation["bbox"]
        assert min(x, y, width - x - w, height - y - h) >= 0
    assert crowds >= 1
    assert tiny >= 1


def test_polygons_and_run_lengths_give_the_mask_back() -> None:
    rng = np.random.default_rng(0)
    mask = cv2.GaussianBlur(rng.random((40, 60)), (0, 0), 4) > 0.5
    height, width = mask.shape
    runs = coco_mask.decode(
        coco_mask.frPyObjects({"counts": run_lengths(mask), "size": [height, width]}, height, width)
    )
    assert np.array_equal(runs.astype(bool), mask)
    filled = np.zeros((30, 30), np.uint8)
    cv2.ellipse(filled, (14, 15), (9, 6), 20, 0, 360, 1, -1)
    drawn = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(outline_polygons(filled > 0), 30, 30))).astype(bool)
    assert (drawn & (filled > 0)).sum() / (drawn | (filled > 0)).sum() > 0.93
    for edge in (np.ones((3, 4), bool), np.zeros((3, 4), bool)):
        assert sum(run_lengths(edge)) == 12


def test_voc(published: Path) -> None:
    path = published / "voc" / "VOCtrainval_11-May-2012.tar"
    archive = open_archive(path)
    root = "VOCdevkit/VOC2012"
    splits = ("train", "val", "trainval")
    lists = {s: archive.read(f"{root}/ImageSets/Segmentation/{s}.txt").decode().split() for s in splits}
    assert len(lists["trainval"]) == 4
    assert sorted(lists["train"] + lists["val"]) == sorted(lists["trainval"])
    assert sum(n.startswith(f"{root}/JPEGImages/") for n in archive.names()) > 4
    for name in lists["trainval"]:
        mask = picture(archive, f"{root}/SegmentationObject/{name}.png")
        assert mask.mode == "P"
        ids = np.array(mask)
        assert set(np.unique(ids)) >= {0, 1, 255}
        assert ids.shape == np.array(picture(archive, f"{root}/JPEGImages/{name}.jpg")).shape[:2]
    with tarfile.open(path) as tar:
        assert {(m.mtime, m.uid, m.gid, m.uname) for m in tar.getmembers()} == {(0, 0, 0, "")}


def test_void_runs_along_every_border() -> None:
    ids = np.zeros((12, 12), np.uint8)
    ids[2:10, 2:6], ids[2:10, 6:10] = 1, 2
    ringed = with_void_border(ids)
    assert (ringed[3:9, 5:7] == 255).all()  # between two instances
    assert (ringed[2, 2:10] == 255).all() and (ringed[1, 2:10] == 255).all()
    assert (ringed[4:8, 3:5] == 1).all() and (ringed[4:8, 7:9] == 2).all()
    assert (ringed[0] == 0).all()


def test_mannequin(published: Path) -> None:
    archive = open_archive(published / "mannequin" / "mannequin.zip")
    for split, video in (("train", "multi-000"), ("val", "lookalike-001")):
        for number in range(2):
            folder = f"MannequinChallenge/{split}/{video}"
            assert picture(archive, f"{folder}/rgb/{number:05d}.jpg").size == (128, 72)
            data = np.frombuffer(archive.read(f"{folder}/depth/{number:05d}.png"), np.uint8)
            depth = np.asarray(cv2.imdecode(data, cv2.IMREAD_UNCHANGED))
            assert depth.dtype == np.uint16
            assert 500 < depth.min() < depth.max() == 10_000
            ids = np.array(picture(archive, f"{folder}/instances/{number:05d}.png"))
            for label in np.unique(ids[ids > 0]):
                assert len(np.unique(depth[ids == label])) == 1
    assert len(archive.names()) == (3 * 2 + 3 * 3) * 3  # videos, frames, and three files of each
