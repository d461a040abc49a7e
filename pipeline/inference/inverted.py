"""EfficientNet's blocks for inference: activations in the convolutions, wide features a band of rows at a time."""

from __future__ import annotations

from typing import Any

import torch
from timm.models._efficientnet_blocks import DepthwiseSeparableConv, InvertedResidual
from torch import Tensor, nn

from pipeline.core.kernels.onednn import InferenceConv

_BAND_BYTES = 2**23  # of the widest features of a band: smaller ones cost more calls than they save


class InvertedBlock(nn.Module):
    """An inverted residual block: a pointwise convolution to more channels, a depthwise one, a pointwise one back.

    On a CPU large wide features are computed in bands: at stride 2 of a 480p frame they would take 40 MB, more than the
    caches hold, and more than the memory allocator keeps between two calls.

    Args:
        block: a block of timm with its normalisation folded in, of which `is_inverted` says that it fits.
        dtype: of the arithmetic.
    """

    def __init__(self, block: DepthwiseSeparableConv | InvertedResidual, dtype: torch.dtype) -> None:
        super().__init__()
        parts = block._modules
        wide = parts.get("conv_pw") if isinstance(block, InvertedResidual) else None
        narrow = parts["conv_pwl"] if isinstance(block, InvertedResidual) else parts["conv_pw"]
        self.expand = None if wide is None else _conv(wide, dtype, parts["bn1"])
        self.depthwise = _conv(parts["conv_dw"], dtype, parts["bn1" if wide is None else "bn2"])
        self.project = _conv(narrow, dtype, parts["bn2" if wide is None else "bn3"])
        self.has_skip = bool(block.has_skip)
        conv: Any = parts["conv_dw"]
        self._stride, self._margin = conv.stride[0], conv.padding[0]
        self._wide_channels, self._on_cpu = conv.in_channels, conv.weight.device.type == "cpu"

    def forward(self, x: Tensor) -> Tensor:
        """Map N,C,H,W to N,C',H',W'."""
        n, _, height, width = x.shape
        row_bytes = n * width * self._wide_channels * self.project.weight.itemsize
        step = max(4, _BAND_BYTES // (row_bytes * self._stride))  # rows of the output
        rows = height // self._stride
        if not self._on_cpu or rows <= 2 * step:
            return self._compute(x)
        return torch.cat([self._band(x, top, min(rows, top + step)) for top in range(0, rows, step)], dim=2)

    def _compute(self, x: Tensor) -> Tensor:
        wide = x if self.expand is None else self.expand(x)
        found: Tensor = self.project(self.depthwise(wide), x if self.has_skip else None)
        return found

    def _band(self, x: Tensor, top: int, bottom: int) -> Tensor:
        """Rows top to bottom of the output, from the rows of the input that they see.

        The depthwise convolution pads a band like a whole feature. Inside of the frame that gives wrong rows at the
        band's edges: `spare` rows of the output more are computed on each side and left out.
        """
        spare = -(-self._margin // self._stride)
        first, last = max(0, top - spare), min(x.shape[2] // self._stride, bottom + spare)
        part = x[:, :, first * self._stride : last * self._stride]
        wide = part if self.expand is None else self.expand(part)
        deep = self.depthwise(wide)[:, :, top - first : bottom - first]
        found: Tensor = self.project(deep, x[:, :, top:bottom] if self.has_skip else None)
        return found


def is_inverted(module: nn.Module) -> bool:
    """Whether a block, with its normalisation folded in, is made of nothing but what `InvertedBlock` computes."""
    if type(module) not in (DepthwiseSeparableConv, InvertedResidual):
        return False
    acts = [module._modules[name] for name in ("bn1", "bn2", "bn3") if name in module._modules]
    names = ("aa", "se", "drop_path")
    convs = [module._modules[name] for name in ("conv_pw", "conv_dw", "conv_pwl") if name in module._modules]
    return (
        all(isinstance(act, nn.Identity | nn.ReLU | nn.ReLU6) for act in acts)
        and all(isinstance(module._modules.get(name, nn.Identity()), nn.Identity) for name in names)
        and all(type(conv) is nn.Conv2d and conv.dilation == (1, 1) for conv in convs)
        and module._modules.get("conv_s2d") is None
    )


def _conv(conv: nn.Module | None, dtype: torch.dtype, act: nn.Module | None) -> InferenceConv:
    assert isinstance(conv, nn.Conv2d)
    return InferenceConv(conv, dtype, not isinstance(act, nn.Identity), 6.0 if isinstance(act, nn.ReLU6) else None)
