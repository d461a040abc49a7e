"""Downloads from a small HTTP server, the store that keeps them, and everything that may go wrong."""

from __future__ import annotations

import errno
import hashlib
import http.client
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.errors import UserError
from pipeline.sources import catalog, fetch, fsspec_files
from pipeline.sources.checksums import Digest, Ledger
from tests.support.downloads import DAVIS, Place, Web, check_brought, make_zip
from tests.support.tiny_archives import write_folder


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


# --- mirrors, other kinds of URL, errors of the network ---


def test_mirrors_are_tried_in_order(
    place: Place, web: Web, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = make_zip(DAVIS)
    web.files |= {"/page.zip": b"<html>moved</html>", "/other.zip": make_zip({"a": b""}), "/good.zip": data}
    names = ["gone.zip", "page.zip", "other.zip", "good.zip", "never.zip"]
    urls = [f"{web.url}/{name}" for name in names]
    checksum = "sha256:" + hashlib.sha256(data).hexdigest()
    published = replace(catalog.CATALOG["davis"][0], url=urls[0], mirrors=tuple(urls[1:]), checksum=checksum)
    monkeypatch.setitem(catalog.CATALOG, "davis", (replace(published, n_bytes=None),))
    place.run("published")
    check_brought(place, data)
    said = capsys.readouterr().out
    assert "404 Not Found" in said and f"trying the next address, {urls[1]}" in said
    assert said.count("expected " + checksum.partition(":")[2]) == 2  # neither the page nor the other file
    assert place.ledger == {urls[3]: checksum}
    assert place.parts() == []
    web.asked.clear()
    place.run("published")
    assert web.asked == []


def test_the_last_mirror_says_what_is_wrong(place: Place, web: Web) -> None:
    place.refused(f"{web.url}/a.zip {web.url}/b.zip", "b.zip: the server answers 404")
    data = make_zip(DAVIS)
    web.files["/b.zip"] = data
    place.run(f"{web.url}/a.zip {web.url}/b.zip")  # several URLs of the user's own
    check_brought(place, data)


def test_errors_of_the_network_are_retried(place: Place, web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not only time-outs; but an error of the disk here is none of the network."""
    data = make_zip(DAVIS)
    web.files["/d.zip"] = data
    monkeypatch.setattr(fetch, "BLOCK", 4096)
    original = fetch._received
    errors: list[Exception] = [OSError(errno.ENETUNREACH, "unreachable"), http.client.IncompleteRead(b"")]
    errors.append(ConnectionResetError())

    def breaks(response: io.BytesIO) -> Iterator[bytes]:
        for count, block in enumerate(original(response)):
            yield block
            if count == 1 and errors:
                raise errors.pop(0)

    monkeypatch.setattr(fetch, "_received", breaks)
    place.run(f"{web.url}/d.zip")
    check_brought(place, data)
    assert len(web.asked) == 4 and not errors
    place.forget()
    errors.append(OSError(errno.ENOSPC, "no space left"))
    with pytest.raises(OSError, match="no space left"):
        place.run(f"{web.url}/d.zip")


def test_any_kind_of_url_that_fsspec_opens(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    data = make_zip(DAVIS)
    fsspec = pytest.importorskip("fsspec")
    fsspec.filesystem("memory").pipe("/bucket/d.zip", data)
    place.run("memory://bucket/d.zip")
    check_brought(place, data)
    place.run("memory://bucket/d.zip")
    assert "in the store already" in capsys.readouterr().out
    place.refused("memory://bucket/none.zip", "expected a file that may be read")
    place.refused("gopher://bucket/d.zip", "a URL of kind gopher; expected http, https, file")


def test_a_transfer_through_fsspec_continues(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    data = make_zip(DAVIS)
    fsspec = pytest.importorskip("fsspec")
    fsspec.filesystem("memory").pipe("/bucket/e.zip", data)
    monkeypatch.setattr(fsspec_files, "BLOCK", 1000)
    monkeypatch.setattr(fetch, "PAUSES_S", (0.0, 0.0))
    original, starts = fsspec_files._copy, []

    def breaks(filesystem: Any, path: str, part: Path, n_bytes: int, url: str) -> None:
        starts.append(part.stat().st_size if part.exists() else 0)
        if len(starts) < 3:
            with open(part, "ab") as file:
                file.write(data[starts[-1] : starts[-1] + 10_000])
            raise RuntimeError("the client's own error")
        original(filesystem, path, part, n_bytes, url)

    monkeypatch.setattr(fsspec_files, "_copy", breaks)
    place.run("memory://bucket/e.zip")
    check_brought(place, data)
    assert starts == [0, 10_000, 20_000]


def test_a_missing_package_is_one_line(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(url: str) -> None:
        raise ImportError("Please install s3fs to access S3")

    monkeypatch.setattr(pytest.importorskip("fsspec").core, "url_to_fs", missing)
    place.refused("s3://bucket/d.zip", "s3://bucket/d.zip needs a package that is not installed", "install s3fs")


# --- the store ---


def test_a_damaged_file_of_the_store_is_brought_again(place: Place, web: Web) -> None:
    data = make_zip(DAVIS)
    web.files["/d.zip"] = data
    place.run(f"{web.url}/d.zip")
    (kept,) = place.kept()
    kept.unlink()
    kept.write_bytes(data[:-1] + b"?")
    place.run(f"{web.url}/d.zip")
    check_brought(place, data)
    assert len(web.asked) == 2


PROGRAM = """
import sys
from pathlib import Path
from tests.support.downloads import Place
from pipeline.sources import fetch
fetch.BLOCK = 1000
Place(Path(sys.argv[1])).run(sys.argv[2])
"""


def start(place: Place, value: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PROGRAM, str(place.root), value]
    environment = {**os.environ, "no_proxy": "127.0.0.1", "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.slow
def test_two_downloads_at_once_bring_the_file_once(place: Place, web: Web) -> None:
    data = make_zip({**DAVIS, "big": bytes(3_000_000)})
    web.files["/d.zip"] = data
    runs = [start(place, f"{web.url}/d.zip") for _ in range(2)]
    said = [run.communicate(timeout=600)[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], said
    check_brought(place, data)
    assert len(web.asked) == 1


@pytest.mark.slow
def test_two_local_sources_at_once(place: Place) -> None:
    """They used to delete each other's temporary folder."""
    write_folder(place.root / "mine", DAVIS)
    for value in ("mine", "mine"):
        runs = [start(place, value) for _ in range(3)]
        said = [run.communicate(timeout=600)[0] for run in runs]
        assert [run.returncode for run in runs] == [0, 0, 0], said
        assert place.names() == sorted(DAVIS)


@pytest.mark.slow
def test_a_killed_download_continues(place: Place, web: Web) -> None:
    data = make_zip({**DAVIS, "big": bytes(5_000_000)})
    web.files["/d.zip"] = data
    web.slow = True
    run = start(place, f"{web.url}/d.zip")
    while not any(path.stat().st_size > 100_000 for path in place.parts() if path.name == "archive.part"):
        assert run.poll() is None, run.communicate()[0]
        time.sleep(0.01)
    run.send_signal(signal.SIGKILL)
    run.wait()
    assert not place.raw.exists() and place.kept() == []
    web.slow = False
    place.run(f"{web.url}/d.zip")
    check_brought(place, data)
    assert int(web.asked[-1].removeprefix("bytes=").rstrip("-")) > 100_000  # continued, not begun again
    assert place.parts() == []


@pytest.mark.slow
def test_a_full_disk(place: Place, web: Web) -> None:
    """A real file system that is too small; refused where the length is known, an error of the system where not."""
    small = place.root / "store"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small)], capture_output=True).returncode:
        pytest.skip("mounting a tmpfs is not permitted here")
    try:
        web.files["/d.zip"] = make_zip({**DAVIS, "big": bytes(3_000_000)})
        place.refused(f"{web.url}/d.zip", "GB are free")
        web.lengthless = True
        with pytest.raises(OSError) as caught:
            place.run(f"{web.url}/d.zip")
        assert caught.value.errno == errno.ENOSPC
        assert not place.raw.exists() and place.kept() == []
    finally:
        subprocess.run(["umount", str(small)], check=True)
