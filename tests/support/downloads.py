"""A web server whose behaviour a test sets, and a workspace in which it runs the download stage."""

from __future__ import annotations

import hashlib
import io
import json
import threading
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pipeline import download
from pipeline.core.errors import UserError
from pipeline.core.plain_names import open_plain
from pipeline.datasets.find_archives import list_sources
from pipeline.sources import fetch
from pipeline.sources.config import CocoSource, DataConfig
from pipeline.sources.store import Store

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
        lengthless: no Content-Length is sent.
        slow: a little at a time.
        status: answer sent instead of the file, if not 200.
        asked: the Range header of each request ("" for none).
    """

    files: dict[str, bytes] = field(default_factory=dict)
    ranges: bool = True
    etag: str | None = '"one"'
    cuts: list[int] = field(default_factory=list)
    status: int = 200
    lengthless: bool = False
    slow: bool = False
    asked: list[str] = field(default_factory=list)
    url: str = ""


def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    """A server on this machine, for the body of a fixture."""
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
            while web.slow and start < end:  # until the client is gone, or the test lets the rest through
                self.wfile.write(data[start : start + 50_000])
                start += 50_000
                time.sleep(0.02)
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
    def store(self) -> Store:
        return Store(self.root / "store")

    @property
    def ledger(self) -> dict[str, str]:
        path = self.root / "store/checksums.json"
        return dict(json.loads(path.read_text())) if path.exists() else {}

    def parts(self) -> list[Path]:
        """Files of downloads in progress."""
        return [p for p in self.store.parts.rglob("*") if p.is_file() and p.name != ".lock"]

    def kept(self) -> list[Path]:
        return sorted((self.root / "store/files").glob("*"))

    def forget(self) -> None:
        """As on another machine that knows the checksums: no file in the store."""
        for path in self.kept():
            path.unlink()

    def run(self, value: str, dataset: str = "davis") -> None:
        data = replace(NONE, **{dataset: value})  # type: ignore[arg-type]
        download.run(dataset, data, WHERE, self.root / "embedded", self.raw, self.store, self.root)

    def names(self) -> list[str]:
        """Members of the archive that a stage opens, as it finds it."""
        (source,) = list_sources(self.raw).values()
        return open_plain(source).names()

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


def check_brought(place: Place, data: bytes, name: str = "DAVIS-2017-trainval-480p.zip") -> None:
    """The download stage's output holds one archive with this content, linked from the store."""
    assert sorted(p.name for p in place.raw.iterdir()) == sorted([name, "manifest.json"])
    assert (place.raw / name).read_bytes() == data
    sha256 = hashlib.sha256(data).hexdigest()
    assert place.manifest() == [{"name": name, "bytes": len(data), "sha256": sha256}]
    assert (place.raw / name).samefile(place.root / "store" / "files" / sha256)


def check_referred(place: Place, source: Path, name: str = "DAVIS-2017-trainval-480p.zip") -> None:
    """The output only says what `source` contains, and stages find it there."""
    assert [p.name for p in place.raw.iterdir()] == ["manifest.json"]
    (entry,) = place.manifest()
    assert entry["name"] == name and set(entry) == {"name", "fingerprint"}
    assert list_sources(place.raw) == {name: source}
