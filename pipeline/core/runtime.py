"""Seeds, devices, log messages, locks, and the wrapper that runs every command."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import random
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tqdm import tqdm

from pipeline.core.errors import UserError
from pipeline.core.usage import record_usage

if TYPE_CHECKING:
    import torch

T = TypeVar("T")

_LOCK_TRIES, _LOCK_PAUSE = 8, 0.25  # seconds between tries


def log(message: str) -> None:
    """Print one line and flush it, so that it shows immediately, also through a pipe."""
    sys.stdout.write(message + "\n")
    sys.stdout.flush()


def progress(iterable: Iterable[T], total: int | None, desc: str, every_s: float = 10.0) -> Iterator[T]:
    """Show progress: a bar on a terminal, otherwise a line about every `every_s` seconds and one at the end.

    Args:
        iterable: the items.
        total: its length if known.
        desc: what is being done.
        every_s: seconds between lines if the output is not a terminal.
    """
    if sys.stderr.isatty():
        yield from tqdm(iterable, total=total, desc=desc, dynamic_ncols=True)
        return
    start = last = time.monotonic()
    done = 0
    for item in iterable:
        yield item
        done += 1
        now = time.monotonic()
        if now - last >= every_s:
            last = now
            rate = done / max(now - start, 1e-9)
            left = f", {(total - done) / rate:.0f} s left" if total else ""
            log(f"{desc}: {done}{f'/{total}' if total else ''} ({rate:.1f}/s{left})")
    log(f"{desc}: {done} done in {time.monotonic() - start:.1f} s")


def check_device(name: str) -> None:
    """Check, without torch, that `pick_device` knows a name.

    Raises:
        UserError: it does not.
    """
    if name == "mps":
        raise UserError(
            "runtime.device is mps; Apple GPUs are not supported (nothing here has been tested on one); set it to auto "
            "or cpu"
        )
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", name):
        raise UserError(f"runtime.device is {name!r}; expected auto, cpu, cuda or cuda:N; correct it in params.yaml")


def available_cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def pick_device(name: str) -> torch.device:
    """The torch device for `auto`, `cpu`, `cuda` or `cuda:N`.

    `auto` is CUDA if there is such a device, otherwise the CPU, also on a Mac with a GPU. Under torchrun `auto` and
    `cuda` mean this process' own GPU (`LOCAL_RANK`).

    Raises:
        UserError: the name is unknown, or CUDA is requested but not available.
    """
    import torch

    check_device(name)
    available = torch.cuda.is_available()
    if name == "auto":
        name = "cuda" if available else "cpu"
    if name.startswith("cuda") and not available:
        raise UserError(f"runtime.device is {name} but torch finds no CUDA device; set it to auto or cpu")
    if name == "cuda":
        name = f"cuda:{int(os.environ.get('LOCAL_RANK', '0'))}"
    if name.startswith("cuda:") and name[5:].isdigit() and int(name[5:]) >= torch.cuda.device_count():
        raise UserError(
            f"{name} is asked for, but torch finds {torch.cuda.device_count()} CUDA devices; lower runtime.processes "
            "or correct runtime.device"
        )
    return torch.device(name)


def seed_everything(seed: int) -> None:
    """Seed Python and torch (all devices), for initial weights; data is drawn from generators that are passed."""
    import torch

    random.seed(seed)
    torch.manual_seed(seed)


def digest(value: Any) -> str:
    """Short hexadecimal digest of the canonical JSON of `value` (dataclasses through `asdict` first)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def file_digest(path: Path) -> str:
    """Short hexadecimal sha256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def fingerprint(folder: Path) -> str:
    """Digest of a folder's files: names, lengths and both ends (where a zip has its checksums); fast for 100 GB."""
    ends = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        length = path.stat().st_size
        with open(path, "rb") as file:
            head = file.read(1 << 20)
            file.seek(max(0, length - (1 << 20)))
            tail = file.read(1 << 20)
        content = hashlib.sha256(head + tail).hexdigest()
        ends.append((path.relative_to(folder).as_posix(), length, content))
    return digest(ends)


def fingerprints(folders: Iterable[Path]) -> dict[str, str]:
    """The fingerprint of each folder under its last two names (`raw/davis`)."""
    return {"/".join(folder.parts[-2:]): fingerprint(folder) for folder in folders}


@contextmanager
def scratch_lock(folder: Path) -> Iterator[None]:
    """Lock a folder for this process: if DVC was killed, its orphaned stage must not collide with the next run.

    Raises:
        UserError: another process holds it, also a few seconds later: a killed run needs a moment to disappear.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "a") as handle:
        for left in reversed(range(_LOCK_TRIES)):
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not left:
                    raise UserError(
                        f"{folder} is locked by another run of this stage; wait for that run or stop it, then rerun"
                    ) from None
                time.sleep(_LOCK_PAUSE)
        yield


def _complain(message: str) -> None:
    sys.stderr.write(message + "\n")
    sys.stderr.flush()


def report_error(error: BaseException) -> int | None:
    """Print an error that a user can fix as one line on stderr.

    Args:
        error: that ends the command.

    Returns:
        The exit code; None if the error is a fault of the program, of which nothing is printed.
    """
    if isinstance(error, UserError):
        _complain(f"error: {error}")
        return 1
    if isinstance(error, KeyboardInterrupt):
        _complain("interrupted; run the same command again to continue")
        return 130
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        place = f" ({error.filename})" if error.filename else ""
        _complain(f"error: no space left on the device{place}; free some space and rerun")
        return 1
    if isinstance(error, OSError) and error.filename:
        _complain(
            f"error: {error.filename}: {error.strerror}; expected a file or folder that this command can use; "
            "check the path, or run the stage that makes it"
        )
        return 1
    return None


def run_main(main: Callable[[], None]) -> int:
    """Run a command and print errors that a user can fix as one line on stderr.

    If DVC runs it as a stage, its time and memory are recorded (`core/usage.py`).

    Returns:
        The exit code: 0, 1 after a UserError, a full disk or a file that cannot be used, 130 after Ctrl-C.
    """
    start = time.monotonic()
    try:
        main()
        record_usage(time.monotonic() - start)
    except (UserError, KeyboardInterrupt, OSError) as error:
        code = report_error(error)
        if code is None:
            raise
        return code
    return 0
