"""A D-STM network as a small file of half-precision tensors with its configuration: the form in which weights ship."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from pipeline.core.errors import UserError
from pipeline.core.files import write_bytes
from pipeline.dstm.config import to_plain
from pipeline.dstm.network import DSTM

SUFFIX = ".safetensors"
_KEY = "dstm"  # of the only entry of the metadata: with several, their order in the file would change


def save_safetensors(path: Path, network: DSTM) -> None:
    """Write a network; equal networks give equal bytes.

    Convolution kernels become float16. Planes of one dimension (biases, statistics of normalisation), which are small
    and whose rounding would shift whole channels, stay float32.

    Args:
        path: the file to write.
        network: any D-STM.

    Raises:
        UserError: a weight is too large for float16.
    """
    tensors = {name: _halved(name, value) for name, value in network.state_dict().items()}
    metadata = {_KEY: json.dumps(to_plain(network.switches, network.config), sort_keys=True)}
    write_bytes(path, safetensors.torch.save(tensors, metadata=metadata))


def read_safetensors(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read what `save_safetensors` wrote.

    Args:
        path: the file.

    Returns:
        The configuration as plain values, and the weights as float32 on the CPU.

    Raises:
        UserError: missing, damaged, or without the configuration of a D-STM.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist; expected the weights of a D-STM; correct the path")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in list(file.keys())}
        config = json.loads(metadata[_KEY])
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        detail = f"no metadata {error}" if isinstance(error, KeyError) else str(error).splitlines()[0][:120]
        raise UserError(
            f"{path} cannot be read ({detail}); expected weights written by pipeline.convert ship; give another file"
        ) from None
    return config, {name: value.float() if value.is_floating_point() else value for name, value in weights.items()}


def _halved(name: str, value: Tensor) -> Tensor:
    value = value.detach().cpu().contiguous()
    if value.ndim < 2 or not value.is_floating_point():
        return value
    half = value.half()
    if not torch.isfinite(half).all():
        raise UserError(
            f"the weight {name} reaches {float(value.abs().max()):.3g}; expected at most 65504, the largest float16; "
            "this network cannot be stored so, use its checkpoint"
        )
    return half
