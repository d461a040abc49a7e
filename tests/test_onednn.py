"""Convolutions and products for inference against torch's own."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pipeline.core.kernels import onednn
from pipeline.core.kernels.onednn import InferenceConv, product

SHAPES = [
    nn.Conv2d(16, 8, 3, padding=1),
    nn.Conv2d(16, 8, 1),
    nn.Conv2d(1, 8, 7, stride=2, padding=3, bias=False),
    nn.Conv2d(16, 8, 3, padding=2, dilation=2, groups=2),
]


@pytest.mark.parametrize("packs", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("conv", SHAPES, ids=["3x3", "1x1", "stem", "grouped"])
def test_convolution_sum_and_relu(
    conv: nn.Conv2d, dtype: torch.dtype, packs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onednn, "_HAS_CONV", packs and onednn._HAS_CONV)
    generator = torch.Generator().manual_seed(0)
    tolerance = {"atol": 1e-5, "rtol": 1e-5} if dtype == torch.float32 else {"atol": 0.03, "rtol": 0.02}
    for height in (20, 13):  # a second size meets weights that were laid out for the first
        x = torch.randn(2, conv.in_channels, height, 24, generator=generator)
        x = x.to(memory_format=torch.channels_last)
        with torch.inference_mode():
            plain = conv(x)
            add = torch.randn(plain.shape, generator=generator).to(memory_format=torch.channels_last)
            for relu in (False, True):
                fast = InferenceConv(conv, dtype, relu)
                for extra in (None, add):
                    expected = plain if extra is None else plain + extra
                    expected = expected.relu() if relu else expected
                    found = fast(x, None if extra is None else extra.to(dtype))
                    assert found.dtype == dtype
                    torch.testing.assert_close(found.float(), expected, **tolerance)  # type: ignore[arg-type]


def test_the_input_and_the_summand_are_left_as_they_are() -> None:
    x, add = torch.randn(1, 16, 8, 8), torch.randn(1, 8, 8, 8)
    before = x.clone(), add.clone()
    with torch.inference_mode():
        InferenceConv(SHAPES[0], torch.float32, relu=True)(x, add)
    torch.testing.assert_close((x, add), before, rtol=0, atol=0)


def test_padding_that_is_no_number_is_refused() -> None:
    for conv in (nn.Conv2d(1, 1, 3, padding="same"), nn.Conv2d(1, 1, 3, padding=1, padding_mode="reflect")):
        with pytest.raises(ValueError, match="zero padding"):
            InferenceConv(conv, torch.float32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("n", [1, 3])
def test_product(n: int, dtype: torch.dtype) -> None:
    x, weight = torch.randn(n, 5, 16), torch.randn(n, 16, 9)
    expected = torch.stack([F.linear(a, b.t()) for a, b in zip(x.double(), weight.double())]).float()
    tolerance = {"atol": 1e-5, "rtol": 1e-5} if dtype == torch.float32 else {"atol": 0.1, "rtol": 0.02}
    for layout in (weight.transpose(1, 2), weight.transpose(1, 2).contiguous()):
        with torch.inference_mode():
            found = product(x.to(dtype), layout.to(dtype))
        torch.testing.assert_close(found.float(), expected, **tolerance)  # type: ignore[arg-type]
    weight.requires_grad_()
    product(x, weight.transpose(1, 2)).sum().backward()
    assert weight.grad is not None


@pytest.mark.parametrize("fast", [True, False])
def test_the_type_that_is_computed(fast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onednn, "_BF16", fast)
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert onednn.arithmetic("bf16", cpu) == (torch.bfloat16 if fast else torch.float32)
    assert onednn.arithmetic("bf16", cuda) == torch.bfloat16
    assert onednn.arithmetic("fp32", cpu) == onednn.arithmetic("fp32", cuda) == torch.float32
    assert onednn.describe_arithmetic("fp32", cpu) == "float32"
    assert onednn.describe_arithmetic("bf16", cpu).startswith("bfloat16" if fast else "float32 (")


@pytest.mark.parametrize(
    ("accepted", "instructions", "limit", "expected"),
    [
        (True, True, None, True),  # AVX512-BF16
        (True, False, None, False),  # AVX-512 alone: accepted but slow
        (False, False, None, False),  # AVX2
        (True, True, "AVX2", False),  # limited, as in an emulation of older CPUs
        (True, True, "avx512_core", False),
        (True, True, "AVX512_CORE_BF16", True),
        (True, True, "ALL", True),
    ],
)
def test_bfloat16_needs_instructions_that_onednn_may_use(
    accepted: bool, instructions: bool, limit: str | None, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: accepted)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: instructions)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.delenv("DNNL_MAX_CPU_ISA", raising=False)
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    if limit:
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    assert onednn._cpu_computes_bf16() is expected


@pytest.mark.parametrize("packs", [True, False])
def test_a_limit_of_the_relu(packs: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onednn, "_HAS_CONV", packs and onednn._HAS_CONV)
    x = 20 * torch.randn(1, 16, 9, 12, generator=torch.Generator().manual_seed(0))
    add = torch.randn(1, 8, 9, 12)
    with torch.inference_mode():
        conv = InferenceConv(SHAPES[0], torch.float32, relu=True, limit=6.0)
        plain = SHAPES[0](x)
        assert (plain > 6).any() and (plain < 0).any()
        torch.testing.assert_close(conv(x), plain.clamp(0, 6), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(conv(x, add), (plain + add).clamp(0, 6), atol=1e-5, rtol=1e-5)
