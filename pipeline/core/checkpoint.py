"""Checkpoints: a dictionary of plain values and tensors with its kind, written completely or not at all."""

from __future__ import annotations

import io
import pickle
import re
import warnings
from pathlib import Path
from typing import Any

import torch

from pipeline.core.errors import UserError
from pipeline.core.files import write_bytes


def save_checkpoint(
    path: Path, kind: str, config: dict[str, Any], state_dict: dict[str, torch.Tensor], **extra: Any
) -> None:
    """Write a checkpoint atomically.

    Args:
        path: the file.
        kind: what it is (`dstm`, `hourglass`, `dstm-training`); checked on loading.
        config: the network's configuration as plain values, enough to rebuild it.
        state_dict: its weights; stored on the CPU.
        extra: optimizer, position, random states and so on.
    """
    weights = {name: tensor.detach().cpu() for name, tensor in state_dict.items()}
    buffer = io.BytesIO()
    torch.save({"kind": kind, "config": config, "state_dict": weights, **extra}, buffer)
    write_bytes(path, buffer.getvalue())


def load_checkpoint(path: Path, kind: str) -> dict[str, Any]:
    """Read a checkpoint to the CPU; only tensors and plain values are unpickled.

    Raises:
        UserError: the file is missing, damaged, of another kind, or has no configuration or weights.
    """
    loaded = read_torch(path, f"a checkpoint of kind {kind}", "give another file, or run the stage that makes it")
    if not isinstance(loaded, dict) or loaded.get("kind") != kind:
        found = loaded.get("kind") if isinstance(loaded, dict) else type(loaded).__name__
        raise UserError(
            f"{path} is of kind {found}; expected {kind}; give another file (pipeline.convert converts published ones)"
        )
    config, weights = loaded.get("config"), loaded.get("state_dict")
    if not isinstance(config, dict) or not isinstance(weights, dict) or not _all_tensors(weights):
        raise UserError(f"{path} lacks a config and a state_dict of tensors; expected both; give another file")
    return loaded


def _all_tensors(weights: dict[Any, Any]) -> bool:
    return all(isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in weights.items())


def read_torch(path: Path, expected: str, remedy: str) -> Any:
    """Read any file that `torch.save` wrote to the CPU; only tensors and plain values are unpickled.

    Args:
        path: the file.
        expected: what it should be, for the error.
        remedy: what to do about it, for the error.

    Raises:
        UserError: missing, of another format, or damaged.
    """
    if not path.is_file():
        raise UserError(f"{path} {'is a folder' if path.is_dir() else 'does not exist'}; expected {expected}; {remedy}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # torch warns about pickles, and then refuses them
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # with damaged or foreign bytes the unpickler can raise anything
        raise UserError(f"{path} {_what_it_is(path, error)}; expected {expected}; {remedy}") from None


def _what_it_is(path: Path, error: Exception) -> str:
    """Say what a file is that torch cannot read; torch's own messages are long and about torch."""
    if isinstance(error, PermissionError):
        return "cannot be read (no permission)"
    with open(path, "rb") as file:
        head = file.read(4096)
    start = head.lstrip().lower()
    if not head:
        return "is empty"
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "is a web page, not weights (a download that needs a login or another link?)"
    if start.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, not the file itself"
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size:
        return "is a safetensors file"
    if all(byte >= 0x20 or byte in b"\t\n\r" for byte in head):
        return "is a text file, not weights"
    if isinstance(error, pickle.UnpicklingError) and (found := re.search(r"GLOBAL ([\w.]+)", str(error))):
        return f"holds Python objects ({found[1]}), not only tensors and plain values"
    return "is damaged, or was not written by torch.save"
