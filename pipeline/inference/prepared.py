"""Prepare a network for inference: normalisation folded in, one data type throughout, the fastest kernels."""

from __future__ import annotations

from typing import Literal, cast

import torch
from timm.models._efficientnet_blocks import InvertedResidual
from timm.models.resnest import ResNestBottleneck
from timm.models.resnet import Bottleneck
from torch import Tensor, nn

from pipeline.core.kernels.onednn import InferenceConv, arithmetic
from pipeline.core.kernels.winograd import WinogradConv, suits
from pipeline.dstm.decoder import ResidualBlock
from pipeline.dstm.network import DSTM
from pipeline.inference.fused import PairAttention, Rectify, fuse
from pipeline.inference.inverted import InvertedBlock, is_inverted


def prepare(network: DSTM, precision: Literal["bf16", "fp32"]) -> DSTM:
    """A copy of the network for inference, equal up to rounding.

    Args:
        network: any; it is not changed.
        precision: type of the weights, the features and the memory; float32 also for `bf16` on a CPU without bfloat16
            instructions. Frames are always normalised, log-odds converted to probabilities and objects merged in
            float32.

    Returns:
        The copy, in evaluation mode, without gradients, on the same device; it accepts frames of any float type.
    """
    prepared = fuse(network)
    device = next(network.parameters()).device
    dtype = arithmetic(precision, device)
    if device.type == "cuda" and precision == "fp32":
        torch.backends.cudnn.allow_tf32 = False  # its 10 bits are not what fp32 promises
    prepared.to(dtype)
    _replace(prepared, dtype)
    return prepared


class Block(nn.Module):
    """A bottleneck of ResNet or ResNeSt whose ReLUs and sum are part of its convolutions.

    Args:
        block: a folded block without further parts.
        dtype: of the arithmetic.
    """

    def __init__(self, block: Bottleneck | ResNestBottleneck, dtype: torch.dtype) -> None:
        super().__init__()
        self.reduce = InferenceConv(block.conv1, dtype, relu=True)
        if isinstance(block.conv2, nn.Conv2d):
            middle: list[nn.Module | None] = [InferenceConv(block.conv2, dtype, relu=True)]
        else:
            middle = [block.avd_first, block.conv2, block.avd_last]
        self.middle = nn.Sequential(*(part for part in middle if part is not None))
        self.expand = InferenceConv(block.conv3, dtype, relu=True)
        self.shortcut = block.downsample
        for part in (self.middle, self.shortcut):
            if part is not None:
                _replace(part, dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Map N,C,H,W to N,C',H',W'."""
        shortcut = x if self.shortcut is None else self.shortcut(x)
        return cast(Tensor, self.expand(self.middle(self.reduce(x)), shortcut))


class Residual(nn.Module):
    """The decoder's residual block with its inner ReLU and its sum as parts of its convolutions."""

    def __init__(self, block: ResidualBlock, dtype: torch.dtype) -> None:
        super().__init__()
        self.conv1 = _convolution(block.conv1, dtype, relu=True)
        self.conv2 = _convolution(block.conv2, dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Map N,C,h,w to N,C,h,w."""
        return cast(Tensor, self.conv2(self.conv1(x.relu()), x))


def _replace(module: nn.Module, dtype: torch.dtype) -> None:
    """Replace what is below a module, outermost first."""
    for name, child in list(module.named_children()):
        if isinstance(child, ResidualBlock):
            setattr(module, name, Residual(child, dtype))
        elif is_inverted(child):
            setattr(module, name, InvertedBlock(cast(InvertedResidual, child), dtype))
        elif _is_plain(child):
            setattr(module, name, Block(cast(Bottleneck, child), dtype))
        elif isinstance(child, nn.Conv2d):
            setattr(module, name, _convolution(child, dtype))
        else:
            _replace(child, dtype)
    if isinstance(module, nn.Sequential):
        _join(module)


def _convolution(conv: nn.Conv2d, dtype: torch.dtype, relu: bool = False) -> InferenceConv | WinogradConv:
    """The faster way to compute a convolution."""
    return WinogradConv(conv, dtype, relu) if suits(conv, dtype) else InferenceConv(conv, dtype, relu)


def _is_plain(module: nn.Module) -> bool:
    """Whether a block is made of nothing but what `Block` takes over."""
    if not isinstance(module, Bottleneck | ResNestBottleneck):
        return False
    norms = all(isinstance(getattr(module, name), nn.Identity) for name in ("bn1", "bn2", "bn3", "drop_block"))
    extras = [getattr(module, name, None) for name in ("se", "drop_path")]
    rectified = all(isinstance(getattr(module, name), Rectify) for name in ("act1", "act3"))
    inner = isinstance(module.conv2, nn.Conv2d | PairAttention)
    return (
        norms
        and rectified
        and inner
        and all(extra is None for extra in extras)
        and _passes(getattr(module, "aa", None))
    )


def _passes(module: nn.Module | None) -> bool:
    return module is None or isinstance(module, nn.Identity)


def _join(sequence: nn.Sequential) -> None:
    """Make each ReLU that follows a convolution, with nothing in between, a part of it."""
    for i in range(len(sequence) - 2):
        conv, between, relu = sequence[i : i + 3]
        if isinstance(conv, InferenceConv) and _passes(between) and isinstance(relu, Rectify):
            conv.relu = True
            sequence[i + 2] = nn.Identity()
