"""Write files and folders atomically: a reader sees either all of them or nothing."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.core.errors import UserError


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path` through a temporary file and `os.replace`; missing parent folders are created."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def check_output_file(path: Path, option: str) -> None:
    """Check, before the work starts, that a file can be written; missing parent folders are created.

    Args:
        path: the file.
        option: its name on the command line or in params.yaml, for the error.

    Raises:
        UserError: it is a folder, or its folder cannot be made or written to.
    """
    if path.is_dir():
        raise UserError(f"{option} {path} is a folder; expected a file to write; add the file's name")
    probe = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(
            f"{option} {path} cannot be written ({error.strerror or error}); expected a path in a folder that can be "
            "written to; choose another"
        ) from None


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 `text` to `path` atomically."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write `value` to `path` as JSON (indent 2, keys in the order given, trailing newline) atomically."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def say_why_empty(folder: Path, reason: str) -> None:
    """Write `EMPTY.txt` into a folder that would be empty; DVC warns of empty outputs at every stage that uses them."""
    write_text(folder / "EMPTY.txt", f"{reason}\n")


@contextmanager
def output_folder(path: Path) -> Iterator[Path]:
    """Build a folder under a temporary name and rename it to `path` when the block ends without an error.

    Args:
        path: of the finished folder; an older one is replaced.

    Yields:
        The temporary folder to write into. On an error it is removed and `path` stays as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for leftover in path.parent.glob(f".{path.name}.[0-9]*.tmp"):
        if not _is_running(leftover.suffixes[-2][1:]):  # otherwise another run is writing into it now
            shutil.rmtree(leftover, ignore_errors=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.mkdir()
    try:
        yield temporary
        _replace_folder(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _is_running(process: str) -> bool:
    """Whether there is a process of that number, other than this one."""
    if not process.isdigit() or int(process) == os.getpid():
        return False
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _replace_folder(temporary: Path, path: Path) -> None:
    """Give a finished folder its name; of several runs that finish at once, one after the other does."""
    for _ in range(100):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        elif path.exists() or path.is_symlink():
            path.unlink(missing_ok=True)
        try:
            temporary.replace(path)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
    raise UserError(f"{path} cannot be replaced, because another run keeps writing it; wait for that run, then rerun")
