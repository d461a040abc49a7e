"""The hourglass of Li et al. (CVPR 2019), single-view RGB variant.

The architecture is the inception hourglass of Chen et al., "Single-Image Depth Perception in the Wild" (NIPS 2016),
in the form of the MannequinChallenge release. The module tree has that release's state-dict keys (``seq.``,
``uncertainty_layer.``, ``pred_layer.``), so its single-view checkpoint loads strictly at width 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.core.kernels.relu import rectify
from pipeline.hourglass.config import HourglassConfig

_STEM_CHANNELS = 128
_MOMENTUM = 0.1  # of the running statistics


@dataclass(frozen=True)
class InceptionKind:
    """One kind of inception block at width 1: a 1x1 branch and three k x k branches of `out` channels each.

    Attributes:
        out: Output channels of every branch; the block has four times as many.
        mid: Channels between the 1x1 and the k x k convolution of a branch.
        kernels: Side of the kernel of each k x k branch, in pixels.
    """

    out: int
    mid: int
    kernels: tuple[int, ...]


KINDS = {
    "A": InceptionKind(16, 64, (3, 7, 11)),
    "B": InceptionKind(32, 32, (3, 5, 7)),
    "C": InceptionKind(32, 64, (3, 7, 11)),
    "D": InceptionKind(64, 32, (3, 5, 7)),
    "E": InceptionKind(64, 64, (3, 7, 11)),
    "F": InceptionKind(32, 64, (3, 5, 7)),
    "G": InceptionKind(16, 32, (3, 7, 11)),
}

# One row per level, outermost first: blocks at this level's resolution; blocks at half of it before and after the next
# level; and whether the released module lists the half-resolution path first (which only matters for the key names).
_LEVELS = (
    ("A", "BB", "FG", True),
    ("BC", "BD", "DB", True),
    ("DE", "DD", "DE", False),
    ("DD", "DDD", "", False),
)


def _scaled(channels: int, width: float) -> int:
    """Number of channels at a width, rounded to a multiple of 8 (others are several times slower on a CPU)."""
    return max(8, 8 * round(channels * width / 8))


def _conv_norm_relu(in_channels: int, out_channels: int, kernel: int) -> list[nn.Module]:
    """A convolution that keeps the resolution, BatchNorm without affine parameters, ReLU."""
    conv = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2)
    return [conv, nn.BatchNorm2d(out_channels, momentum=_MOMENTUM, affine=False), nn.ReLU(inplace=True)]


class Inception(nn.Module):
    """Four parallel branches over the same input, concatenated along the channels.

    The branches are separate modules, as in the release, but some of their work is done together: the 1x1 convolutions,
    which share their input, and each round of BatchNorm and ReLU. That saves a sixth of a training step.

    Args:
        in_channels: Channels of the input.
        kind: Channels and kernels at width 1.
        width: Multiplier of the channels.
    """

    def __init__(self, in_channels: int, kind: InceptionKind, width: float) -> None:
        super().__init__()
        out, mid = _scaled(kind.out, width), _scaled(kind.mid, width)
        self.out, self.out_channels = out, out * (1 + len(kind.kernels))
        branches = [nn.Sequential(*_conv_norm_relu(in_channels, out, 1))]
        for kernel in kind.kernels:
            layers = [*_conv_norm_relu(in_channels, mid, 1), *_conv_norm_relu(mid, out, kernel)]
            branches.append(nn.Sequential(*layers))
        self.convs = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        """B,C,H,W -> B,C',H,W."""
        branches = [list(cast(nn.Sequential, branch)) for branch in self.convs]
        entries = [cast(nn.Conv2d, branch[0]) for branch in branches]
        weight = torch.cat([conv.weight for conv in entries])
        bias = torch.cat([cast(Tensor, conv.bias) for conv in entries])
        first, mids = F.conv2d(x, weight, bias).tensor_split([self.out], dim=1)
        mids = mids.contiguous(memory_format=torch.channels_last)  # BatchNorm is 20 times slower on a part of a tensor
        mids = rectify(self._norm(mids, [branch[1] for branch in branches[1:]]))
        outs = [branch[3](mid) for branch, mid in zip(branches[1:], mids.chunk(len(branches) - 1, dim=1))]
        norms = [branches[0][1], *(branch[4] for branch in branches[1:])]
        return rectify(self._norm(torch.cat([first, *outs], dim=1), norms))

    def _norm(self, x: Tensor, norms: list[nn.Module]) -> Tensor:
        """Several BatchNorm layers over successive groups of channels, computed as one."""
        layers = [cast(nn.BatchNorm2d, norm) for norm in norms]
        means, variances = ([cast(Tensor, getattr(layer, f"running_{k}")) for layer in layers] for k in ("mean", "var"))
        mean, variance = torch.cat(means), torch.cat(variances)
        momentum = cast(float, layers[0].momentum)
        x = F.batch_norm(x, mean, variance, training=self.training, momentum=momentum, eps=layers[0].eps)
        if self.training:
            with torch.no_grad():
                torch._foreach_copy_(means, mean.split([len(m) for m in means]))
                torch._foreach_copy_(variances, variance.split([len(m) for m in means]))
                torch._foreach_add_([cast(Tensor, layer.num_batches_tracked) for layer in layers], 1)
        return x


