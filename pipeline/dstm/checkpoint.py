"""A D-STM network from its file."""

from __future__ import annotations

from pathlib import Path

import torch

from pipeline.core.checkpoint import load_checkpoint
from pipeline.core.errors import UserError
from pipeline.dstm.config import from_plain
from pipeline.dstm.network import DSTM

KIND = "dstm"


def load_dstm(path: Path, device: torch.device) -> DSTM:
    """Rebuild the network a checkpoint was saved from.

    Args:
        path: a file of kind `dstm` (written by pretrain, train or pipeline.convert).
        device: where the network goes.

    Returns:
        The network in evaluation mode.

    Raises:
        UserError: missing or damaged file, another kind, or weights that do not fit the stored configuration.
    """
    loaded = load_checkpoint(path, KIND)
    switches, config = from_plain(loaded["config"])
    network = DSTM(switches, config, awaits_weights=True)
    load_weights(network, loaded["state_dict"], path)
    return network.to(device).eval()


def load_weights(network: DSTM, weights: dict[str, torch.Tensor], path: Path) -> None:
    """Load weights strictly.

    Raises:
        UserError: a name or shape differs: the checkpoint is of another architecture.
    """
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()]
        detail = lines[1] if len(lines) > 1 else lines[0]
        raise UserError(
            f"{path} is of another architecture ({detail[:160]}); expected the network of the current model and "
            "network parameters; use the parameters it was trained with, or train again"
        ) from None
