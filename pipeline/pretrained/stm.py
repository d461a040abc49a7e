"""STM as released by its author (Oh et al., ICCV 2019): its weights with the names of our network."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from pipeline.core.checkpoint import read_torch
from pipeline.core.errors import UserError
from pipeline.dstm.config import NetworkConfig, Switches
from pipeline.dstm.network import DSTM

SWITCHES = Switches(resnest=False, depth=False, aspp=False, depth_input="estimated")
"""STM is the first row of Table 2: none of the columns."""

NETWORK = NetworkConfig(
    resnest_backbone="resnest50d",  # not built
    resnet_backbone="resnet50",
    width=1.0,
    pretrained=False,  # all weights come from the file
    norm="frozen",
    stride=16,
    key_channels=128,
    value_channels=512,
    decoder_channels=256,
    scale_keys=True,
    value_mask=False,
    shared_start=False,
    key_std=0.0,
    aspp_dilations=(2, 4, 8),  # not built
)
"""The released model's sizes."""

_BACKBONE = {"conv1": "conv1", "bn1": "bn1", "res2": "layer1", "res3": "layer2", "res4": "layer3"}
_OURS = {
    "Encoder_M.conv1_m": "memory_encoder.mask_stem",
    "Encoder_M.conv1_o": "memory_encoder.others_stem",
    **{f"Encoder_M.{theirs}": f"memory_encoder.backbone.{ours}" for theirs, ours in _BACKBONE.items()},
    **{f"Encoder_Q.{theirs}": f"query_encoder.backbone.{ours}" for theirs, ours in _BACKBONE.items()},
    "KV_M_r4.Key": "memory_heads.key",
    "KV_M_r4.Value": "memory_heads.value",
    "KV_Q_r4.Key": "query_heads.key",
    "KV_Q_r4.Value": "query_heads.value",
    "Decoder.convFM": "aspp",
    "Decoder.ResMM": "decoder.block16",
    "Decoder.RF3.convFS": "skip8.project",
    "Decoder.RF3.ResFS": "skip8.block",
    "Decoder.RF3.ResMM": "decoder.block8",
    "Decoder.RF2.convFS": "skip4.project",
    "Decoder.RF2.ResFS": "skip4.block",
    "Decoder.RF2.ResMM": "decoder.block4",
    "Decoder.pred2": "decoder.predict",
}
"""Their module -> ours."""

# ImageNet's mean and deviation: stored with their weights, and in our code in `dstm/backbone.py:normalise`.
_CONSTANTS = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def read_published(path: Path) -> DSTM:
    """The network of the released `STM_weights.pth`.

    Args:
        path: a state dict of the released model, saved from DataParallel or not.

    Returns:
        The network on the CPU, in evaluation mode; all of its weights come from the file.

    Raises:
        UserError: the file is missing, damaged, or has the weights of another network.
    """
    weights = rename(_load(path), path)
    network = DSTM(SWITCHES, NETWORK, awaits_weights=True)
    expected = network.state_dict()
    missing = sorted(expected.keys() - weights.keys())
    if missing:
        raise _another(path, f"it lacks {_theirs(missing[0])}")
    for name, tensor in weights.items():
        if name not in expected:
            raise _another(path, f"it has {_theirs(name)}")
        if tensor.shape != expected[name].shape:
            shapes = f"{list(tensor.shape)}, expected {list(expected[name].shape)}"
            raise _another(path, f"{_theirs(name)} has the shape {shapes}")
    network.load_state_dict(weights)
    return network.eval()


def rename(published: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The released model's weights under our names.

    Their decoder's first convolution takes (read, query value), ours f_t = (query value, read) as in Eq. (1), so its
    input channels are swapped.

    Args:
        published: state dict of the released model.
        path: of the file, for errors.

    Returns:
        Our names -> weights; without the constants and BatchNorm's counters, which do not affect its results.

    Raises:
        UserError: a name that the released model does not have, or other constants than ImageNet's.
    """
    weights = {}
    for name, tensor in published.items():
        name = name.removeprefix("module.")
        module, _, kind = name.rpartition(".")
        if kind == "num_batches_tracked":
            continue
        if module in ("Encoder_M", "Encoder_Q") and kind in _CONSTANTS:
            _check_constant(name, tensor, _CONSTANTS[kind], path)
            continue
        ours = _swap(name, _OURS)
        if ours is None:
            raise _another(path, f"it has {name}")
        weights[ours] = tensor
    fuse = weights.get("aspp.weight")
    if fuse is not None and fuse.ndim == 4:
        weights["aspp.weight"] = torch.cat(list(reversed(fuse.chunk(2, dim=1))), dim=1)
    return weights


def _load(path: Path) -> dict[str, Tensor]:
    loaded = read_torch(path, "the STM_weights.pth of the STM release", "correct the path, or download it again")
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise _another(path, "it is not a state dict of names and tensors")
    return loaded


def _swap(name: str, modules: dict[str, str]) -> str | None:
    """The name with its module replaced; None if it is in none of them."""
    parts = name.split(".")
    for n in range(len(parts) - 1, 0, -1):
        module = modules.get(".".join(parts[:n]))
        if module is not None:
            return ".".join([module, *parts[n:]])
    return None


def _theirs(name: str) -> str:
    """The released model's name for one of ours, for errors."""
    return _swap(name, {ours: theirs for theirs, ours in _OURS.items()}) or name


def _check_constant(name: str, tensor: Tensor, expected: tuple[float, ...], path: Path) -> None:
    values = tensor.flatten().float()
    if values.shape != (3,) or not torch.allclose(values, torch.tensor(expected), atol=1e-6, rtol=0):
        shown = [round(float(value), 4) for value in values[:3]]
        raise _another(path, f"{name} is {shown}, expected {list(expected)}")


def _another(path: Path, detail: str) -> UserError:
    return UserError(
        f"{path} has another network ({detail}); expected the weights of the released STM with ResNet-50; give its "
        "STM_weights.pth"
    )
