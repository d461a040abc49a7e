"""Downloads that can be interrupted and resumed, with retries and checksums."""

from __future__ import annotations

import errno
import http.client
import json
import re
import shutil
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from pipeline.core.errors import UserError
from pipeline.core.files import write_json
from pipeline.core.runtime import digest, log, progress
from pipeline.sources.checksums import BLOCK, Digest, Ledger, blocks
from pipeline.sources.fsspec_files import fetch_part
from pipeline.sources.store import one_at_a_time

TIMEOUT_S = 60.0  # without receiving a byte
PAUSES_S = (1.0, 5.0, 15.0)  # before each further attempt after one without progress; after the last the download fails
_BROKEN = (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError, ssl.SSLError, EOFError)
_NETWORK = (
    errno.ENETDOWN, errno.ENETUNREACH, errno.ENETRESET, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENOBUFS,
    errno.ENOTCONN, errno.EPROTO, errno.EADDRNOTAVAIL,
)  # fmt: skip
_SAFE = ":/?#[]@!$&'()*+,;=%~"  # characters that are not escaped in URLs
_TEMPORARY = (408, 429, 500, 502, 503, 504)  # responses after which it makes sense to try again


@dataclass(frozen=True)
class _Remote:
    """What the server says about the file: enough to decide whether a partial download still belongs to it."""

    n_bytes: int | None
    validator: str | None  # ETag or Last-Modified, usable in If-Range


@dataclass(frozen=True)
class Fetched:
    """A complete download in the scratch folder.

    Attributes:
        path: the file; the caller moves it away.
        sha256: its hexadecimal sha256.
        known: whether it was compared with a published or recorded checksum; if not, record it once the file has been
            checked.
    """

    path: Path
    sha256: str
    known: bool


