"""Convolutions and products for inference, on a CPU by oneDNN's own kernels.

torch calls the same library, but reorders the weights in each call, runs ReLU and sums as separate passes, and
multiplies float32 matrices with another library, which is half as fast on some processors. The operators used here are
those that torch.compile's CPU backend calls. If they are missing, or on another device, plain torch computes the same
result.
"""

from __future__ import annotations

import os
import platform
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_HAS_CONV = hasattr(torch.ops.mkldnn, "_convolution_pointwise") and hasattr(
    torch.ops.mkldnn, "_reorder_convolution_weight"
)
_HAS_LINEAR = hasattr(torch.ops.mkldnn, "_linear_pointwise")
_WITHOUT_BF16 = ("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2", "AVX512_CORE", "AVX512_CORE_VNNI")


def _cpu_computes_bf16() -> bool:
    """Whether this CPU multiplies bfloat16 numbers, and oneDNN may use that.

    oneDNN also accepts bfloat16 on a CPU with AVX-512 but without AVX512-BF16, on which it is slower than float32.
    """
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA") or os.environ.get("DNNL_MAX_CPU_ISA") or "ALL"
    supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)()
    if platform.machine().lower() in ("x86_64", "amd64"):
        supported = supported and getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)()
    return bool(supported) and limit.upper() not in _WITHOUT_BF16


_BF16 = _cpu_computes_bf16()
_TYPES = (torch.float32, torch.bfloat16) if _BF16 else (torch.float32,)


def arithmetic(precision: Literal["bf16", "fp32"], device: torch.device) -> torch.dtype:
    """The type to compute in: for `bf16`, float32 if the CPU has no instructions that make bfloat16 fast."""
    return torch.bfloat16 if precision == "bf16" and (_BF16 or device.type != "cpu") else torch.float32


def describe_arithmetic(precision: Literal["bf16", "fp32"], device: torch.device) -> str:
    """The type that `arithmetic` returns, in words for the log."""
    if arithmetic(precision, device) == torch.bfloat16:
        return "bfloat16"
    return "float32" if precision == "fp32" else "float32 (this CPU has no fast bfloat16)"


def product(x: Tensor, weight: Tensor) -> Tensor:
    """The product of x and the transpose of weight.

    Args:
        x: N,m,k.
        weight: N,n,k; fastest if it is contiguous.

    Returns:
        N,m,n.
    """
    plain = torch.is_grad_enabled() or torch.compiler.is_compiling() or x.device.type != "cpu"
    if plain or not _HAS_LINEAR or x.shape[0] != 1 or x.dtype not in _TYPES or not weight.is_contiguous():
        return x @ weight.transpose(1, 2)
    return cast(Tensor, torch.ops.mkldnn._linear_pointwise(x[0], weight[0], None, "none", [], ""))[None]


class InferenceConv(nn.Module):
    """A convolution with fixed weights of one type, optionally followed by a sum and a ReLU.

    Args:
        conv: the convolution whose weights are used, on their device.
        dtype: type of the weights, of the arithmetic and of the output.
        relu: rectify the output.
        limit: with `relu`, the largest value of the output, 6 for ReLU6; None: no limit.
    """

    def __init__(self, conv: nn.Conv2d, dtype: torch.dtype, relu: bool = False, limit: float | None = None) -> None:
        super().__init__()
        if conv.padding_mode != "zeros" or isinstance(conv.padding, str):
            raise ValueError(f"only zero padding given as numbers is supported, not {conv}")
        self.relu = relu
        self.limit = limit
        self.out_channels = conv.out_channels
        memory_format = torch.channels_last
        self.weight: Tensor
        self.bias: Tensor | None
        weight = conv.weight.detach().to(dtype, memory_format=memory_format)
        self.register_buffer("weight", weight, persistent=False)
        bias = None if conv.bias is None else conv.bias.detach().to(dtype)
        self.register_buffer("bias", bias, persistent=False)
        self._options = tuple(list(cast(tuple[int, int], o)) for o in (conv.padding, conv.stride, conv.dilation))
        self._groups = conv.groups
        self._packs = self.weight.device.type == "cpu" and dtype in _TYPES and _HAS_CONV
        self._packed: Tensor | None = None

    def forward(self, x: Tensor, add: Tensor | None = None) -> Tensor:
        """Map N,C,H,W of any float type to N,C',H',W': relu(conv(x) + add), at most `limit`.

        Args:
            x: input, fastest in channels-last layout.
            add: of the output's shape and type.
        """
        x = x.to(self.weight.dtype)
        padding, stride, dilation = self._options
        if not self._packs or (add is not None and (self._groups > 1 or self.limit is not None)):
            x = F.conv2d(x, self.weight, self.bias, stride, padding, dilation, self._groups)
            x = x if add is None else x.add_(add)
            return x.clamp_(0, self.limit) if self.relu else x
        if self._packed is None:  # the best layout depends on the input's size; others work, too
            self._packed = torch.ops.mkldnn._reorder_convolution_weight(
                self.weight, padding, stride, dilation, self._groups, list(x.shape)
            )
        options = (self._packed, self.bias, padding, stride, dilation, self._groups)
        if add is None:
            after, values = ("relu" if self.relu else "none"), list[float]()
            if self.relu and self.limit is not None:
                after, values = "hardtanh", [0.0, self.limit]
            return cast(Tensor, torch.ops.mkldnn._convolution_pointwise(x, *options, after, values, ""))
        options_after: tuple[object, ...] = ("add", 1.0, "relu" if self.relu else None, [], None)
        return cast(Tensor, torch.ops.mkldnn._convolution_pointwise.binary(x, add, *options, *options_after))
