"""Depth networks to and from files: ours, and the published one."""

from __future__ import annotations

import pickle
from dataclasses import asdict
from pathlib import Path
from zipfile import BadZipFile

import torch

from pipeline.core.checkpoint import load_checkpoint, save_checkpoint
from pipeline.core.errors import UserError
from pipeline.core.params import build
from pipeline.hourglass.config import HourglassConfig
from pipeline.hourglass.network import Hourglass

KIND = "hourglass"

PUBLISHED = HourglassConfig(width=1.0, stem_stride=1, input_height=288, input_width=512)
"""The network of the MannequinChallenge release and the size of its frames."""


def save_hourglass(path: Path, model: Hourglass) -> None:
    """Write configuration and weights atomically."""
    save_checkpoint(path, KIND, asdict(model.config), model.state_dict())


def load_hourglass(path: Path) -> Hourglass:
    """Rebuild a network on the CPU, in evaluation mode.

    Raises:
        UserError: Missing, damaged, of another kind, or weights that do not fit the stored configuration.
    """
    saved = load_checkpoint(path, KIND)
    model = Hourglass(build(HourglassConfig, saved["config"], f"{path}: config"))
    return _fill(model, saved["state_dict"], path)


def read_published(path: Path) -> Hourglass:
    """The network of a MannequinChallenge checkpoint (single view, RGB only).

    Raises:
        UserError: Missing, damaged, or not the state dict of that network (the two-view ones have another input).
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist; expected a MannequinChallenge checkpoint; correct the path")
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, BadZipFile, ValueError) as error:
        line = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise UserError(f"{path} cannot be read ({line}); expected a MannequinChallenge checkpoint") from None
    if not isinstance(weights, dict) or not all(isinstance(v, torch.Tensor) for v in weights.values()):
        raise UserError(f"{path} is no plain state dict; expected a MannequinChallenge checkpoint (*_net_G.pth)")
    # saved from within DataParallel or not
    return _fill(Hourglass(PUBLISHED), {name.removeprefix("module."): value for name, value in weights.items()}, path)


def read_any(path: Path) -> Hourglass:
    """The network of a checkpoint of ours or of a published one.

    Raises:
        UserError: It is neither.
    """
    try:
        return load_hourglass(path)
    except UserError as ours:
        try:
            return read_published(path)
        except UserError as theirs:
            both = f"{theirs}, or one written by train_depth, which it is not either: {ours}"
            raise UserError(both if path.is_file() else str(theirs)) from None


def _fill(model: Hourglass, weights: dict[str, torch.Tensor], path: Path) -> Hourglass:
    try:
        model.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:]] or [str(error)]
        raise UserError(
            f"{path} holds another network ({lines[0][:160]}); expected a hourglass of width {model.config.width}, "
            "single view; give the fitting checkpoint"
        ) from None
    return model.eval()
