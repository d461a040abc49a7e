"""The same network with BatchNorm folded into the convolutions before it."""

from __future__ import annotations

from copy import deepcopy
from typing import cast

import torch
from timm.layers import Conv2dSame, SplitAttn
from torch import Tensor, nn

from pipeline.core.kernels.relu import rectify
from pipeline.dstm.encoders import MemoryEncoder, QueryEncoder
from pipeline.dstm.frozen_norm import FoldedConv, FrozenNorm, can_fold, enlarge, freeze, same_padding
from pipeline.dstm.network import DSTM


def fuse(network: DSTM) -> DSTM:
    """A copy of the network for inference, equal up to rounding.

    Args:
        network: any; it is not changed.

    Returns:
        The copy, in evaluation mode, without gradients, its convolutions' weights in channels-last layout. All its
        convolutions have numeric padding; sides must be multiples of 16, as padded by `DSTM`.
    """
    fused = deepcopy(network).eval().requires_grad_(False)
    for encoder in (fused.query_encoder, fused.memory_encoder):
        freeze(encoder.backbone)
        _fold_stems(encoder)
        _apply_folds(encoder.backbone)
    _join_mask_stems(fused.memory_encoder)
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
    """ResNeSt's split attention over two splits, without its five-dimensional view, whose sums are slow on a CPU.

    Args:
        attention: timm's module, whose parts are used.
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
        # the mean over pixels as a product with ones: on a CPU in bf16 eight times as fast as a reduction
        total = both.new_ones(1, height * width) @ both.permute(0, 2, 3, 1).flatten(1, 2)  # N,1,C
        mean = total.view(n, 2, c // 2).sum(dim=1) / (height * width)
        attention: Tensor = self.softmax(self.squeeze(mean[:, :, None, None]))
        weight_first, weight_second = attention.view(n, c, 1, 1).chunk(2, dim=1)
        first, second = both.chunk(2, dim=1)
        return torch.addcmul(first * weight_first, second, weight_second)


def _fold_stems(encoder: QueryEncoder | MemoryEncoder) -> None:
    """Fold the backbone's first normalisation, with fixed statistics, into all stems, whose sum it normalises."""
    backbone = encoder.backbone
    norm = backbone.bn1
    if not isinstance(norm, FrozenNorm):
        return
    first = cast(nn.Conv2d, backbone.conv1[-1] if isinstance(backbone.conv1, nn.Sequential) else backbone.conv1)
    folded = FoldedConv(first, norm)
    if isinstance(backbone.conv1, nn.Sequential):
        backbone.conv1[-1] = folded
    else:
        backbone.conv1 = folded
    scale, _ = norm.scale_and_shift()
    for name, stem in encoder.named_children():
        if isinstance(stem, nn.Conv2d) and name.endswith("_stem"):
            stem.weight.mul_(scale[:, None, None, None])  # the stems have no bias


def _join_mask_stems(encoder: MemoryEncoder) -> None:
    """Merge the two mask stems into one convolution of two planes; nothing to do in a network that is already fused."""
    if encoder.joined_stem is not None:
        return
    mask, others = encoder.mask_stem, encoder.others_stem
    encoder.joined_stem = _plain(mask, torch.cat([mask.weight, others.weight], dim=1), None)
    del encoder.mask_stem, encoder.others_stem


def _apply_folds(module: nn.Module) -> None:
    """Turn every convolution into a plain one with numeric padding, its output's normalisation folded in."""
    for name, child in list(module.named_children()):
        if isinstance(child, FoldedConv):
            setattr(module, name, _plain(child, *child.folded()))
        elif isinstance(child, Conv2dSame):
            if not can_fold(child):
                raise ValueError(
                    f"a convolution whose padding depends on its input's size cannot become a plain one: {child}"
                )
            setattr(module, name, _plain(child, enlarge(child.weight), child.bias))
        elif isinstance(child, FrozenNorm) and child.folded:
            setattr(module, name, child.act)
        else:
            _apply_folds(child)


def _plain(conv: nn.Conv2d, weight: Tensor, bias: Tensor | None) -> nn.Conv2d:
    """A convolution like another one, with new weights."""
    padding = same_padding(conv) if isinstance(conv, Conv2dSame) else conv.padding
    kernel = (weight.shape[2], weight.shape[3])
    plain = nn.Conv2d(
        weight.shape[1] * conv.groups,
        conv.out_channels,
        kernel,
        conv.stride,  # type: ignore[arg-type]
        padding,  # type: ignore[arg-type]
        conv.dilation,  # type: ignore[arg-type]
        conv.groups,
        bias is not None,
        device="meta",
    )
    plain.weight = nn.Parameter(weight.detach(), requires_grad=False)
    plain.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)
    return plain
