"""The same network with BatchNorm folded into the convolutions before it."""

from __future__ import annotations

from copy import deepcopy
from itertools import pairwise
from typing import cast

import torch
from timm.layers import SplitAttn
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torchvision.ops import FrozenBatchNorm2d

from pipeline.core.kernels.relu import rectify
from pipeline.dstm.backbone import Backbone
from pipeline.dstm.encoders import MemoryEncoder, QueryEncoder
from pipeline.dstm.network import DSTM

# Names of a convolution and the normalisation of its output in timm's blocks; in a Sequential they are neighbours.
_PAIRS = (("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3"), ("conv", "bn0"), ("fc1", "bn1"))


def fuse(network: DSTM) -> DSTM:
    """A copy of the network for inference, equal up to rounding.

    Args:
        network: any; it is left as it is.

    Returns:
        The copy, in evaluation mode, without gradients, its convolutions' weights in channels-last layout.
    """
    fused = deepcopy(network).eval().requires_grad_(False)
    for encoder in (fused.query_encoder, fused.memory_encoder):
        _fold_stems(encoder)
    for module in list(fused.modules()):
        names = list(module._modules)
        # in the backbone itself other stems are summed between the first convolution and its normalisation, see above
        pairs = [] if isinstance(module, Backbone) else [p for p in _PAIRS if set(p) <= set(names)]
        if isinstance(module, nn.Sequential):
            pairs = list(pairwise(names))
        for conv, norm in pairs:
            _fold(module, conv, norm)
    for module in list(fused.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, SplitAttn) and child.radix == 2:
                setattr(module, name, PairAttention(child))
    for module in list(fused.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.ReLU) and child.inplace:
                setattr(module, name, Rectify())
    return fused.to(memory_format=torch.channels_last)


class Rectify(nn.Module):
    """ReLU in place."""

    def forward(self, x: Tensor) -> Tensor:
        """Map any shape to itself."""
        return rectify(x)


class PairAttention(nn.Module):
    """ResNeSt's split attention over two splits, without the five-dimensional view, whose sums are slow on a CPU.

    Args:
        attention: timm's module, whose parts it takes over.
    """

    def __init__(self, attention: SplitAttn) -> None:
        super().__init__()
        self.split = nn.Sequential(attention.conv, attention.bn0, attention.act0)
        self.squeeze = nn.Sequential(attention.fc1, attention.bn1, attention.act1, attention.fc2)
        self.softmax = attention.rsoftmax

    def forward(self, x: Tensor) -> Tensor:
        """Map N,C,H,W to N,C',H',W'."""
        both: Tensor = self.split(x)
        n, c, height, width = both.shape
        # the mean over places as a product with ones: on a CPU in bf16 eight times as fast as a reduction
        total = both.new_ones(1, height * width) @ both.permute(0, 2, 3, 1).flatten(1, 2)  # N,1,C
        mean = total.view(n, 2, c // 2).sum(dim=1) / (height * width)
        attention: Tensor = self.softmax(self.squeeze(mean[:, :, None, None]))
        weight_first, weight_second = attention.view(n, c, 1, 1).chunk(2, dim=1)
        first, second = both.chunk(2, dim=1)
        return torch.addcmul(first * weight_first, second, weight_second)


def _fold_stems(encoder: QueryEncoder | MemoryEncoder) -> None:
    """Fold the backbone's first normalisation, with fixed statistics, into all stems whose sum it normalises."""
    backbone = encoder.backbone
    norm = backbone.bn1
    if not isinstance(norm, nn.BatchNorm2d | FrozenBatchNorm2d):
        return
    first = cast(nn.Conv2d, backbone.conv1[-1] if isinstance(backbone.conv1, nn.Sequential) else backbone.conv1)
    mean, variance = cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var)
    weight, bias = cast(Tensor, norm.weight), cast(Tensor, norm.bias)
    first.weight, first.bias = fuse_conv_bn_weights(first.weight, first.bias, mean, variance, norm.eps, weight, bias)
    scale = weight * (variance + norm.eps).rsqrt()
    for name, stem in encoder.named_children():
        if isinstance(stem, nn.Conv2d) and name.endswith("_stem"):
            stem.weight.mul_(scale[:, None, None, None])  # the stems have no bias
    backbone.bn1 = nn.Identity()


def _fold(module: nn.Module, conv_name: str, norm_name: str) -> None:
    """Fold a normalisation with fixed statistics into the convolution before it; anything else is left."""
    conv, norm = module._modules[conv_name], module._modules[norm_name]
    if not isinstance(conv, nn.Conv2d) or not isinstance(norm, nn.BatchNorm2d | FrozenBatchNorm2d):
        return
    mean, variance = cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var)
    conv.weight, conv.bias = fuse_conv_bn_weights(
        conv.weight, conv.bias, mean, variance, norm.eps, cast(Tensor, norm.weight), cast(Tensor, norm.bias)
    )
    setattr(module, norm_name, nn.Identity())
