"""Where the time of inference goes, and how far each part is from the arithmetic floor.

    python -m benchmarks.floor
    python -m benchmarks.floor --network lite --slots 6
    python -m benchmarks.floor --objects 5 --precision bf16 --resnet --plain

For one frame with a memory of `--slots` frames: the operations of each part (a multiplication and an addition count as
two), its time, and the time the same operations would take at the rate of one large convolution on the same device,
measured in the same run: the floor. Times are CPU seconds on a CPU (so that other programs count little), wall time on
a GPU; the least of `--repeat`. Weights and frames are random.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from pipeline.core.kernels.onednn import InferenceConv
from pipeline.core.runtime import pick_device
from pipeline.dstm.memory import Memory, read_memory
from pipeline.dstm.network import DSTM, Query
from pipeline.inference.prepared import prepare
from pipeline.settings import load_settings


@dataclass(frozen=True)
class Part:
    """A part of the work on one frame.

    Attributes:
        name: what it is.
        run: does it on the prepared network.
        count: does it on the plain network, whose operations can be counted.
    """

    name: str
    run: Callable[[], object]
    count: Callable[[], object]


def best_time(run: Callable[[], object], device: torch.device, repeat: int) -> float:
    """Least seconds of a call."""
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    times = []
    for _ in range(repeat + 1):
        if device.type == "cuda":
            torch.cuda.synchronize()
        start = clock()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(clock() - start)
    return min(times[1:])


def operations(run: Callable[[], object]) -> float:
    """Multiplications and additions of the convolutions and products in a call."""
    # with gradients every product is torch's own, which is counted
    with torch.inference_mode(False), torch.enable_grad(), FlopCounterMode(display=False) as counter:
        run()
    return float(counter.get_total_flops())


def conv_rate(dtype: torch.dtype, device: torch.device, repeat: int) -> float:
    """Operations a second of a 3x3 convolution of 256 channels at a quarter of 480p."""
    conv = InferenceConv(nn.Conv2d(256, 256, 3, padding=1).to(device), dtype)
    x = torch.randn(1, 256, 120, 216, device=device).to(dtype, memory_format=torch.channels_last)
    return 2 * 256 * 256 * 9 * 120 * 216 / best_time(lambda: conv(x), device, repeat)


def parts_of(
    plain: DSTM, fast: DSTM, height: int, width: int, objects: int, slots: int, device: torch.device
) -> list[Part]:
    """The parts of one frame."""
    frames = torch.rand(1, 3, height, width, device=device).to(memory_format=torch.channels_last)
    depth = torch.rand(1, 1, height, width, device=device) if plain.switches.depth else None
    masks = torch.rand(1, objects + 1, height, width, device=device).softmax(dim=1)
    batch = 1 if device.type == "cpu" else None

    def inputs(network: DSTM) -> tuple[Query, Memory]:
        query = network.encode_query(frames, depth)
        key, value = network.memorize(frames, depth, masks, batch=batch)
        return query, Memory(_bank(key, slots, last=True), _bank(value, slots, last=False))

    (query, memory), (slow_query, slow_memory) = inputs(fast), inputs(plain)

    def read(network: DSTM, of: Query, held: Memory) -> list[Tensor]:
        pairs = zip(held.key[0].split(batch or objects), held.value[0].split(batch or objects))
        scale = network.config.scale_keys
        return [read_memory(of.key.expand(len(key), -1, -1, -1), key, value, scale, 256) for key, value in pairs]

    return [
        Part(
            "query encoder, heads, skips",
            lambda: fast.encode_query(frames, depth),
            lambda: plain.encode_query(frames, depth),
        ),
        Part(
            "memory encoder, heads",
            lambda: fast.memorize(frames, depth, masks, batch=batch),
            lambda: plain.memorize(frames, depth, masks),
        ),
        Part("memory read", lambda: read(fast, query, memory), lambda: read(plain, slow_query, slow_memory)),
        Part(
            "read, decoder, aggregation",
            lambda: fast.segment(query, memory, None, 256, batch).softmax(dim=1),
            lambda: plain.segment(slow_query, slow_memory, None, 256),
        ),
    ]


def _bank(x: Tensor, slots: int, last: bool) -> Tensor:
    """B,K,C,h,w repeated to B,K,C,T,h,w, lying in memory as `pipeline.inference.memory_bank` keeps it."""
    repeated = x[:, :, :, None].expand(-1, -1, -1, slots, -1, -1)
    return repeated.permute(0, 1, 3, 4, 5, 2).contiguous().permute(0, 1, 5, 2, 3, 4) if last else repeated.contiguous()


def main() -> None:
    """Measure and print a table for each precision."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.floor", description="Profile of inference.")
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--width", type=int, default=854)
    parser.add_argument("--objects", type=int, default=1)
    parser.add_argument("--network", choices=("paper", "lite"), default="paper", help="profile of the network")
    parser.add_argument("--slots", type=int, default=10, help="frames in the memory")
    parser.add_argument("--precision", nargs="+", choices=("bf16", "fp32"), default=["bf16", "fp32"])
    parser.add_argument("--resnet", action="store_true", help="ResNet instead of ResNeSt")
    parser.add_argument("--plain", action="store_true", help="neither depth nor ASPP: with --resnet, STM")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    settings, device = load_settings(), pick_device(options.device)
    lite = options.network == "lite"  # trained without depth
    switches = replace(
        settings.model, resnest=not options.resnet, depth=not (options.plain or lite), aspp=not options.plain
    )
    torch.manual_seed(0)
    plain = DSTM(switches, settings.profiles[options.network].network, awaits_weights=True)
    plain = plain.to(device).eval().requires_grad_(False)
    for precision in options.precision:
        fast = prepare(plain, precision)
        with torch.inference_mode():
            rate = conv_rate(torch.bfloat16 if precision == "bf16" else torch.float32, device, options.repeat)
            print(
                f"{precision}, {device}, {torch.get_num_threads()} threads: convolution {rate / 1e9:.0f} G operations/s"
            )
            print(f"{'':<30} {'G operations':>12} {'ms':>7} {'floor ms':>8} {'share of the floor':>18}")
            for part in parts_of(plain, fast, options.height, options.width, options.objects, options.slots, device):
                work, seconds = operations(part.count), best_time(part.run, device, options.repeat)
                floor = work / rate
                figures = f"{work / 1e9:>12.0f} {1e3 * seconds:>7.0f} {1e3 * floor:>8.0f} {floor / seconds:>17.0%}"
                print(f"{part.name:<30} {figures}")


if __name__ == "__main__":
    main()
