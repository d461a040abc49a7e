"""The download stage against a small HTTP server, local archives and folders, and everything that may go wrong."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline import download
from pipeline.core.errors import UserError
from pipeline.sources import catalog, fetch, local
from pipeline.sources.checksums import Digest, Ledger
from pipeline.sources.config import CocoSource, DataConfig

NONE = DataConfig("none", "none", "none", CocoSource("none", "none"), "none", "none", "none")
WHERE = "profiles.sample.data"
DAVIS = {
    "DAVIS/ImageSets/2017/train.txt": b"a\n",
    "DAVIS/JPEGImages/480p/a/00000.jpg": b"jpeg" * 9000,
    "DAVIS/Annotations/480p/a/00000.png": b"png" * 9000,
}


def make_zip(files: dict[str, bytes]) -> bytes:
    """A zip in memory."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


@dataclass
class Web:
    """A server whose behaviour a test sets, and what it was asked.

    Attributes:
        files: content by path.
        ranges: whether Range is honoured.
        etag: validator sent along, if any.
        cuts: for each coming answer, after how many bytes the connection breaks.
        status: answer sent instead of the file, if not 200.
        asked: the Range header of each request ("" for none).
    """

    files: dict[str, bytes] = field(default_factory=dict)
    ranges: bool = True
    etag: str | None = '"one"'
    cuts: list[int] = field(default_factory=list)
    status: int = 200
    lengthless: bool = False
    asked: list[str] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    web = Web()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers.get("Range", "")
            web.asked.append(asked)
            data = web.files.get(self.path)
            if web.status != 200 or data is None:
                self.send_error(web.status if web.status != 200 else 404)
                return
            start = int(asked[len("bytes=") : -1]) if asked and web.ranges else 0
            if self.headers.get("If-Range", web.etag) != web.etag:
                start = 0
            if start >= len(data) and start:
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(data)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            if not web.lengthless:
                self.send_header("Content-Length", str(len(data) - start))
            if web.etag:
                self.send_header("ETag", web.etag)
            self.end_headers()
            end = start + web.cuts.pop(0) if web.cuts else len(data)
            self.wfile.write(data[start:end])

        def log_message(self, format: str, *args: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    web.url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(fetch, "PAUSES_S", (0.0, 0.0))
    yield web
    server.shutdown()
    server.server_close()
    thread.join()


@dataclass
class Place:
    """A workspace: where things lie, and the stage run in it."""

    root: Path

    @property
    def raw(self) -> Path:
        return self.root / "data/raw/davis"

    @property
    def scratch(self) -> Path:
        return self.root / ".scratch/download"

    @property
    def ledger(self) -> dict[str, str]:
        path = self.root / ".scratch/checksums.json"
        return dict(json.loads(path.read_text())) if path.exists() else {}

    def run(self, value: str, dataset: str = "davis") -> None:
        data = replace(NONE, **{dataset: value})  # type: ignore[arg-type]
        download.run(dataset, data, WHERE, self.root / "embedded", self.raw, self.scratch, self.root)

    def manifest(self) -> list[dict[str, object]]:
        files: list[dict[str, object]] = json.loads((self.raw / "manifest.json").read_text())["files"]
        return files

    def refused(self, value: str, *words: str, dataset: str = "davis") -> str:
        """Run, expect one clear line and nothing left behind."""
        before = sorted(self.raw.parent.glob("*")) if self.raw.parent.exists() else []
        with pytest.raises(UserError) as caught:
            self.run(value, dataset)
        message = str(caught.value)
        assert "\n" not in message
        for word in words:
            assert word in message
        after = sorted(self.raw.parent.iterdir()) if self.raw.parent.exists() else []
        assert after == before
        return message


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.delenv("DVC_ROOT", raising=False)
    return Place(tmp_path)


def check_brought(place: Place, data: bytes, name: str = "DAVIS-2017-trainval-480p.zip") -> None:
    assert sorted(p.name for p in place.raw.iterdir()) == sorted([name, "manifest.json"])
    assert (place.raw / name).read_bytes() == data
    assert place.manifest() == [{"name": name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}]


# --- paths ---


def test_archive_by_path_gets_the_published_name(place: Place) -> None:
    data = make_zip(DAVIS)
    (place.root / "mine.zip").write_bytes(data)
    place.run("mine.zip")
    check_brought(place, data)
    assert (place.raw / "DAVIS-2017-trainval-480p.zip").stat().st_nlink == 1  # DVC would make a linked file read-only


def test_tar_keeps_its_suffix_whatever_its_name(place: Place) -> None:
    with tarfile.open(place.root / "mine.bin", "w:") as archive:
        for name, data in DAVIS.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    place.run("mine.bin")
    check_brought(place, (place.root / "mine.bin").read_bytes(), "DAVIS-2017-trainval-480p.tar")


def test_file_url_and_dvc_root(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    data = make_zip(DAVIS)
    folder = place.root / "with space"
    folder.mkdir()
    (folder / "d.zip").write_bytes(data)
    place.run((folder / "d.zip").as_uri())
    check_brought(place, data)
    monkeypatch.setenv("DVC_ROOT", str(folder))  # an experiment in a temporary copy of the workspace
    place.run("d.zip")
    check_brought(place, data)
    place.refused("file://else/d.zip", "else", "file:///")


@pytest.mark.parametrize("inside", ["", "DAVIS"])
def test_folder_is_packed_deterministically(place: Place, inside: str) -> None:
    for name, data in DAVIS.items():
        path = place.root / "extracted" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    (place.root / "extracted/notes.txt").write_text("not of the data set")
    place.run(f"extracted/{inside}")
    archive = place.raw / "DAVIS-2017-trainval-480p.zip"
    with zipfile.ZipFile(archive) as opened:
        assert {m.filename: opened.read(m) for m in opened.infolist()} == DAVIS
        assert all(m.compress_type == zipfile.ZIP_STORED for m in opened.infolist())
    first = archive.read_bytes()
    (place.root / "extracted/DAVIS/ImageSets/2017/train.txt").touch()
    place.run(f"extracted/{inside}")
    check_brought(place, first)


def test_wrong_paths_and_contents_are_refused(place: Place) -> None:
    place.refused("nowhere.zip", f"{WHERE}.davis", "nowhere.zip", "embedded, published, none")
    place.refused("embeded", "'embeded' not found", "embedded")
    place.refused("", "not found")
    place.refused("ftp://host/d.zip", "ftp")
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
    place.refused("other.zip", "no DAVIS/ImageSets/2017/*.txt")
    (place.root / "empty.zip").write_bytes(make_zip({}))
    place.refused("empty.zip", "contains no files")
    (place.root / "folder").mkdir()
    place.refused("folder", "folder", "extracted DAVIS-2017-trainval-480p.zip")


def test_refusal_leaves_the_earlier_output(place: Place) -> None:
    data = make_zip(DAVIS)
    (place.root / "d.zip").write_bytes(data)
    place.run("d.zip")
    place.refused("nowhere")
    check_brought(place, data)


def test_published_file_is_known_by_name_and_length(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    data = make_zip(DAVIS)
    published = replace(catalog.CATALOG["davis"][0], n_bytes=len(data), checksum="md5:" + "0" * 32)
    monkeypatch.setitem(catalog.CATALOG, "davis", (published,))
    (place.root / published.name).write_bytes(data)
    place.refused(published.name, "0" * 32, hashlib.md5(data).hexdigest())
    (place.root / "renamed.zip").write_bytes(data)
    place.run("renamed.zip")
    check_brought(place, data)


def test_no_space(place: Place, web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    (place.root / "d.zip").write_bytes(make_zip(DAVIS))
    web.files["/d.zip"] = make_zip(DAVIS)
    usage = SimpleNamespace(free=10)
    monkeypatch.setattr("pipeline.sources.fetch.shutil.disk_usage", lambda _: usage)
    place.refused("d.zip", "GB are free")
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
    download.run("coco", both, WHERE, place.root, place.raw, place.scratch, place.root)
    assert [f["name"] for f in place.manifest()] == ["annotations_trainval2017.zip", "train2017.zip"]
    assert (place.raw / "train2017.zip").read_bytes() == images
    half = replace(NONE, coco=CocoSource("coco-images.zip", "none"))
    with pytest.raises(UserError, match=r"data\.coco\.annotations is none"):
        download.run("coco", half, WHERE, place.root, place.raw, place.scratch, place.root)
    swapped = replace(NONE, coco=CocoSource("coco-notes.zip", "coco-images.zip"))
    with pytest.raises(UserError, match=r"no train2017/\*\.jpg"):
        download.run("coco", swapped, WHERE, place.root, place.raw, place.scratch, place.root)


def test_embedded_is_held_to_its_manifest(place: Place) -> None:
    place.refused("embedded", "dvc repro render")
    data = make_zip({"train/meta.json": b"{}"})
    folder = place.root / "embedded"
    folder.mkdir()
    entry = {"name": "train.zip", "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (folder / "manifest.json").write_text(json.dumps({"files": [entry]}))
    (folder / "train.zip").write_bytes(data)
    place.run("embedded", "youtubevos")
    check_brought(place, data, "train.zip")
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


@pytest.mark.parametrize("mapped", [False, True])
def test_hdf5_files_are_packed_as_they_are(place: Place, mapped: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if mapped:  # as files larger than the memory may be
        monkeypatch.setattr(local, "FULL_READ_BYTES", 100)
    for name, data in FILMS.items():
        (place.root / "films" / name).parent.mkdir(parents=True, exist_ok=True)
        (place.root / "films" / name).write_bytes(data)
    place.run("films", "mannequin")
    archive = place.raw / "mannequin.zip"
    check_brought(place, archive.read_bytes(), "mannequin.zip")
    with zipfile.ZipFile(archive) as opened:
        assert {m.filename: opened.read(m) for m in opened.infolist()} == {
            f"MannequinChallenge/{name}": data for name, data in FILMS.items()
        }
        assert all(m.compress_type == zipfile.ZIP_STORED for m in opened.infolist())
    place.refused("films", "no DAVIS/ImageSets")


def test_a_single_hdf5_file(place: Place) -> None:
    (place.root / "all.h5").write_bytes(b"h5")
    expected = catalog.archives_of("mannequin")
    assert local.pack_folder(place.root / "all.h5", place.root / "packed", expected) == "mannequin.zip"
    with zipfile.ZipFile(place.root / "packed" / "mannequin.zip") as opened:
        assert {m.filename: opened.read(m) for m in opened.infolist()} == {"MannequinChallenge/all.h5": b"h5"}
    with pytest.raises(UserError, match=r"all\.h5 contains no DAVIS/ImageSets"):
        local.pack_folder(place.root / "all.h5", place.root / "packed", catalog.archives_of("davis"))


def test_an_archive_of_hdf5_files(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "FULL_READ_BYTES", 100)
    data = bytearray(make_zip(FILMS))
    data[bytes(data).index(b"h5h5") + 7] ^= 1  # not seen here: the file may be larger than the memory
    (place.root / "films.zip").write_bytes(bytes(data))
    place.run("films.zip", "mannequin")
    check_brought(place, bytes(data), "mannequin.zip")
    (place.root / "other.zip").write_bytes(make_zip({"films/kitchen.mp4": b"x"}))
    place.refused("other.zip", "no MannequinChallenge/*/rgb/*.jpg or *.h5 or *.hdf5", dataset="mannequin")


# --- downloads ---


def test_download_is_recorded_and_held_to_its_first_checksum(place: Place, web: Web) -> None:
    data = make_zip(DAVIS)
    url = f"{web.url}/some%20where/d.zip?dl=1"
    web.files["/some%20where/d.zip?dl=1"] = data
    place.run(url)
    check_brought(place, data)
    assert place.ledger == {url: f"sha256:{hashlib.sha256(data).hexdigest()}"}
    assert [p for p in place.scratch.rglob("*") if p.is_file()] == []
    place.run(url)  # once more: the same file is accepted
    web.files["/some%20where/d.zip?dl=1"] = make_zip({**DAVIS, "new": b""})
    message = place.refused(url, "checksums.json", hashlib.sha256(data).hexdigest())
    assert "published" not in message
    assert [p for p in place.scratch.rglob("*") if p.is_file()] == []
    check_brought(place, data)


def test_truncated_transfer_is_resumed_within_a_run(place: Place, web: Web) -> None:
    data = make_zip(DAVIS)
    web.files["/d.zip"] = data
    web.cuts = [10_000, 20_000]
    place.run(f"{web.url}/d.zip")
    check_brought(place, data)
    assert web.asked == ["", "bytes=10000-", "bytes=30000-"]


def test_truncated_transfer_is_resumed_by_a_second_run(place: Place, web: Web) -> None:
    data = make_zip(DAVIS)
    web.files["/d.zip"] = data
    web.cuts = [10_000, 0, 0, 0]
    place.refused(f"{web.url}/d.zip", "after 10000 bytes", "rerun")
    assert place.ledger == {}
    web.asked.clear()
    place.run(f"{web.url}/d.zip")
    check_brought(place, data)
    assert web.asked[-1] == "bytes=10000-"


@pytest.mark.parametrize("change", ["no range", "other etag", "no etag", "other length"])
def test_resume_never_mixes_two_files(place: Place, web: Web, change: str) -> None:
    web.files["/d.zip"] = make_zip(DAVIS)
    web.etag = None if change == "no etag" else '"one"'
    web.cuts = [10_000, 0, 0, 0]
    place.refused(f"{web.url}/d.zip", "rerun")
    data = make_zip({**DAVIS, "DAVIS/JPEGImages/480p/a/00000.jpg": b"GPEJ" * 9000})
    if change == "no range":
        web.ranges = False
        data = web.files["/d.zip"]
    if change == "other etag":
        web.etag = '"two"'
    if change == "other length":
        data += b"\0" * 7
    web.files["/d.zip"] = data
    web.cuts = []
    place.run(f"{web.url}/d.zip")
    check_brought(place, data)


def test_whole_part_needs_no_further_transfer(place: Place, web: Web) -> None:
    """A run killed between the last byte and the renaming, and one killed before the checksum."""
    data = make_zip(DAVIS)
    web.files["/d.zip"] = data
    web.cuts = [len(data) - 1, 0, 0, 0]
    place.refused(f"{web.url}/d.zip", "rerun")
    (part,) = place.scratch.rglob("archive.part")
    part.write_bytes(data)
    web.asked.clear()
    place.run(f"{web.url}/d.zip")
    check_brought(place, data)
    assert web.asked == []


def test_interrupted_by_the_user(place: Place, web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    data = make_zip(DAVIS)
    web.files["/d.zip"] = data
    monkeypatch.setattr(fetch, "BLOCK", 4096)
    original = fetch._received

    def stops(response: io.BytesIO) -> Iterator[bytes]:
        for count, block in enumerate(original(response)):
            if count == 3:
                raise KeyboardInterrupt
            yield block

    monkeypatch.setattr(fetch, "_received", stops)
    with pytest.raises(KeyboardInterrupt):
        place.run(f"{web.url}/d.zip")
    assert not place.raw.exists()
    monkeypatch.setattr(fetch, "_received", original)
    place.run(f"{web.url}/d.zip")
    check_brought(place, data)
    assert web.asked == ["", f"bytes={3 * 4096}-"]


def test_published_length_and_checksum(place: Place, web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    data = make_zip(DAVIS)
    web.files["/d.zip"] = data
    base = replace(catalog.CATALOG["davis"][0], url=f"{web.url}/d.zip", n_bytes=len(data))

    def publish(**changes: object) -> None:
        monkeypatch.setitem(catalog.CATALOG, "davis", (replace(base, **changes),))  # type: ignore[arg-type]

    publish(checksum="md5:" + "0" * 32)
    place.refused("published", "md5 " + hashlib.md5(data).hexdigest(), "0" * 32)
    assert not list(place.scratch.rglob("archive*"))  # the wrong file is gone
    publish(n_bytes=len(data) + 1)
    place.refused("published", str(len(data) + 1))
    publish(checksum="md5:" + hashlib.md5(data).hexdigest())
    place.run("published")
    check_brought(place, data)
    assert place.ledger == {}
    publish(checksum="sha256:" + hashlib.sha256(data).hexdigest())
    web.lengthless = True  # without a length only the published one shows that the connection broke
    web.cuts = [10_000]
    place.run("published")
    check_brought(place, data)


def test_server_errors(place: Place, web: Web) -> None:
    place.refused(f"{web.url}/absent.zip", "404")
    assert len(web.asked) == 1  # not tried again
    web.status = 503
    place.refused(f"{web.url}/d.zip", "Service Unavailable", "rerun")
    assert len(web.asked) == 1 + 3
    web.status = 200
    web.files["/page.zip"] = b"<html>please register</html>"
    place.refused(f"{web.url}/page.zip", "the download is not a readable")
    assert not list(place.scratch.rglob("archive*"))
    assert place.ledger == {}
    place.refused("http://127.0.0.1:none/d.zip", "expected http")


def test_large_archives_are_read_at_both_ends(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "FULL_READ_BYTES", 100)
    data = bytearray(make_zip(dict(sorted(DAVIS.items()))))
    data[bytes(data).index(b"jpegjpeg") + 7] ^= 1  # in the last member by name
    (place.root / "d.zip").write_bytes(bytes(data))
    place.refused("d.zip", "damaged")


def test_digest_is_hashlib() -> None:
    hashed = Digest("md5:" + hashlib.md5(b"abc").hexdigest())
    hashed.update(b"ab")
    hashed.update(b"c")
    assert hashed.sha256 == hashlib.sha256(b"abc").hexdigest()
    hashed.check("x", "y")
    with pytest.raises(UserError, match=r"x has sha256 .* expected 00 "):
        Digest("sha256:00").check("x", "y")


def test_ledger_keeps_other_entries(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "checksums.json")
    ledger.record("b", "sha256:1")
    ledger.record("a", "sha256:2")
    assert json.loads(ledger.path.read_text()) == {"a": "sha256:2", "b": "sha256:1"}
    ledger.path.write_text("{")
    with pytest.raises(UserError, match="not JSON"):
        ledger.get("a")
