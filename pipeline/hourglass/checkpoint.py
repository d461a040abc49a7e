"""Read and write depth networks: our checkpoints, and the published one."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from pipeline.core.checkpoint import load_checkpoint, read_torch, save_checkpoint
from pipeline.core.errors import UserError
from pipeline.core.params import build
from pipeline.hourglass.config import HourglassConfig
from pipeline.hourglass.network import Hourglass

KIND = "hourglass"

PUBLISHED = HourglassConfig(width=1.0, stem_stride=1, input_height=288, input_width=512)
"""The network of the MannequinChallenge release and the size of its frames."""

_THEIRS = "MannequinChallenge checkpoint (*_net_G.pth)"
_REMEDY = "correct the path, or download it again"


def save_hourglass(path: Path, model: Hourglass) -> None:
    """Write configuration and weights atomically."""
    save_checkpoint(path, KIND, asdict(model.config), model.state_dict())


def load_hourglass(path: Path) -> Hourglass:
    """Rebuild a network on the CPU, in evaluation mode.

    Raises:
        UserError: The file is missing, damaged or of another kind, or its weights do not fit its configuration.
    """
    saved = load_checkpoint(path, KIND)
    model = Hourglass(build(HourglassConfig, saved["config"], f"{path}: config"))
    return _fill(model, saved["state_dict"], path)


def read_published(path: Path) -> Hourglass:
    """The network of a MannequinChallenge checkpoint (single view, RGB only).

    Raises:
        UserError: The file is missing, damaged, or not the state dict of that network (the two-view ones have another
            input).
    """
    return _from_published(read_torch(path, f"a {_THEIRS}", _REMEDY), path)


def read_any(path: Path) -> Hourglass:
    """The network of one of our checkpoints, or of a published one.

    Raises:
        UserError: It is neither.
    """
    loaded = read_torch(path, f"a {_THEIRS}, or a checkpoint that train_depth wrote", _REMEDY)
    if isinstance(loaded, dict) and "kind" in loaded:
        return load_hourglass(path)
    return _from_published(loaded, path)


def _from_published(weights: Any, path: Path) -> Hourglass:
    if not isinstance(weights, dict) or not all(isinstance(v, torch.Tensor) for v in weights.values()):
        raise UserError(f"{path} is not a plain state dict; expected a {_THEIRS}; give another file")
    # saved from DataParallel or not
    return _fill(Hourglass(PUBLISHED), {name.removeprefix("module."): value for name, value in weights.items()}, path)


def _fill(model: Hourglass, weights: dict[str, torch.Tensor], path: Path) -> Hourglass:
    try:
        model.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:]] or [str(error)]
        raise UserError(
            f"{path} has another network ({lines[0][:160]}); expected a hourglass of width {model.config.width}, "
            "single view; give a matching checkpoint"
        ) from None
    return model.eval()