def require_space(folder: Path, n_bytes: int, what: str) -> None:
    """Refuse to start if the disk has too little space.

    Raises:
        UserError: less than `n_bytes` are free on the disk of `folder`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < n_bytes:
        raise UserError(
            f"{what} needs {n_bytes / 1e9:.2f} GB at {folder}; only {free / 1e9:.2f} GB are free; free some space"
        )


def fetch(url: str, scratch: Path, ledger: Ledger, n_bytes: int | None = None, checksum: str | None = None) -> Fetched:
    """Download a URL, continuing an earlier partial download, and verify it.

    Args:
        url: http, https, or of a kind that fsspec opens.
        scratch: folder for downloads; the file gets its own folder, named by a digest of the URL.
        ledger: recorded checksums, used if none is published.
        n_bytes: published length, if known.
        checksum: published checksum (`sha256:...` or `md5:...`), if known.

    Raises:
        UserError: the server refuses, the connection fails repeatedly, the disk is too small, or the file is not the
            expected one (it is then removed).
    """
    folder = scratch / digest({"url": url})
    with one_at_a_time(folder, url):
        if is_web(url):
            _Download(url, folder, n_bytes, checked=checksum is not None).run()
        elif not (folder / "archive").exists():
            part = folder / "archive.part"
            fetch_part(url, part, folder / "state.json", PAUSES_S, lambda n: require_space(folder, n, url))
            part.rename(folder / "archive")
        return _verify(url, folder / "archive", ledger, checksum)


def is_web(url: str) -> bool:
    """Whether a URL is http or https, which need no further package."""
    return url.lower().startswith(("http://", "https://"))


def forget(fetched: Path) -> None:
    """Remove the scratch folder of a download that has been moved to its place."""
    shutil.rmtree(fetched.parent, ignore_errors=True)


def _verify(url: str, path: Path, ledger: Ledger, checksum: str | None) -> Fetched:
    source = "published; download it again or use another source"
    if checksum is None:
        checksum = ledger.get(url)
        source = f"recorded at its first download in {ledger.path}; delete that line if the file was meant to change"
    hashed = Digest(checksum)
    total = -(-path.stat().st_size // BLOCK)
    for block in progress(blocks(path), total, f"checksum of {Path(url).name} (MiB)"):
        hashed.update(block)
    try:
        hashed.check(url, source)
    except UserError:
        forget(path)
        raise
    return Fetched(path, hashed.sha256, known=checksum is not None)


class _Download:
    """One download in progress: `archive.part` and what the server said about it; `archive` once complete."""

    def __init__(self, url: str, folder: Path, n_bytes: int | None, checked: bool) -> None:
        self.url = url
        self.checked = checked
        self.folder = folder
        self.expected = n_bytes
        self.part = folder / "archive.part"
        self.state = folder / "state.json"

    def run(self) -> None:
        """Transfer until the file is complete; give up after several attempts in a row without progress."""
        whole = self.folder / "archive"
        best, failures = self._have(), 0
        while not whole.exists():
            try:
                reason = self._attempt()
            except _BROKEN as error:
                reason = self._explain(error)
            except OSError as error:
                if error.errno not in _NETWORK or error.filename:
                    raise  # of this machine's disk
                reason = self._explain(error)
            if reason is None:
                self.part.rename(whole)
                return
            if self._have() > best:
                best, failures = self._have(), 0
            if failures == len(PAUSES_S):
                raise UserError(
                    f"{self.url}: {reason} after {self._have()} bytes; expected the whole file; "
                    "check the connection and rerun to continue from there"
                )
            log(f"{self.url}: {reason} after {self._have()} bytes; next attempt in {PAUSES_S[failures]:.0f} s")
            time.sleep(PAUSES_S[failures])
            failures += 1

    def _have(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _explain(self, error: Exception) -> str:
        """Describe an error that may be temporary; raise one that is not."""
        if isinstance(error, urllib.error.HTTPError) and error.code not in _TEMPORARY:
            raise UserError(
                f"{self.url}: the server answers {error.code} {error.reason}; expected the file; correct it or point "
                "the parameter at a copy"
            ) from None
        if isinstance(error, http.client.InvalidURL):
            raise UserError(
                f"{self.url} is not a valid URL ({error}); expected http(s)://host/path; correct it"
            ) from None
        return str(getattr(error, "reason", None) or error or type(error).__name__)

    def _attempt(self) -> str | None:
        """Request the missing bytes and append them; None if the file is complete, otherwise what went wrong."""
        known = self._known()
        start = self._have() if known else 0
        if known and start and start == known.n_bytes:
            return None  # an earlier run was stopped after the last byte but before the renaming
        headers = {"User-Agent": "d-stm-pipeline", "Accept-Encoding": "identity"}
        if known and start:
            headers["Range"] = f"bytes={start}-"
            if known.validator:
                headers["If-Range"] = known.validator
        try:
            address = urllib.parse.quote(self.url, safe=_SAFE)
            response = urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=TIMEOUT_S)
        except urllib.error.HTTPError as error:
            if error.code != 416:
                raise
            if _total(error.headers) == start:
                return None
            self.state.unlink(missing_ok=True)
            return "the server's file is shorter than the part already here"
        with response:
            return self._receive(response, start, known)

    def _receive(self, response: Any, start: int, known: _Remote | None) -> str | None:
        resumed = response.status == 206
        total = _total(response.headers) if resumed else _length(response.headers)
        if resumed and (known is None or total != known.n_bytes or _first(response.headers) != start):
            self.state.unlink(missing_ok=True)
            return "the file changed on the server"
        if self.expected is not None and total is not None and total != self.expected:
            raise UserError(
                f"{self.url} is {total} bytes long; expected the published {self.expected}; download it elsewhere or "
                "point the parameter at a copy"
            )
        start = start if resumed else 0
        if total is not None:
            require_space(self.folder, total - start, self.url)
        with open(self.part, "r+b" if resumed else "wb") as file:
            if not resumed:  # after truncating, so that old bytes are never mistaken for the new file's
                write_json(self.state, {"url": self.url, **asdict(_Remote(total, _validator(response.headers)))})
            file.seek(start)
            if start:
                log(f"{self.url}: continuing at {start} of {total} bytes")
            left = None if total is None else -(-(total - start) // BLOCK)
            for block in progress(_received(response), left, f"download of {Path(self.url).name} (MiB)"):
                file.write(block)
        wanted = total or self.expected
        if wanted is not None and self._have() != wanted:
            return f"the connection ended early ({wanted} bytes expected)"
        return None

    def _known(self) -> _Remote | None:
        """What the server said about the part on disk, if it can be continued without mixing two versions of a file."""
        if not self.state.exists():
            return None
        saved = json.loads(self.state.read_text())
        remote = _Remote(saved["n_bytes"], saved["validator"])
        return remote if remote.n_bytes is not None and (remote.validator or self.checked) else None


def _received(response: IO[bytes]) -> Iterator[bytes]:
    while block := response.read(BLOCK):
        yield block


def _length(headers: Any) -> int | None:
    text = headers.get("Content-Length")
    return int(text) if text and text.isdigit() else None


def _total(headers: Any) -> int | None:
    found = re.search(r"/(\d+)$", headers.get("Content-Range", ""))
    return int(found[1]) if found else None


def _first(headers: Any) -> int | None:
    found = re.match(r"bytes (\d+)-", headers.get("Content-Range", ""))
    return int(found[1]) if found else None


def _validator(headers: Any) -> str | None:
    tag = headers.get("ETag")
    if tag and not tag.startswith("W/"):  # If-Range needs a strong validator
        return str(tag)
    return headers.get("Last-Modified")
