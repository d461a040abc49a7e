"""The space-time memory and its read, Eq. (1)-(3)."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.core.kernels.onednn import product


class Memory(NamedTuple):
    """Keys and values of T frames for K objects.

    Attributes:
        key: B,K,Ck,T,h,w.
        value: B,K,Cv,T,h,w.
    """

    key: Tensor
    value: Tensor


def stack_slots(slots: list[tuple[Tensor, Tensor]]) -> Memory:
    """Stack slots of (key B,K,Ck,h,w, value B,K,Cv,h,w) along time."""
    return Memory(torch.stack([k for k, _ in slots], dim=3), torch.stack([v for _, v in slots], dim=3))


def read_memory(query_key: Tensor, mem_key: Tensor, mem_value: Tensor, scale: bool, chunk: int | None = None) -> Tensor:
    """Read the memory at every place of the query: the sum in Eq. (1), normalised by Z of Eq. (2).

    R = exp(k^Q . k^M), Eq. (3), divided by Z over all T·h·w memory places is a softmax over k^Q . k^M.

    Args:
        query_key: N,Ck,h,w.
        mem_key: N,Ck,T,h,w.
        mem_value: N,Cv,T,h,w.
        scale: divide k^Q . k^M by sqrt(Ck), as STM's released model does.
        chunk: number of query places read at a time, which bounds the affinity matrix; all at once if None.

    Returns:
        N,Cv,h,w.
    """
    n, ck, h, w = query_key.shape
    cv = mem_value.shape[1]
    keys = mem_key.flatten(2).transpose(1, 2)  # N,T·h·w,Ck
    values = mem_value.flatten(2)  # N,Cv,T·h·w
    queries = query_key.flatten(2).transpose(1, 2)  # N,h·w,Ck
    if scale:
        queries = queries / math.sqrt(ck)
    if torch.is_autocast_enabled(query_key.device.type):  # rounded logits would shift the weights of far-away matches
        queries, keys = queries.float(), keys.float()
    parts = []
    for start in range(0, h * w, chunk or h * w):
        with torch.autocast(query_key.device.type, enabled=False):
            affinity = product(queries[:, start : start + (chunk or h * w)], keys)  # N,chunk,T·h·w
        parts.append(product(affinity.softmax(dim=-1).to(values.dtype), values))
    read = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
    return read.transpose(1, 2).reshape(n, cv, h, w)
