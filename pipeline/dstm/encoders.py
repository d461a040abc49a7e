"""The query encoder, the memory encoder and their key and value heads."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.dstm.backbone import Backbone, make_stem, normalise


class QueryEncoder(nn.Module):
    """Features of a frame and its depth map (no mask, so they serve every object).

    Args:
        backbone: the stages.
        depth: whether a depth stem is added (zero-initialised).
    """

    def __init__(self, backbone: Backbone, depth: bool) -> None:
        super().__init__()
        self.backbone = backbone
        self.depth_stem = make_stem(backbone.stem_channels, zero=True) if depth else None

    def forward(self, frames: Tensor, depth: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Encode frames N,3,H,W in [0, 1] and depth N,1,H,W in [0, 1] to features at strides 4, 8, 16."""
        extra = None
        if self.depth_stem is not None:
            assert depth is not None
            extra = self.depth_stem(depth)
        features: tuple[Tensor, Tensor, Tensor] = self.backbone(normalise(frames), extra)
        return features


class MemoryEncoder(nn.Module):
    """Features of a frame, its depth map, one object's mask and the union of the other objects' masks.

    Args:
        backbone: the stages.
        depth: whether a depth stem is added (zero-initialised).
    """

    def __init__(self, backbone: Backbone, depth: bool) -> None:
        super().__init__()
        self.backbone = backbone
        self.mask_stem = make_stem(backbone.stem_channels, zero=False)
        self.others_stem = make_stem(backbone.stem_channels, zero=False)
        self.depth_stem = make_stem(backbone.stem_channels, zero=True) if depth else None

    def forward(self, frames: Tensor, depth: Tensor | None, mask: Tensor, others: Tensor) -> Tensor:
        """Encode N objects.

        Args:
            frames: N,3,H,W in [0, 1].
            depth: N,1,H,W in [0, 1].
            mask: N,1,H,W probability of this object.
            others: N,1,H,W probability of the union of the others.

        Returns:
            Features N,C,H/16,W/16.
        """
        extra = self.mask_stem(mask) + self.others_stem(others)
        if self.depth_stem is not None:
            assert depth is not None
            extra = extra + self.depth_stem(depth)
        feat16: Tensor = self.backbone(normalise(frames), extra)[2]
        return feat16


class KeyValue(nn.Module):
    """Key for matching and value for detail, each a 3x3 convolution on the stride-16 features.

    Args:
        in_channels: channels of the encoder's last stage.
        key_channels: Ck.
        value_channels: Cv.
    """

    def __init__(self, in_channels: int, key_channels: int, value_channels: int) -> None:
        super().__init__()
        self.key = nn.Conv2d(in_channels, key_channels, 3, padding=1)
        self.value = nn.Conv2d(in_channels, value_channels, 3, padding=1)
        nn.init.orthogonal_(self.key.weight)
        nn.init.zeros_(self.key.bias)  # type: ignore[arg-type]

    def forward(self, feat16: Tensor) -> tuple[Tensor, Tensor]:
        """Map N,C,h,w to a key N,Ck,h,w and a value N,Cv,h,w."""
        return self.key(feat16), self.value(feat16)

    @torch.no_grad()
    def scale_key(self, factor: float) -> None:
        """Multiply the key by a constant."""
        self.key.weight.mul_(factor)
        if self.key.bias is not None:
            self.key.bias.mul_(factor)
