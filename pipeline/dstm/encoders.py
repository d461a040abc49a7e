"""The query encoder, the memory encoder and their key and value heads."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.dstm.backbone import Backbone, make_stem, normalise
from pipeline.dstm.objects import Objects


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
        x = self.backbone.conv1(normalise(frames))
        if self.depth_stem is not None:
            assert depth is not None
            x = x + self.depth_stem(depth)
        features: tuple[Tensor, Tensor, Tensor] = self.backbone(x)
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
        self.joined_stem: nn.Module | None = None  # in a copy for inference: both mask stems as one convolution

    def forward(
        self, frames: Tensor, depth: Tensor | None, mask: Tensor, others: Tensor, objects: Objects | None = None
    ) -> Tensor:
        """Encode N objects of B frames.

        Args:
            frames: B,3,H,W in [0, 1].
            depth: B,1,H,W in [0, 1].
            mask: N,1,H,W probability of this object.
            others: N,1,H,W probability of the union of the others.
            objects: the frame of each object; None if B is 1 or N.

        Returns:
            Features N,C,H/16,W/16.
        """
        x = self.backbone.conv1(normalise(frames))  # once for each frame, not for each object
        if self.depth_stem is not None:
            assert depth is not None
            x = x + self.depth_stem(depth)
        if objects is not None:
            x = objects.shared(x)
        feat16: Tensor = self.backbone(x + self.encode_masks(mask, others))[2]
        return feat16

    def encode_masks(self, mask: Tensor, others: Tensor) -> Tensor:
        """The sum of both mask stems, N,C,H/2,W/2, as one convolution of two planes."""
        planes = torch.cat([mask, others], dim=1)
        if self.joined_stem is not None:
            joined: Tensor = self.joined_stem(planes)
            return joined
        weight = torch.cat([self.mask_stem.weight, self.others_stem.weight], dim=1)
        return F.conv2d(planes, weight, None, self.mask_stem.stride, self.mask_stem.padding)


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
