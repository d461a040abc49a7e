"""Load a D-STM network from its file."""

from __future__ import annotations

from pathlib import Path

import torch

from pipeline.core.checkpoint import load_checkpoint
from pipeline.core.errors import UserError
from pipeline.dstm.config import from_plain
from pipeline.dstm.network import DSTM
from pipeline.dstm.safetensors_file import SUFFIX, read_safetensors

KIND = "dstm"


def load_dstm(path: Path, device: torch.device) -> DSTM:
    """Rebuild the network of a checkpoint.

    Args:
        path: a checkpoint of kind `dstm` (written by pretrain, train or pipeline.convert), or a `.safetensors` file
            (written by pipeline.convert ship).
        device: of the network.

    Returns:
        The network in evaluation mode.

    Raises:
        UserError: the file is missing, damaged or of another kind, or its weights do not fit its configuration.
    """
    if path.suffix == SUFFIX:
        plain, weights = read_safetensors(path)
    else:
        loaded = load_checkpoint(path, KIND)
        plain, weights = loaded["config"], loaded["state_dict"]
    switches, config = from_plain(plain)
    network = DSTM(switches, config, awaits_weights=True)
    load_weights(network, weights, path)
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
            f"{path} has another architecture ({detail[:160]}); expected the network of the current model and "
            "network parameters; use the parameters it was trained with, or train again"
        ) from None
