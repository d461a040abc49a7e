"""A timm network up to stride 16, with further input stems summed onto its first convolution."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.dstm.config import NetworkConfig
from pipeline.dstm.frozen_norm import freeze
from pipeline.dstm.timm_network import make_cut

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, R, G, B


class Backbone(nn.Module):
    """Stages at strides 4, 8 and 16 (or 8) of a timm network.

    Args:
        name: timm's: ResNet, ResNeSt, RegNet, EfficientNet or MobileNet, or another one with the same structure.
        config: width, weights, normalisation and stride.
        awaits_weights: weights of a checkpoint will be loaded, so ImageNet's are not read.

    Attributes:
        channels: channels of the three stages.
        stem_channels: channels of the first convolution.

    Raises:
        UserError: timm has no such network, it does not fit, or its weights are not available.
    """

    def __init__(self, name: str, config: NetworkConfig, awaits_weights: bool = False) -> None:
        super().__init__()
        cut = make_cut(name, config, awaits_weights)
        self.stem_channels = cut.stem_channels
        self.channels = cut.channels
        self.conv1: nn.Module = cut.conv
        self.bn1: nn.Module = cut.norm
        self.act1: nn.Module = cut.act
        self.maxpool: nn.Module = cut.pool
        self.layer1: nn.Module
        self.layer2: nn.Module
        self.layer3: nn.Module
        self.layer1, self.layer2, self.layer3 = cut.stages
        if config.norm == "frozen":
            for part, module in list(self.named_children()):
                setattr(self, part, freeze(module))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Run the stages.

        Args:
            x: N,C,H/2,W/2: the output of `conv1` for normalised frames, with the outputs of further stems added. H and
                W are multiples of 16.

        Returns:
            Features at strides 4, 8 and 16 (or 8).
        """
        x = self.maxpool(self.act1(self.bn1(x)))
        feat4 = self.layer1(x)
        feat8 = self.layer2(feat4)
        return feat4, feat8, self.layer3(feat8)


def make_stem(out_channels: int, zero: bool) -> nn.Conv2d:
    """A 7x7 stride-2 stem for one more input plane.

    Args:
        out_channels: channels of the backbone's first convolution.
        zero: initialise with zeros, so that the plane has no effect at step 0.
    """
    stem = nn.Conv2d(1, out_channels, 7, stride=2, padding=3, bias=False)
    if zero:
        nn.init.zeros_(stem.weight)
    return stem


def normalise(frames: Tensor) -> Tensor:
    """Subtract ImageNet's mean and divide by its standard deviation; frames N,3,H,W in [0, 1]."""
    # made on the device in each call: nothing waits for a copy, and tracing meets no tensor made before it
    mean, std = (torch.cat([frames.new_full((1, 1, 1), value) for value in values]) for values in (_MEAN, _STD))
    return (frames - mean) / std
