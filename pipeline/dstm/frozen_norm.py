"""BatchNorm with fixed statistics and a fixed affine part, multiplied into the convolution before it where possible."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import Conv2dSame, ConvNormAct, SplitAttn
from timm.models._efficientnet_blocks import ConvBnAct, DepthwiseSeparableConv, EdgeResidual, InvertedResidual
from timm.models.resnest import ResNestBottleneck
from timm.models.resnet import BasicBlock, Bottleneck
from torch import Tensor, nn

_RESNET = (("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3"))
# In timm's blocks: a convolution and the normalisation of its output, with nothing in between.
_PAIRS: dict[type[nn.Module], tuple[tuple[str, str], ...]] = {
    BasicBlock: _RESNET,
    Bottleneck: _RESNET,
    ResNestBottleneck: _RESNET,
    SplitAttn: (("conv", "bn0"), ("fc1", "bn1")),
    ConvNormAct: (("conv", "bn"),),
    ConvBnAct: (("conv", "bn1"),),
    DepthwiseSeparableConv: (("conv_dw", "bn1"), ("conv_pw", "bn2")),
    InvertedResidual: (("conv_pw", "bn1"), ("conv_dw", "bn2"), ("conv_pwl", "bn3")),
    EdgeResidual: (("conv_exp", "bn1"), ("conv_pwl", "bn2")),
}


class FrozenNorm(nn.Module):
    """A BatchNorm2d whose statistics and affine part are buffers: nothing of it is trained.

    The output has the type of the input: under autocast, features stay in bfloat16. Names in the state dict are those
    of BatchNorm2d, without its counter.

    Args:
        norm: taken over, with the activation that timm's BatchNormAct2d applies.

    Attributes:
        eps: added to the variance.
        act: the activation, or Identity.
        folded: whether the convolution before it applies scale and shift; only the activation is left then.
    """

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        self.eps = norm.eps
        self.folded = False
        plain = nn.BatchNorm2d(norm.num_features)
        for name in ("weight", "bias", "running_mean", "running_var"):
            value = getattr(norm, name)
            self.register_buffer(name, (getattr(plain, name) if value is None else value).detach().clone())
        self.act: nn.Module = getattr(norm, "act", nn.Identity())
        self.weight: Tensor
        self.bias: Tensor
        self.running_mean: Tensor
        self.running_var: Tensor

    def scale_and_shift(self) -> tuple[Tensor, Tensor]:
        """The normalisation as a factor and a summand for each of C channels."""
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        return scale, self.bias - self.running_mean * scale

    def forward(self, x: Tensor) -> Tensor:
        """Map N,C,H,W to the same shape and type."""
        if not self.folded:
            values = (self.running_mean, self.running_var, self.weight, self.bias)
            x = F.batch_norm(x, *values, training=False, eps=self.eps)
        activated: Tensor = self.act(x)
        return activated

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        state_dict.pop(f"{prefix}num_batches_tracked", None)  # of a BatchNorm that was trained
        super()._load_from_state_dict(state_dict, prefix, *args)


class FoldedConv(nn.Conv2d):
    """A convolution whose weights are multiplied by a frozen normalisation's scale in every call.

    This is the same function of the same trained weights, and their gradient follows. It saves the passes over the
    features that the normalisation would take, forwards and backwards.

    Args:
        conv: its parameters are taken over; zero padding by numbers, or timm's Conv2dSame.
        norm: the normalisation of its output.
    """

    def __init__(self, conv: nn.Conv2d, norm: FrozenNorm) -> None:
        super().__init__(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,  # type: ignore[arg-type]
            conv.stride,  # type: ignore[arg-type]
            same_padding(conv) if isinstance(conv, Conv2dSame) else conv.padding,  # type: ignore[arg-type]
            conv.dilation,  # type: ignore[arg-type]
            conv.groups,
            conv.bias is not None,
            device="meta",
        )
        self.weight, self.bias = conv.weight, conv.bias
        self.larger = isinstance(conv, Conv2dSame)
        self._norm = (norm,)  # in a tuple, so that it stays the block's and keeps its name
        norm.folded = True

    def folded(self) -> tuple[Tensor, Tensor]:
        """Weight and bias with the normalisation multiplied in; the weight for the padding of this module."""
        scale, shift = self._norm[0].scale_and_shift()
        weight = self.weight * scale[:, None, None, None]
        bias = shift if self.bias is None else torch.addcmul(shift, self.bias, scale)
        return (enlarge(weight) if self.larger else weight), bias

    def forward(self, x: Tensor) -> Tensor:
        """Map N,C,H,W to N,C',H',W', normalised."""
        weight, bias = self.folded()
        return F.conv2d(x, weight, bias, self.stride, self.padding, self.dilation, self.groups)


def freeze(module: nn.Module) -> nn.Module:
    """Replace every BatchNorm2d by a `FrozenNorm`, in place; returns the module, or its replacement."""
    if isinstance(module, nn.BatchNorm2d):
        return FrozenNorm(module)
    for name, child in list(module.named_children()):
        setattr(module, name, freeze(child))
    for conv_name, norm_name in conv_norm_pairs(module):
        conv, norm = module._modules[conv_name], module._modules[norm_name]
        if isinstance(norm, FrozenNorm) and isinstance(conv, nn.Conv2d) and can_fold(conv):
            setattr(module, conv_name, FoldedConv(conv, norm))
    return module


def conv_norm_pairs(module: nn.Module) -> list[tuple[str, str]]:
    """Names of a module's children that are a convolution and the normalisation of its output.

    Only what is known is listed: neighbours in a Sequential, and the blocks of timm's ResNet, ResNeSt, EfficientNet and
    MobileNet families. Elsewhere normalisation is computed by itself.
    """
    if type(module) is nn.Sequential:
        return list(pairwise(module._modules))
    return [pair for pair in _PAIRS.get(type(module), ()) if set(pair) <= set(module._modules)]


def can_fold(conv: nn.Conv2d) -> bool:
    """Whether a convolution is one that `FoldedConv` computes."""
    if isinstance(conv, Conv2dSame):
        return conv.stride[0] == 2 and conv.dilation == (1, 1)
    return type(conv) is nn.Conv2d and conv.padding_mode == "zeros"


def same_padding(conv: nn.Conv2d) -> tuple[int, int]:
    """Padding on both sides with which the enlarged kernel computes TensorFlow's "same" convolution of stride 2.

    For even sides it pads k - 2 rows in all: with k odd, (k - 3) / 2 above and (k - 1) / 2 below. A kernel with a row
    of zeros before it, padded by (k - 1) / 2 on both sides, sees the same. Frames are padded to multiples of 16, so
    that sides are even at every stride-2 convolution up to stride 16.
    """
    rows, columns = conv.kernel_size
    return (rows - 1) // 2, (columns - 1) // 2


def enlarge(weight: Tensor) -> Tensor:
    """A kernel O,C,k,k with a row and a column of zeros before its first: O,C,k+1,k+1."""
    return F.pad(weight, (1, 0, 1, 0))
