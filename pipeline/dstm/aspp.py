"""Atrous spatial pyramid pooling on the memory readout."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ASPP(nn.Module):
    """A 1x1 and several dilated 3x3 branches, concatenated and projected.

    Args:
        in_channels: channels of the readout f_t.
        out_channels: channels of each branch and of the output.
        dilations: one 3x3 branch each.
    """

    def __init__(self, in_channels: int, out_channels: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            [nn.Conv2d(in_channels, out_channels, 1)]
            + [nn.Conv2d(in_channels, out_channels, 3, padding=d, dilation=d) for d in dilations]
        )
        self.project = nn.Conv2d(out_channels * len(self.branches), out_channels, 1)

    def forward(self, readout: Tensor) -> Tensor:
        """Map N,C,h,w to N,out_channels,h,w."""
        return self.project(torch.cat([branch(readout).relu() for branch in self.branches], dim=1))
