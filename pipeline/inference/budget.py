"""Choose how much is computed at a time, and how many frames the memory keeps, to stay within a memory budget."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

import torch

from pipeline.core.errors import UserError
from pipeline.core.kernels.onednn import arithmetic
from pipeline.dstm.network import DSTM
from pipeline.inference.config import InferConfig

_PLANES = 9  # float32 planes of full size needed per object and view while masks are computed
_SMALLEST_CHUNK = 16
_CPU_FEATURE = 2**24  # on a CPU, frames are encoded together if the largest feature has at most this many bytes
_FREE_SHARE = 0.8  # of the free memory
_MEMORY_SHARE = 0.75  # for the network's memory, of what remains after the minimum
_MEMINFO = Path("/proc/meminfo")
_CGROUPS = (  # versions 2 and 1
    (Path("/sys/fs/cgroup"), "memory.max", "memory.current"),
    (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes", "memory.usage_in_bytes"),
)


@dataclass(frozen=True)
class Work:
    """Size of a video's work.

    Attributes:
        height: rows of its frames.
        width: columns of its frames.
        objects: number of objects.
        scales: factors on the sides at which it is segmented.
        views: 2 if every scale is also mirrored, otherwise 1.
    """

    height: int
    width: int
    objects: int
    scales: tuple[float, ...]
    views: int


@dataclass(frozen=True)
class Plan:
    """How a video is segmented; only `slots` changes the result; the others change it only by rounding.

    Attributes:
        lookahead: frames whose queries are encoded together.
        batch: objects that pass through the network together.
        slots: largest number of frames in the memory.
        rows: number of query pixels whose affinity to one frame of the memory fits in its part of the budget.
    """

    lookahead: int
    batch: int
    slots: int
    rows: float

    def chunk(self, max_queries: int, slots: int) -> int:
        """Number of query pixels that read a memory of `slots` frames at a time, at most `max_queries`."""
        return min(max_queries, max(_SMALLEST_CHUNK, int(self.rows / slots)))


def make_plan(network: DSTM, config: InferConfig, work: Work, device: torch.device, share: float = 1.0) -> Plan:
    """Divide the budget `infer.memory_gb`.

    The minimum comes first: full-size masks, one pass of one object, two frames in the memory. Most of the rest goes to
    more frames in the memory, up to `memory_frames`, and what remains to more frames and objects at a time and to
    larger chunks. On a CPU objects are processed one at a time, and frames together only if they are small. That is
    fastest there, because larger features neither fit in the caches nor in memory that is reused.

    Args:
        network: its widths are used.
        config: the budget, the precision and the upper limits.
        work: the video.
        device: of the network.
        share: of the budget, for this video.

    Raises:
        UserError: the budget is too small for the first and the previous frame.
    """
    size = arithmetic(config.precision, device).itemsize
    pixels = [work.views * work.height * work.width * scale**2 for scale in work.scales]
    largest = max(pixels)
    stage4, _, _ = network.query_encoder.backbone.channels
    wide = max(stage4, network.config.decoder_channels)
    one_pass = largest * size * (6 * wide / 16 + network.query_encoder.backbone.stem_channels / 2)  # features in flight
    heads = (network.config.key_channels + network.config.value_channels) / network.config.stride**2
    # memory of a waiting frame: its features, and its four planes
    query = sum(pixels) * (size * (wide / 16 + wide / 64 + heads) + 16)
    masks = 4 * _PLANES * (work.objects + 1) * (sum(pixels) + work.height * work.width)
    places = largest / work.views / network.config.stride**2
    values = network.config.key_channels + network.config.value_channels + 2 * network.config.value_mask
    slot = work.objects * values * size * sum(pixels) / network.config.stride**2
    row = work.views * (4 + size)  # bytes of the affinity for one query pixel and one memory pixel

    budget = share * (config.memory_gb * 2**30 or _FREE_SHARE * free_memory(device))
    growth = 1 + network.config.value_channels / values  # while a block grows, it exists twice
    minimum = masks + one_pass + query + 2 * growth * slot + _SMALLEST_CHUNK * row * 2 * places
    if budget < minimum:
        raise UserError(
            f"{work.objects} objects at {work.width}x{work.height} need {minimum / 2**30:.1f} GB, and there are "
            f"{budget / 2**30:.1f} (infer.memory_gb); raise it, or use smaller frames or fewer objects"
        )
    slots = 2 + int(_MEMORY_SHARE * (budget - minimum) / (growth * slot))
    if config.memory_frames:
        slots = min(slots, config.memory_frames)
    spare = budget - minimum - (slots - 2) * growth * slot
    lookahead = min(config.lookahead, 1 + int(spare / 3 / (one_pass / 2 + query)))
    if device.type == "cpu":
        lookahead = min(lookahead, max(1, int(_CPU_FEATURE / (largest * size * wide / 16))))
    passes = work.objects * work.views  # mirrored views pass together with the others
    batch = 1 if device.type == "cpu" else min(passes, work.views + int(work.views * spare / 3 / one_pass))
    rows = 2 * _SMALLEST_CHUNK + spare / 3 / (max(1, batch / work.views) * row * places)
    return Plan(lookahead, batch, slots, rows)


def free_memory(device: torch.device) -> float:
    """Free memory of a device in bytes, including what torch has reserved but does not use."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return float(torch.cuda.mem_get_info(device)[0] + unused)
    if not _MEMINFO.is_file():  # not Linux: half of the machine's memory
        return 0.5 * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    found = re.search(r"^MemAvailable:\s+(\d+) kB$", _MEMINFO.read_text(), re.MULTILINE)
    available = 1024.0 * int(found[1]) if found else 0.0
    for group, limit, used in _CGROUPS:  # a container may have less than the machine
        if (group / limit).is_file() and (allowed := (group / limit).read_text().strip()) != "max":
            files = re.search(r"^(?:total_)?inactive_file (\d+)$", (group / "memory.stat").read_text(), re.MULTILINE)
            held = float((group / used).read_text()) - (
                float(files[1]) if files else 0.0
            )  # cached files can be dropped
            available = min(available, float(allowed) - held)
    return max(0.0, available)
