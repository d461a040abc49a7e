"""Downloads from a small HTTP server, the store that keeps them, and everything that may go wrong."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.core.errors import UserError
from pipeline.sources import catalog, fetch
from pipeline.sources.checksums import Digest, Ledger
from tests.support.downloads import DAVIS, Place, Web, check_brought, make_zip, serve


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    yield from serve(monkeypatch)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.delenv("DVC_ROOT", raising=False)
    return Place(tmp_path)


def test_download_is_recorded_and_held_to_its_first_checksum(place: Place, web: Web) -> None:
    data = make_zip(DAVIS)
    url = f"{web.url}/some%20where/d.zip?dl=1"
    web.files["/some%20where/d.zip?dl=1"] = data
    place.run(url)
    check_brought(place, data)
    assert place.ledger == {url: f"sha256:{hashlib.sha256(data).hexdigest()}"}
    assert place.parts() == []
    web.asked.clear()
    shutil.rmtree(place.raw)
    place.run(url)  # once more: from the store
    check_brought(place, data)
    assert web.asked == []
    place.forget()
    place.run(url)  # downloaded again: the same file is accepted
    assert web.asked == [""]
    place.forget()
    web.files["/some%20where/d.zip?dl=1"] = make_zip({**DAVIS, "new": b""})
    message = place.refused(url, "checksums.json", hashlib.sha256(data).hexdigest())
    assert "published" not in message
    assert place.parts() == []
    assert (place.raw / "DAVIS-2017-trainval-480p.zip").read_bytes() == data  # of the earlier run


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
    (part,) = place.store.parts.rglob("archive.part")
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
    assert not list(place.store.parts.rglob("archive*"))  # the wrong file is gone
    publish(n_bytes=len(data) + 1)
    place.refused("published", str(len(data) + 1))
    publish(checksum="md5:" + hashlib.md5(data).hexdigest())
    place.run("published")
    check_brought(place, data)
    sha256 = hashlib.sha256(data).hexdigest()
    assert place.ledger == {f"{web.url}/d.zip": f"sha256:{sha256}"}
    place.forget()
    publish(checksum=f"sha256:{sha256}")
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
    assert not list(place.store.parts.rglob("archive*"))
    assert place.ledger == {}
    place.refused("http://127.0.0.1:none/d.zip", "expected http")


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
