"""The space-time memory read against the loops of Eq. (1)-(3)."""

from __future__ import annotations

import math

import pytest
import torch

from pipeline.dstm.memory import read_memory


def naive_read(query_key: torch.Tensor, mem_key: torch.Tensor, mem_value: torch.Tensor, scale: bool) -> torch.Tensor:
    """Pixel by pixel: sum R(k^Q, k^M) v^M / Z, with R = exp(k^Q . k^M) and Z = sum R."""
    n, ck, h, w = query_key.shape
    _, cv, t, _, _ = mem_value.shape
    out = torch.zeros(n, cv, h, w, dtype=torch.float64)
    for i in range(n):
        for y in range(h):
            for x in range(w):
                z, total = 0.0, torch.zeros(cv, dtype=torch.float64)
                for s in range(t):
                    for v in range(h):
                        for u in range(w):
                            dot = float((query_key[i, :, y, x].double() * mem_key[i, :, s, v, u].double()).sum())
                            r = math.exp(dot / math.sqrt(ck) if scale else dot)
                            z += r
                            total += r * mem_value[i, :, s, v, u].double()
                out[i, :, y, x] = total / z
    return out


@pytest.mark.parametrize("scale", [True, False])
@pytest.mark.parametrize("chunk", [None, 1, 4, 100])
def test_read_equals_the_equations(scale: bool, chunk: int | None) -> None:
    generator = torch.Generator().manual_seed(1)
    query_key = torch.randn(2, 3, 2, 3, generator=generator)
    mem_key = torch.randn(2, 3, 2, 2, 3, generator=generator)
    mem_value = torch.randn(2, 5, 2, 2, 3, generator=generator)
    read = read_memory(query_key, mem_key, mem_value, scale, chunk)
    torch.testing.assert_close(read.double(), naive_read(query_key, mem_key, mem_value, scale), atol=1e-5, rtol=1e-5)


def test_a_matching_place_is_copied() -> None:
    """Where one memory key alone matches, its value comes back."""
    mem_key = torch.zeros(1, 4, 1, 2, 2)
    for place in range(4):
        mem_key[0, place, 0, place // 2, place % 2] = 30.0
    query_key = mem_key[:, :, 0].flip(-1)
    mem_value = torch.arange(4.0).view(1, 1, 1, 2, 2)
    torch.testing.assert_close(read_memory(query_key, mem_key, mem_value, False), mem_value[:, :, 0].flip(-1))
