"""Sources on this machine: archives, extracted folders, HDF5 files, the rendered sample; read where they are."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import json
import lzma
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline import download
from pipeline.core.errors import UserError
from pipeline.core.plain_names import open_plain
from pipeline.core.references import fingerprint_of
from pipeline.datasets.find_archives import identify, list_sources
from pipeline.sources import catalog, local
from pipeline.sources.config import CocoSource
from tests.support.downloads import (
    DAVIS,
    NONE,
    WHERE,
    Place,
    Web,
    check_brought,
    check_referred,
    make_zip,
)
from tests.support.tiny_archives import write_folder, write_tar


def test_an_archive_by_path_is_read_where_it_is(place: Place) -> None:
    data = make_zip(DAVIS)
    (place.root / "mine.zip").write_bytes(data)
    place.run("mine.zip")
    check_referred(place, place.root / "mine.zip")
    assert place.names() == sorted(DAVIS)
    assert (place.root / "mine.zip").stat().st_nlink == 1  # DVC would make a linked file read-only
    assert place.kept() == []


def test_the_same_content_elsewhere_is_the_same_output(place: Place) -> None:
    for name in ("a.zip", "b.zip"):
        (place.root / name).write_bytes(make_zip(DAVIS))
        os.utime(place.root / name, (1, len(name)))
    place.run("a.zip")
    first, key = place.manifest(), identify(place.raw)
    place.run("b.zip")
    assert (place.manifest(), identify(place.raw)) == (first, key)
    assert list(list_sources(place.raw).values()) == [place.root / "b.zip"]


def test_what_has_changed_or_gone_is_refused(place: Place) -> None:
    source = place.root / "mine.zip"
    source.write_bytes(make_zip(DAVIS))
    place.run("mine.zip")
    os.utime(source, (1, 1))
    assert list_sources(place.raw)  # another date alone changes nothing
    source.write_bytes(make_zip({**DAVIS, "DAVIS/JPEGImages/480p/a/00000.jpg": b"GPEJ" * 9000}))
    with pytest.raises(UserError, match=r"mine\.zip .* has changed .* `dvc repro -f download@davis`"):
        list_sources(place.raw)
    source.unlink()
    with pytest.raises(UserError, match=r"mine\.zip .* does not exist any more"):
        list_sources(place.raw)
    folder = write_folder(place.root / "extracted", DAVIS)
    place.run("extracted")
    (folder / "DAVIS/JPEGImages/480p/a/00001.jpg").write_bytes(b"new")
    with pytest.raises(UserError, match="has changed"):
        list_sources(place.raw)


def test_a_manifest_of_another_machine_says_what_to_do(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    (place.root / "mine.zip").write_bytes(make_zip(DAVIS))
    place.run("mine.zip")
    monkeypatch.setenv("DSTM_STORE", str(place.root / "elsewhere"))
    with pytest.raises(UserError, match=r"no place of it is known on this machine; .* `dvc repro -f download@davis`"):
        list_sources(place.raw)


def test_the_fingerprint_sees_every_member(tmp_path: Path) -> None:
    """A change in the middle of a large zip, of which only the ends are read."""
    files = {f"{i:04d}": bytes([i % 256]) * 5000 for i in range(1500)}
    (tmp_path / "a.zip").write_bytes(make_zip(files))
    (tmp_path / "b.zip").write_bytes(make_zip({**files, "0700": b"?" * 5000}))
    assert fingerprint_of(tmp_path / "a.zip") != fingerprint_of(tmp_path / "b.zip")


def test_tar_keeps_its_suffix_whatever_its_name(place: Place) -> None:
    write_tar(place.root / "mine.bin", DAVIS)
    place.run("mine.bin")
    check_referred(place, place.root / "mine.bin", "DAVIS-2017-trainval-480p.tar")


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_a_compressed_tar_is_decompressed_once(
    place: Place, pack: Callable[[bytes], bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_tar(place.root / "d.tar", DAVIS).read_bytes()
    (place.root / "d.tar.gz").write_bytes(pack(data))
    place.run("d.tar.gz")
    check_brought(place, data, "DAVIS-2017-trainval-480p.tar")
    assert "decompressing" in capsys.readouterr().out
    place.run("d.tar.gz")
    assert "decompressing" not in capsys.readouterr().out
    check_brought(place, data, "DAVIS-2017-trainval-480p.tar")


def test_a_damaged_or_exploding_compressed_tar(place: Place) -> None:
    data = gzip.compress(write_tar(place.root / "d.tar", DAVIS).read_bytes())
    (place.root / "cut.tar.gz").write_bytes(data[:-100])
    place.refused("cut.tar.gz", "cannot be decompressed", "complete .tar.gz")
    (place.root / "bomb.tar.gz").write_bytes(gzip.compress(bytes(100 << 20)))
    place.refused("bomb.tar.gz", "bomb.tar.gz unpacks from", "at most 100 times")
    assert place.kept() == []


def test_file_url_and_dvc_root(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = place.root / "with space"
    folder.mkdir()
    (folder / "d.zip").write_bytes(make_zip(DAVIS))
    place.run((folder / "d.zip").as_uri())
    check_referred(place, folder / "d.zip")
    monkeypatch.setenv("DVC_ROOT", str(folder))  # an experiment in a temporary copy of the workspace
    place.run("d.zip")
    check_referred(place, folder / "d.zip")
    place.refused("file://else/d.zip", "else", "file:///")


@pytest.mark.parametrize("inside", ["", "DAVIS"])
def test_a_folder_is_read_where_it_is(place: Place, inside: str) -> None:
    write_folder(place.root / "extracted", {**DAVIS, "DAVIS/.DS_Store": b"x"})
    place.run(f"extracted/{inside}")
    check_referred(place, place.root / "extracted" / inside, "DAVIS-2017-trainval-480p")
    assert place.names() == sorted(name.removeprefix(f"{inside}/") if inside else name for name in DAVIS)


@pytest.mark.parametrize("top", ["", "data/sets/", None])
@pytest.mark.parametrize("form", ["zip", "tar", "folder"])
@pytest.mark.parametrize("suffixes", [(".jpg", ".png"), (".JPG", ".PNG"), (".jpeg", ".png")])
def test_another_top_folder_or_suffix(place: Place, top: str | None, form: str, suffixes: tuple[str, str]) -> None:
    """Further folders around the data set, or its own missing; and names as some cameras and tools write them."""
    files = {
        (name.removeprefix("DAVIS/") if top is None else top + name)
        .replace(".jpg", suffixes[0])
        .replace(".png", suffixes[1]): data
        for name, data in DAVIS.items()
    }
    if form == "zip":
        (place.root / "d").write_bytes(make_zip(files))
    else:
        (write_tar if form == "tar" else write_folder)(place.root / "d", files)
    place.run("d")
    names = place.names()
    assert len(names) == len(DAVIS)
    assert all(name.endswith((".jpg", ".png", ".txt")) for name in names)
    archive = open_plain(place.root / "d")
    jpeg = next(name for name in names if name.endswith(".jpg"))
    assert archive.read(jpeg) == DAVIS["DAVIS/JPEGImages/480p/a/00000.jpg"]


def test_layouts_of_davis(place: Place) -> None:
    """Full resolution, the lists of 2016 alone, and the archive of DAVIS 2016 itself."""
    for name, change in {
        "full": ("480p/", "Full-Resolution/"),
        "old lists": ("ImageSets/2017", "ImageSets/2016"),
        "2016": ("ImageSets/2017", "ImageSets/480p"),
    }.items():
        (place.root / name).write_bytes(make_zip({key.replace(*change): data for key, data in DAVIS.items()}))
        place.run(name)
        check_referred(place, place.root / name)


def test_wrong_paths_and_contents_are_refused(place: Place) -> None:
    place.refused("nowhere.zip", f"{WHERE}.davis", "nowhere.zip", "embedded, published, none")
    place.refused("embeded", "'embeded' not found", "embedded")
    place.refused("", "not found")
    place.refused("gopher://host/d.zip", "gopher", "expected http, https, file")
    place.refused("a.zip http://host/d.zip", "expected one path, or URLs")
    whole = make_zip(DAVIS)
    (place.root / "short.zip").write_bytes(whole[:-400])
    place.refused("short.zip", "short.zip", "not a readable zip")
    (place.root / "text.zip").write_bytes(b"<html>not found</html>")
    place.refused("text.zip", "not a readable zip")
    broken = bytearray(whole)
    broken[whole.index(b"jpegjpeg") + 7] ^= 1
    (place.root / "broken.zip").write_bytes(bytes(broken))
    place.refused("broken.zip", "damaged", "00000.jpg")
    (place.root / "other.zip").write_bytes(make_zip({k: v for k, v in DAVIS.items() if "ImageSets" not in k}))
    place.refused("other.zip", "no DAVIS/ImageSets/2017/*.txt or DAVIS/ImageSets/2016/*.txt")
    (place.root / "empty.zip").write_bytes(make_zip({}))
    place.refused("empty.zip", "contains no files")
    (place.root / "folder").mkdir()
    place.refused("folder", "folder", "extracted DAVIS-2017-trainval-480p.zip")


def test_refusal_leaves_the_earlier_output(place: Place) -> None:
    (place.root / "d.zip").write_bytes(make_zip(DAVIS))
    place.run("d.zip")
    place.refused("nowhere")
    check_referred(place, place.root / "d.zip")


def test_published_file_is_known_by_name_and_length(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    data = make_zip(DAVIS)
    published = replace(catalog.CATALOG["davis"][0], n_bytes=len(data), checksum="md5:" + "0" * 32)
    monkeypatch.setitem(catalog.CATALOG, "davis", (published,))
    (place.root / published.name).write_bytes(data)
    place.refused(published.name, "0" * 32, hashlib.md5(data).hexdigest())
    (place.root / "renamed.zip").write_bytes(data)
    place.run("renamed.zip")
    check_referred(place, place.root / "renamed.zip")


def test_no_space(place: Place, web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    web.files["/d.zip"] = make_zip(DAVIS)
    usage = SimpleNamespace(free=10)
    monkeypatch.setattr("pipeline.sources.fetch.shutil.disk_usage", lambda _: usage)
    place.refused(f"{web.url}/d.zip", "GB are free")


# --- none, embedded, published without an address ---


def test_none_writes_an_empty_manifest(place: Place) -> None:
    place.run("none")
    assert [p.name for p in place.raw.iterdir()] == ["manifest.json"]
    assert place.manifest() == []


def test_coco_has_two_archives(place: Place) -> None:
    images = make_zip({"train2017/000000000001.jpg": b"x"})
    (place.root / "coco-images.zip").write_bytes(images)
    (place.root / "coco-notes.zip").write_bytes(make_zip({"annotations/instances_train2017.json": b"{}"}))
    both = replace(NONE, coco=CocoSource("coco-images.zip", "coco-notes.zip"))
    download.run("coco", both, WHERE, place.root, place.raw, place.store, place.root)
    found = {"annotations_trainval2017.zip": "coco-notes.zip", "train2017.zip": "coco-images.zip"}
    assert list_sources(place.raw) == {name: place.root / path for name, path in found.items()}
    half = replace(NONE, coco=CocoSource("coco-images.zip", "none"))
    with pytest.raises(UserError, match=r"data\.coco\.annotations is none"):
        download.run("coco", half, WHERE, place.root, place.raw, place.store, place.root)
    swapped = replace(NONE, coco=CocoSource("coco-notes.zip", "coco-images.zip"))
    with pytest.raises(UserError, match=r"no train2017/\*\.jpg"):
        download.run("coco", swapped, WHERE, place.root, place.raw, place.store, place.root)


def test_embedded_is_held_to_its_manifest(place: Place) -> None:
    place.refused("embedded", "dvc repro render")
    data = make_zip({"train/meta.json": b"{}"})
    folder = place.root / "embedded"
    folder.mkdir()
    entry = {"name": "train.zip", "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (folder / "manifest.json").write_text(json.dumps({"files": [entry]}))
    (folder / "train.zip").write_bytes(data)
    place.run("embedded", "youtubevos")
    assert (place.raw / "train.zip").samefile(folder / "train.zip")  # each byte once
    assert place.manifest() == [entry]
    (folder / "train.zip").write_bytes(data[:-1] + b"?")
    place.refused("embedded", "sha256", "render", dataset="youtubevos")
    (folder / "manifest.json").write_text('{"files": []}')
    place.refused("embedded", "renders no sample", dataset="youtubevos")


def test_youtubevos_asks_for_registration(place: Place) -> None:
    place.refused("published", "youtube-vos.org", f"{WHERE}.youtubevos", dataset="youtubevos")
    place.refused("data/external/train.tar", "train.tar", "youtube-vos.org", dataset="youtubevos")
    place.refused("published", "never released", dataset="mannequin")
    with pytest.raises(UserError, match="no data set 'davi'"):
        catalog.archives_of("davi")


# --- RGB and depth in HDF5 ---

FILMS = {"kitchen.h5": b"h5" * 400, "more/hall.hdf5": b"h5" * 500, "val.txt": b"kitchen.h5\n"}


def test_hdf5_files_are_read_where_they_are(place: Place) -> None:
    write_folder(place.root / "films", FILMS)
    place.run("films", "mannequin")
    check_referred(place, place.root / "films", "mannequin")
    assert place.names() == sorted(FILMS)
    place.refused("films", "no DAVIS/ImageSets")


def test_a_single_hdf5_file(place: Place) -> None:
    (place.root / "all.h5").write_bytes(b"h5")
    (place.root / "notes.txt").write_bytes(b"")
    place.run("all.h5", "mannequin")
    check_referred(place, place.root / "all.h5", "mannequin")
    assert place.names() == ["all.h5"]
    place.refused("all.h5", "all.h5 contains no DAVIS/ImageSets")


def test_an_archive_of_hdf5_files(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "FULL_READ_BYTES", 100)
    data = bytearray(make_zip(FILMS))
    data[bytes(data).index(b"h5h5") + 7] ^= 1  # not seen here: the file may be larger than the memory
    (place.root / "films.zip").write_bytes(bytes(data))
    place.run("films.zip", "mannequin")
    check_referred(place, place.root / "films.zip", "mannequin.zip")
    (place.root / "other.zip").write_bytes(make_zip({"films/kitchen.mp4": b"x"}))
    place.refused("other.zip", "no MannequinChallenge/*/rgb/*.jpg or *.h5 or *.hdf5", dataset="mannequin")


def test_large_archives_are_read_at_both_ends(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "FULL_READ_BYTES", 100)
    data = bytearray(make_zip(dict(sorted(DAVIS.items()))))
    data[bytes(data).index(b"jpegjpeg") + 7] ^= 1  # in the last member by name
    (place.root / "d.zip").write_bytes(bytes(data))
    place.refused("d.zip", "damaged")
