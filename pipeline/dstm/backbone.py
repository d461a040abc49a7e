"""A timm ResNet or ResNeSt up to its third stage, with further input stems summed onto the first convolution."""

from __future__ import annotations

from functools import lru_cache, partial
from typing import Any

import timm
import torch
from timm.layers import GroupNorm
from timm.utils.model import freeze_batch_norm_2d
from torch import Tensor, nn

from pipeline.core.errors import UserError
from pipeline.dstm.config import NetworkConfig

_STAGES = (64, 128, 256, 512)


class Backbone(nn.Module):
    """Stages at strides 4, 8 and 16 (or 8) of a timm network.

    Args:
        name: timm model name.
        config: width, weights, normalisation and stride.

    Attributes:
        channels: channels of the three stages.
        stem_channels: channels of the first convolution.
    """

    def __init__(self, name: str, config: NetworkConfig) -> None:
        super().__init__()
        options: dict[str, Any] = {"output_stride": config.stride} if config.stride != 16 else {}
        if config.width != 1.0:
            if config.pretrained:
                raise UserError(
                    f"network.width is {config.width} with network.pretrained; published weights need width 1.0"
                )
            options["channels"] = tuple(int(c * config.width) for c in _STAGES)
            if name.endswith(("d", "t", "e")):  # deep stem: three convolutions of their own width
                options["stem_width"] = max(8, int((24 if name.endswith("t") else 32) * config.width))
        if config.norm == "group":
            options["norm_layer"] = partial(GroupNorm, num_groups=8)
        try:
            net: Any = timm.create_model(name, pretrained=config.pretrained, **options)
        except (RuntimeError, OSError) as error:
            line = (str(error).splitlines() or [type(error).__name__])[0]
            raise UserError(
                f"timm cannot make the backbone {name} ({line}); expected a ResNet or ResNeSt of timm"
            ) from None
        self.conv1: nn.Module = net.conv1
        self.bn1: nn.Module = net.bn1
        self.act1: nn.Module = net.act1
        self.maxpool: nn.Module = net.maxpool
        self.layer1: nn.Module = net.layer1
        self.layer2: nn.Module = net.layer2
        self.layer3: nn.Module = net.layer3
        if config.norm == "frozen":
            for part in ("bn1", "conv1", "layer1", "layer2", "layer3"):
                setattr(self, part, freeze_batch_norm_2d(getattr(self, part)))
        self.channels: tuple[int, int, int] = tuple(net.feature_info[i]["num_chs"] for i in (1, 2, 3))
        self.stem_channels = int(net.bn1.weight.shape[0])

    def forward(self, frames: Tensor, extra: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Run the stages.

        Args:
            frames: N,3,H,W, normalised.
            extra: N,C,H/2,W/2 summed onto the first convolution's output, before its normalisation.

        Returns:
            Features at strides 4, 8 and 16 (or 8).
        """
        x = self.conv1(frames)
        if extra is not None:
            x = x + extra
        x = self.maxpool(self.act1(self.bn1(x)))
        feat4 = self.layer1(x)
        feat8 = self.layer2(feat4)
        return feat4, feat8, self.layer3(feat8)


def make_stem(out_channels: int, zero: bool) -> nn.Conv2d:
    """A 7x7 stride-2 stem for one more input plane.

    Args:
        out_channels: channels of the backbone's first convolution.
        zero: start at zero, so that the plane changes nothing at step 0.
    """
    stem = nn.Conv2d(1, out_channels, 7, stride=2, padding=3, bias=False)
    if zero:
        nn.init.zeros_(stem.weight)
    return stem


def normalise(frames: Tensor) -> Tensor:
    """Subtract ImageNet's mean and divide by its standard deviation; frames N,3,H,W in [0, 1]."""
    mean, std = _imagenet(frames.device, frames.dtype)
    return (frames - mean) / std


@lru_cache
def _imagenet(device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """ImageNet's mean and standard deviation, brought to a device once."""
    with torch.inference_mode(False):
        rows = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]], device=device, dtype=dtype)
    return rows[0].view(1, 3, 1, 1), rows[1].view(1, 3, 1, 1)
