"""Winograd's convolution against the sum that defines it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pipeline.core.kernels import winograd
from pipeline.core.kernels.winograd import LEAST_CHANNELS, WinogradConv, suits


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 3), (7, 10), (33, 18), (64, 5)])
def test_equals_the_direct_sum(height: int, width: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Odd and even sides, several blocks of rows, with and without sum, bias and ReLU."""
    monkeypatch.setattr(winograd, "_ROWS", 4)
    generator = torch.Generator().manual_seed(0)
    for bias in (True, False):
        conv = nn.Conv2d(6, 9, 3, padding=1, bias=bias)
        x = torch.randn(2, 6, height, width, generator=generator).to(memory_format=torch.channels_last)
        add = torch.randn(2, 9, height, width, generator=generator)
        with torch.inference_mode():
            plain = F.conv2d(
                x.double(), conv.weight.double(), None if conv.bias is None else conv.bias.double(), padding=1
            )
            for relu in (False, True):
                fast = WinogradConv(conv, dtype, relu)
                for extra in (None, add):
                    expected = plain if extra is None else plain + extra.double()
                    expected = expected.relu() if relu else expected
                    found = fast(x, None if extra is None else extra.to(dtype))
                    assert found.dtype == dtype and found.is_contiguous(memory_format=torch.channels_last)
                    tolerance = 1e-5 if dtype == torch.float32 else 0.06
                    torch.testing.assert_close(found.double(), expected, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_do_not_change_the_result(threads: int) -> None:
    conv, x = nn.Conv2d(8, 8, 3, padding=1), torch.randn(1, 8, 70, 20)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        with torch.inference_mode():
            torch.testing.assert_close(WinogradConv(conv, torch.float32)(x), conv(x), atol=1e-5, rtol=1e-5)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


def test_what_it_is_taken_for() -> None:
    c = LEAST_CHANNELS
    assert suits(nn.Conv2d(c, c, 3, padding=1), torch.bfloat16)
    for conv in (
        nn.Conv2d(c, c - 1, 3, padding=1),
        nn.Conv2d(c, c, 1),
        nn.Conv2d(c, c, 3, padding=1, stride=2),
        nn.Conv2d(c, c, 3, padding=2, dilation=2),
        nn.Conv2d(c, c, 3, padding=1, groups=2),
    ):
        assert not suits(conv, torch.bfloat16)
    assert not suits(nn.Conv2d(c, c, 3, padding=1), torch.float16)
