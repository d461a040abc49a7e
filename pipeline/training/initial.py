"""Initial weights from a checkpoint that somebody has: an earlier stage's, a converted one, or a resume state."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import torch

from pipeline.core.checkpoint import read_torch
from pipeline.core.errors import UserError
from pipeline.core.runtime import log
from pipeline.dstm.checkpoint import KIND
from pipeline.dstm.network import DSTM
from pipeline.dstm.safetensors_file import SUFFIX, read_safetensors
from pipeline.training.state import STATE_KIND

NO_FILE = "none"
"""The value of `init_from` that names no file."""


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """The weights of a D-STM file.

    Args:
        path: a checkpoint of kind `dstm` (pretrain, train, `pipeline.convert stm`), a `.safetensors` file
            (`pipeline.convert ship`), or the resume state of a training, of which the averaged weights are taken if
            there are any.

    Raises:
        UserError: the file is missing, damaged or of another kind.
    """
    remedy = "correct init_from in params.yaml"
    if path.suffix == SUFFIX:
        return read_safetensors(path)[1]
    loaded = read_torch(path, "weights to start from (init_from)", remedy)
    kind = loaded.get("kind") if isinstance(loaded, dict) else type(loaded).__name__
    if kind not in (KIND, STATE_KIND):
        raise UserError(
            f"{path} is of kind {kind}; expected {KIND} or {STATE_KIND}; convert published weights with "
            "pipeline.convert, or correct init_from in params.yaml"
        )
    average = loaded.get("average") or {}
    kept = {name.removeprefix("module."): value for name, value in average.items() if name.startswith("module.")}
    weights: dict[str, torch.Tensor] = kept or loaded["state_dict"]
    return weights


def fill(network: DSTM, weights: dict[str, torch.Tensor], path: Path) -> None:
    """Give a network every weight that it has under the same name and in the same shape; the log lists all others.

    Args:
        network: filled in place.
        weights: that `read_weights` gave.
        path: their file, for messages.

    Raises:
        UserError: no weight of the query encoder fits, so the file is of another backbone.
    """
    own = network.state_dict()
    taken = {name: value for name, value in weights.items() if name in own and value.shape == own[name].shape}
    if not any(name.startswith("query_encoder.") for name in taken):
        raise UserError(
            f"{path} has no weight that fits the query encoder; expected those of a "
            f"{network.config.backbone(network.switches)}; name another init_from, or set network and model to those "
            "of the file"
        )
    network.load_state_dict({**own, **taken})
    log(f"{path}: {len(taken)} of {len(weights)} tensors taken as initial weights")
    for text, names in (
        ("not taken from it", weights.keys() - taken.keys()),
        ("not in it, so with their own initial weights", own.keys() - taken.keys()),
    ):
        if names:
            log(f"{text}: {_grouped(names)}")


def covers_encoders(network: DSTM, weights: dict[str, torch.Tensor]) -> bool:
    """Whether all weights of both backbones are among these, so that no ImageNet weights are needed."""
    own = {name: value for name, value in network.state_dict().items() if "_encoder.backbone." in name}
    return all(name in weights and weights[name].shape == value.shape for name, value in own.items())


def _grouped(names: Iterable[str]) -> str:
    """Names by their first two parts, with numbers of tensors."""
    counts = Counter(".".join(name.split(".")[:2]) for name in sorted(names))
    return ", ".join(f"{name} ({count})" for name, count in counts.items())
