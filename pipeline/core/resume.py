"""The state of an unfinished training: two generations of it on the disk, in a folder for each set of settings."""

from __future__ import annotations

import json
import os
import shutil
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from pipeline.core.checkpoint import load_checkpoint, save_checkpoint
from pipeline.core.errors import UserError
from pipeline.core.files import write_json
from pipeline.core.runtime import digest, log

_KEPT_DAYS = 30  # states of other settings are removed if they have not been written for so long
_SETTINGS = "settings.json"
_NAMED = 6  # settings that the log names


def store_state(
    path: Path, kind: str, config: dict[str, Any], state_dict: dict[str, torch.Tensor], **extra: Any
) -> None:
    """Write a state so that a loss of power or a kill at any moment leaves this one or the one before.

    Args:
        path: the file; the state before is kept next to it under the name that `older` gives.
        kind: see `save_checkpoint`.
        config: see `save_checkpoint`.
        state_dict: see `save_checkpoint`.
        extra: see `save_checkpoint`.
    """
    fresh = path.with_name(f".{path.name}.new")
    save_checkpoint(fresh, kind, config, state_dict, **extra)
    _to_disk(fresh)
    if path.exists():
        path.replace(older(path))
    fresh.replace(path)
    _to_disk(path.parent)


def load_state(path: Path, kind: str) -> dict[str, Any] | None:
    """Read the newest complete state; the one before if the newest is damaged. Each damaged file gives a log line.

    Args:
        path: that `store_state` was given.
        kind: see `load_checkpoint`.

    Returns:
        The content of the checkpoint, or None if there is no complete state.
    """
    for candidate in (path, older(path)):
        if candidate.is_file():
            try:
                _check_sums(candidate)
                return load_checkpoint(candidate, kind)
            except UserError as error:
                log(f"a resume state cannot be used: {error}")
    return None


def remove_state(path: Path) -> None:
    """Remove both generations."""
    for file in (path, older(path)):
        file.unlink(missing_ok=True)


def older(path: Path) -> Path:
    """The file of the state before the newest."""
    return path.with_name(f"{path.stem}.older{path.suffix}")


def state_folder(scratch: Path, facts: Mapping[str, Any]) -> Path:
    """The folder for the states of one set of settings and inputs, so that no run resumes another's state.

    Args:
        scratch: folder of the stage.
        facts: everything that the result depends on, as plain values, nested mappings allowed; inputs by digests of
            their content.
    """
    return scratch / digest(facts)


def enter_state_folder(folder: Path, facts: Mapping[str, Any]) -> None:
    """Prepare a folder, once it is locked: say why a training starts afresh, and remove states that are long unused.

    Args:
        folder: that `state_folder` gave.
        facts: that `state_folder` was given; stored, so that a later run can say what has changed.
    """
    _remove_unused(folder)
    present = sorted(folder.glob("*.pt"))
    others = [path for path in folder.parent.glob("*/*.pt") if path.parent != folder]
    if not present and others:
        newest = max(others, key=lambda path: path.stat().st_mtime)
        log(
            f"starting afresh: {newest} is the state of a run with other settings or inputs ({_changes(newest, facts)})"
        )
    write_json(folder / _SETTINGS, dict(facts))


def _changes(state: Path, facts: Mapping[str, Any]) -> str:
    """Names of the settings in which a state differs."""
    try:
        before = _flat(json.loads((state.parent / _SETTINGS).read_text()))
    except (OSError, ValueError):
        return "which ones was not recorded"
    now = _flat(json.loads(json.dumps(dict(facts), default=str)))
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted names and values of a nested mapping."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def _remove_unused(folder: Path) -> None:
    oldest = time.time() - 86400 * _KEPT_DAYS
    for other in folder.parent.iterdir():
        if other == folder or not (other / _SETTINGS).is_file():
            continue
        if all(path.stat().st_mtime < oldest for path in other.iterdir()):
            log(f"removing {other}: the state of an unfinished run, unused for {_KEPT_DAYS} days")
            shutil.rmtree(other, ignore_errors=True)


def _check_sums(path: Path) -> None:
    """Compare a state with the check sums in it, which torch does not.

    Raises:
        UserError: it is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, ValueError) as error:
        damaged = str(error) or type(error).__name__
    if damaged is not None:
        raise UserError(f"{path} is damaged ({damaged}); expected a complete state; the one before it is used")


def _to_disk(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
