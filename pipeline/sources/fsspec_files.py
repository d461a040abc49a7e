"""Downloads from anything that the package fsspec opens: `s3://`, `gs://`, `az://`, `hdfs://`, `sftp://`, ..."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.core.errors import UserError
from pipeline.core.files import write_json
from pipeline.core.runtime import log, progress
from pipeline.sources.checksums import BLOCK

_CHANGING = ("ETag", "etag", "generation", "md5Hash", "mtime", "LastModified", "last_modified", "modificationTime")


def open_filesystem(url: str) -> tuple[Any, str]:
    """The file system of a URL, and the file's path in it.

    Raises:
        UserError: fsspec, or the package that it needs for this kind of URL, is not installed; or no such kind.
    """
    kind = url.partition("://")[0]
    try:
        import fsspec  # here: only these sources need it

        found: tuple[Any, str] = fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise UserError(
            f"{url} needs a package that is not installed ({error}); expected one that opens {kind}://; install it "
            "with `.venv/bin/pip`, or copy the file and give its path"
        ) from None
    except ValueError:
        raise UserError(
            f"{url} is a URL of kind {kind}; expected http, https, file, a kind that fsspec knows (s3, gs, ...), or a "
            "path; correct it"
        ) from None
    return found


def fetch_part(url: str, part: Path, state: Path, pauses: tuple[float, ...], space: Callable[[int], None]) -> None:
    """Bring a file, continuing an earlier part of it; several attempts after errors of the connection.

    Args:
        url: the file.
        part: where its bytes are collected.
        state: what was known of the file when the part was begun.
        pauses: seconds before each further attempt after one without progress.
        space: refuses if the disk has too little space for so many bytes.

    Raises:
        UserError: no such file, no access, or no progress in several attempts.
    """
    filesystem, path = open_filesystem(url)
    failures, best = 0, _length(part)
    while True:
        try:
            about = _about(filesystem, path)
            if not state.exists() or json.loads(state.read_text()) != about:
                part.unlink(missing_ok=True)
                write_json(state, about)
            space(about["n_bytes"] - _length(part))
            _copy(filesystem, path, part, about["n_bytes"], url)
            return
        except (FileNotFoundError, PermissionError) as error:
            raise UserError(
                f"{url}: {error or type(error).__name__}; expected a file that may be read; correct the URL or set up "
                "access"
            ) from None
        except Exception as error:  # each file system has errors of its own
            if isinstance(error, UserError) or getattr(error, "errno", None) in (28, 122):  # the disk here is full
                raise
            failures, best = (0, _length(part)) if _length(part) > best else (failures, best)
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            if failures == len(pauses):
                raise UserError(
                    f"{url}: {reason} after {_length(part)} bytes; expected the whole file; check the connection and "
                    "access and rerun to continue from there"
                ) from None
            log(f"{url}: {reason} after {_length(part)} bytes; next attempt in {pauses[failures]:.0f} s")
            time.sleep(pauses[failures])
            failures += 1


def _about(filesystem: Any, path: str) -> dict[str, Any]:
    filesystem.invalidate_cache()
    found = filesystem.info(path)
    return {"n_bytes": int(found["size"]), **{key: str(found[key]) for key in _CHANGING if key in found}}


def _copy(filesystem: Any, path: str, part: Path, n_bytes: int, url: str) -> None:
    start = _length(part)
    with filesystem.open(path, "rb", block_size=8 * BLOCK) as remote, open(part, "ab") as file:
        remote.seek(start)
        content = iter(lambda: remote.read(8 * BLOCK), b"")
        for block in progress(content, -(-(n_bytes - start) // (8 * BLOCK)), f"download of {Path(url).name} (8 MiB)"):
            file.write(block)
    if _length(part) != n_bytes:
        raise ConnectionError(f"the transfer ended early ({n_bytes} bytes expected)")


def _length(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0
