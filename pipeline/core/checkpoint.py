"""Checkpoints: a dictionary of plain values and tensors with its kind, written whole or not at all."""

from __future__ import annotations

import io
import pickle
import zipfile
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
        extra: optimizer, position, random states and the like.
    """
    weights = {name: tensor.detach().cpu() for name, tensor in state_dict.items()}
    buffer = io.BytesIO()
    torch.save({"kind": kind, "config": config, "state_dict": weights, **extra}, buffer)
    write_bytes(path, buffer.getvalue())


def load_checkpoint(path: Path, kind: str) -> dict[str, Any]:
    """Read a checkpoint to the CPU; only tensors and plain values are unpickled.

    Raises:
        UserError: missing, damaged, or of another kind.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist; expected a checkpoint of kind {kind}; run the stage that makes it")
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, zipfile.BadZipFile, OSError, ValueError) as error:
        line = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise UserError(
            f"{path} cannot be read ({line}); expected a checkpoint of kind {kind}; make it again"
        ) from None
    if not isinstance(loaded, dict) or loaded.get("kind") != kind:
        found = loaded.get("kind") if isinstance(loaded, dict) else type(loaded).__name__
        raise UserError(
            f"{path} is of kind {found}; expected {kind}; give another file (pipeline.convert reads foreign ones)"
        )
    return loaded
