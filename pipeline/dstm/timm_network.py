"""A timm network cut into its first convolution and its stages at strides 4, 8 and 16."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
from timm.layers import ConvNormAct, GroupNorm
from torch import Tensor, nn

from pipeline.core.errors import UserError
from pipeline.dstm.config import NetworkConfig
from pipeline.dstm.imagenet_weights import PACKAGE, download, load_file, load_package

_RESNET_CHANNELS = (64, 128, 256, 512)
_FITTING = "resnet50, resnest50d, regnety_008 or tf_efficientnet_lite0"


class Cut(NamedTuple):
    """The modules of a network up to stride 16, one after the other.

    Attributes:
        conv: the first convolution, or several of them, to stride 2.
        norm: its normalisation, and activation where that is one module.
        act: activation, or Identity.
        pool: pooling to stride 4, or Identity.
        stages: to strides 4, 8 and 16 (or 8 where the last one is dilated).
        stem_channels: of the first convolution.
        channels: of the three stages.
    """

    conv: nn.Module
    norm: nn.Module
    act: nn.Module
    pool: nn.Module
    stages: tuple[nn.Module, nn.Module, nn.Module]
    stem_channels: int
    channels: tuple[int, int, int]


def make_cut(name: str, config: NetworkConfig, awaits_weights: bool) -> Cut:
    """Make a network and cut it.

    Args:
        name: of timm.
        config: width, weights, normalisation and stride.
        awaits_weights: weights of a checkpoint come later: none are read here.

    Raises:
        UserError: timm has no such network, it does not fit, or its weights are not there.
    """
    net = _make(name, config, awaits_weights)
    try:
        cut = _cut(net, config.stride)
        cut = cut._replace(stem_channels=_check(net, cut))
    except (AttributeError, KeyError, IndexError, TypeError, ValueError, RuntimeError, AssertionError) as error:
        raise _unfit(name, (str(error).splitlines() or [type(error).__name__])[0][:100]) from None
    return cut


def _make(name: str, config: NetworkConfig, awaits_weights: bool) -> nn.Module:
    """The whole network, with the weights that the configuration names."""
    if not timm.is_model(name):
        raise UserError(
            f"timm {timm.__version__} has no network {name}; expected its name for a backbone, such as {_FITTING}; "
            "correct network.resnest_backbone or network.resnet_backbone"
        )
    pretrained = False if awaits_weights else config.pretrained
    if config.norm == "frozen" and pretrained is False and not awaits_weights:
        raise UserError(
            "network.norm is frozen and network.pretrained false; expected trained statistics where they are frozen; "
            "set network.pretrained to true, package or the path of weights, or network.norm to batch or group"
        )
    if pretrained is not False and (config.width != 1.0 or config.norm == "group"):
        raise UserError(
            f"network.pretrained is {str(pretrained).lower()} with network.width {config.width} and network.norm "
            f"{config.norm}; expected width 1.0 and norm frozen or batch, which published weights have; change one"
        )
    options: dict[str, Any] = {"output_stride": config.stride} if config.stride != 16 else {}
    if config.width != 1.0:
        options["channels"] = tuple(int(c * config.width) for c in _RESNET_CHANNELS)
        architecture = name.partition(".")[0]
        if architecture.endswith(("d", "t", "e")):  # deep stem: three convolutions of their own width
            options["stem_width"] = max(8, int((24 if architecture.endswith("t") else 32) * config.width))
    if config.norm == "group":
        options["norm_layer"] = partial(GroupNorm, num_groups=8)
    try:
        net: nn.Module = timm.create_model(name, **options)
    except (TypeError, RuntimeError, ValueError, AssertionError) as error:
        changes = f"with network.width {config.width}, norm {config.norm} and stride {config.stride}"
        raise _unfit(name, f"{changes}: {(str(error).splitlines() or ['not supported'])[0][:100]}") from None
    if pretrained is True:
        net.load_state_dict(download(name).state_dict())
    elif pretrained == PACKAGE:
        load_package(net, name)
    elif pretrained is not False:
        load_file(net, name, Path(str(pretrained)))
    return net


def _cut(net: Any, stride: int) -> Cut:
    """Cut a network whose children run one after the other."""
    infos = list(net.feature_info)
    chosen = infos[_first_stage(net) :][:3]
    found = tuple(info["reduction"] for info in chosen)
    if found not in ((4, 8, 16), (4, 8, stride)):
        raise ValueError(f"it has features at strides {', '.join(map(str, found))}")
    ends = [info["module"] for info in chosen]
    modules: list[tuple[str, nn.Module]] = []
    for name, child in net.named_children():
        inside = isinstance(child, nn.Sequential) and any(end.startswith(f"{name}.") for end in ends)
        if inside or (name == "stem" and isinstance(child, ConvNormAct)):
            modules += [(f"{name}.{part}", module) for part, module in child.named_children()]
        else:
            modules.append((name, child))
    names = [name for name, _ in modules]
    cuts = [names.index(end) + 1 for end in ends]
    head = {name.rpartition(".")[2]: module for name, module in modules[2 : cuts[0]] if name in ("act1", "maxpool")}
    rest = [(name, module) for name, module in modules[2 : cuts[0]] if name not in ("act1", "maxpool")]
    groups = [rest, modules[cuts[0] : cuts[1]], modules[cuts[1] : cuts[2]]]
    stages = [g[0][1] if len(g) == 1 else nn.Sequential(*(module for _, module in g)) for g in groups]
    return Cut(
        conv=modules[0][1],
        norm=modules[1][1],
        act=head.get("act1", nn.Identity()),
        pool=head.get("maxpool", nn.Identity()),
        stages=(stages[0], stages[1], stages[2]),
        stem_channels=0,  # see `_check`
        channels=(chosen[0]["num_chs"], chosen[1]["num_chs"], chosen[2]["num_chs"]),
    )


@torch.no_grad()
def _check(net: Any, cut: Cut) -> int:
    """Compare the parts, one after the other, with the network's own features of a small frame.

    Returns:
        Channels of the first convolution.
    """
    device = next(net.parameters()).device
    frame = torch.linspace(-2, 2, 3 * 32 * 48, device=device).view(1, 3, 32, 48)
    was_training = net.training
    net.eval()
    x = cut.conv(frame)
    if tuple(x.shape[-2:]) != (16, 24):
        raise ValueError(f"its first convolution maps 32x48 to {'x'.join(map(str, x.shape[-2:]))}")
    stem_channels = x.shape[1]
    x = cut.pool(cut.act(cut.norm(x)))
    first = _first_stage(net)
    indices = list(range(first, first + 3))
    expected: list[Tensor] = net.forward_intermediates(frame, indices=indices, intermediates_only=True, norm=False)
    for stage, want in zip(cut.stages, expected):
        x = stage(x)
        if x.shape != want.shape or not (x.is_meta or torch.allclose(x, want, rtol=1e-3, atol=1e-3)):
            raise ValueError("its modules do not run one after the other")
    net.train(was_training)
    return stem_channels


def _first_stage(net: Any) -> int:
    """Position of the features at stride 4 in timm's list."""
    reductions = [info["reduction"] for info in net.feature_info]
    if 4 not in reductions:
        raise ValueError(f"it has features at strides {', '.join(map(str, sorted(set(reductions))))}")
    return reductions.index(4)


def _unfit(name: str, reason: str) -> UserError:
    return UserError(
        f"the backbone {name} does not fit ({reason}); expected a timm network with a first convolution of stride 2 "
        f"and features at strides 4, 8 and 16; name another one, such as {_FITTING}"
    )