class Level(nn.Module):
    """One level of the hourglass: a path at full and one at half resolution (with the levels below in it), summed.

    Args:
        in_channels: Channels of the input.
        depth: Row of the table of levels, 0 for the outermost.
        width: Multiplier of the channels.
    """

    def __init__(self, in_channels: int, depth: int, width: float) -> None:
        super().__init__()
        here, before, after, half_first = _LEVELS[depth]
        full, self.out_channels = _chain(in_channels, here, width)
        head, channels = _chain(in_channels, before, width)
        half: list[nn.Module] = [nn.AvgPool2d(2), *head]
        if depth + 1 < len(_LEVELS):
            inner = Level(channels, depth + 1, width)
            half.append(inner)
            channels = inner.out_channels
        half += [*_chain(channels, after, width)[0], nn.UpsamplingBilinear2d(scale_factor=2)]
        paths = [nn.Sequential(*half), nn.Sequential(*full)]
        self.list = nn.ModuleList(paths if half_first else reversed(paths))

    def forward(self, x: Tensor) -> Tensor:
        """B,C,H,W -> B,C',H,W, with H and W even at every level."""
        return self.list[0](x) + self.list[1](x)


def _chain(in_channels: int, kinds: str, width: float) -> tuple[list[nn.Module], int]:
    """A sequence of inception blocks, and the number of its output channels."""
    blocks: list[nn.Module] = []
    for kind in kinds:
        block = Inception(in_channels, KINDS[kind], width)
        blocks.append(block)
        in_channels = block.out_channels
    return blocks, in_channels


class Hourglass(nn.Module):
    """Log-depth and confidence from one RGB frame.

    Args:
        config: Width 1.0 and stem_stride 1 give the published network (5.4 million parameters).
    """

    def __init__(self, config: HourglassConfig) -> None:
        super().__init__()
        self.config = config
        stem = _scaled(_STEM_CHANNELS, config.width)
        body = Level(stem, 0, config.width)
        self.seq = nn.Sequential(
            nn.Conv2d(3, stem, 7, stride=config.stem_stride, padding=3),
            nn.BatchNorm2d(stem),
            nn.ReLU(inplace=True),
            body,
        )
        self.uncertainty_layer = nn.Sequential(nn.Conv2d(body.out_channels, 1, 3, padding=1), nn.Sigmoid())
        self.pred_layer = nn.Conv2d(body.out_channels, 1, 3, padding=1)

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Estimate log-depth and its confidence.

        Args:
            frames: B,3,H,W float RGB in [0, 1]; H and W multiples of 16 x stem_stride.

        Returns:
            Log-depth B,1,h,w float32, up to an unknown additive constant (depth = exp), and confidence B,1,h,w float32
            in [0, 1]; h = H / stem_stride, likewise w.

        Raises:
            ValueError: A side is not such a multiple.
        """
        features = self.features(frames)
        # The heads stay in float32: bfloat16 has 8 bits of mantissa, steps of 0.8% in a log-depth around 2.
        with torch.autocast(frames.device.type, enabled=False):
            features = features.float()
            return self.pred_layer(features), self.uncertainty_layer(features)

    def features(self, frames: Tensor) -> Tensor:
        """B,3,H,W -> B,C,h,w: everything before the two heads."""
        height, width = frames.shape[-2:]
        multiple = self.config.multiple
        if height % multiple or width % multiple:
            raise ValueError(f"the hourglass needs sides that are multiples of {multiple}, not {height}x{width}")
        return self.seq(frames)
