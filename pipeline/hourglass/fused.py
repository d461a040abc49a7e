"""The hourglass for inference: BatchNorm folded into the convolutions, and the 1x1 convolutions of a block merged.

The result equals the network's in evaluation mode, up to rounding. Every block reads its input once instead of four
times, and normalisation needs no extra pass over the features.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from pipeline.core.kernels.onednn import InferenceConv
from pipeline.hourglass.network import Hourglass, Inception


class FusedInception(nn.Module):
    """An inception block in evaluation mode.

    Args:
        block: The block whose weights and statistics are used.
        dtype: Of the arithmetic.
    """

    def __init__(self, block: Inception, dtype: torch.dtype) -> None:
        super().__init__()
        branches = [list(cast(nn.Sequential, branch)) for branch in block.convs]
        entries = [fold(branch[0], branch[1]) for branch in branches]
        self.out = entries[0].out_channels
        self.mids = [entry.out_channels for entry in entries[1:]]
        entry = nn.Conv2d(entries[0].in_channels, self.out + sum(self.mids), 1)
        entry.weight.data = torch.cat([part.weight.data for part in entries])
        entry.bias = nn.Parameter(torch.cat([_bias(part) for part in entries]))
        self.entry = InferenceConv(entry, dtype, relu=True)
        self.convs = nn.ModuleList(
            InferenceConv(fold(branch[3], branch[4]), dtype, relu=True) for branch in branches[1:]
        )

    def forward(self, x: Tensor) -> Tensor:
        """B,C,H,W -> B,C',H,W."""
        first, *mids = self.entry(x).split([self.out, *self.mids], dim=1)
        return torch.cat([first, *(conv(mid) for conv, mid in zip(self.convs, mids))], dim=1)


class FusedHourglass(nn.Module):
    """The network in evaluation mode, without gradients.

    Args:
        model: A trained network; it is not changed.
        dtype: Arithmetic of everything except the heads: float32 or bfloat16.
        device: Where to compute.
    """

    def __init__(
        self, model: Hourglass, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
    ) -> None:
        super().__init__()
        fused = Hourglass(model.config)
        fused.load_state_dict(model.state_dict())
        fused = fused.to(device).eval().requires_grad_(False)
        stem, norm, _, levels = fused.seq
        _replace(levels, dtype)
        self.stem, self.levels = InferenceConv(fold(stem, norm), dtype, relu=True), levels
        self.pred_layer, self.uncertainty_layer = fused.pred_layer, fused.uncertainty_layer

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """B,3,H,W float32 in [0, 1] -> log-depth and confidence, each B,1,h,w float32."""
        features = self.levels(self.stem(frames)).float()  # the heads stay in float32, as in training
        return self.pred_layer(features), self.uncertainty_layer(features)


def _replace(module: nn.Module, dtype: torch.dtype) -> None:
    for name, child in module.named_children():
        if isinstance(child, Inception):
            setattr(module, name, FusedInception(child, dtype))
        else:
            _replace(child, dtype)


def fold(conv: nn.Module, norm: nn.Module) -> nn.Conv2d:
    """A convolution that equals `conv` followed by `norm` with its running statistics."""
    assert isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None and norm.running_var is not None
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    shift = -norm.running_mean.double() * scale
    if norm.affine:
        scale, shift = scale * norm.weight.double(), shift * norm.weight.double() + norm.bias.double()
    kernel, stride, padding = (cast(tuple[int, int], pair) for pair in (conv.kernel_size, conv.stride, conv.padding))
    folded = nn.Conv2d(conv.in_channels, conv.out_channels, kernel, stride, padding, device=conv.weight.device)
    folded.weight.data = (conv.weight.double() * scale[:, None, None, None]).float()
    folded.bias = nn.Parameter((_bias(conv).double() * scale + shift).float())
    return folded


def _bias(conv: nn.Conv2d) -> Tensor:
    return conv.bias.data if conv.bias is not None else conv.weight.new_zeros(conv.out_channels)
