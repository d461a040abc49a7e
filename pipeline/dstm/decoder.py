"""The decoder: residual refinement from the readout at stride 16 up to stride 4."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """Two pre-activated 3x3 convolutions around an identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map N,C,h,w to N,C,h,w."""
        return x + self.conv2(self.conv1(x.relu()).relu())


class Skip(nn.Module):
    """A query feature prepared for the decoder; it depends only on the frame and is computed once for all objects."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(in_channels, channels, 3, padding=1)
        self.block = ResidualBlock(channels)

    def forward(self, feature: Tensor) -> Tensor:
        """Map N,C,h,w to N,channels,h,w."""
        return self.block(self.project(feature))


class Decoder(nn.Module):
    """From the projected readout to one foreground logit per pixel.

    Args:
        channels: channels throughout.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block16 = ResidualBlock(channels)
        self.block8 = ResidualBlock(channels)
        self.block4 = ResidualBlock(channels)
        self.predict = nn.Conv2d(channels, 2, 3, padding=1)

    def forward(self, readout: Tensor, skip8: Tensor, skip4: Tensor) -> Tensor:
        """Decode N objects.

        Args:
            readout: N,C,h,w at stride 16 (or 8).
            skip8: N,C at stride 8.
            skip4: N,C at stride 4.

        Returns:
            N,1,H,W log-odds of the object against everything else (the difference of the two class scores).
        """
        x = self.block16(readout)
        x = self.block8(skip8 + _grow(x, skip8))
        x = self.block4(skip4 + _grow(x, skip4))
        scores = self.predict(x.relu())
        odds = scores[:, 1:] - scores[:, :1]
        return F.interpolate(odds.float(), scale_factor=4, mode="bilinear", align_corners=False)


def _grow(x: Tensor, like: Tensor) -> Tensor:
    if x.shape[-2:] == like.shape[-2:]:
        return x
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)
