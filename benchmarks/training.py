"""Speed of a training step, compared with the public reproduction of STM's training, and of loading clips.

    python -m benchmarks.training                                            # only ours
    python -m benchmarks.training --reference Training-Code-of-STM           # a checkout of haochenheheda's repository
    python -m benchmarks.training --batch 12 --objects 3 --device cuda --profile paper
    python -m benchmarks.training --count --batch 12
    python -m benchmarks.training --loading

A step is forward, backward and update of STM's network (ResNet-50, no depth, no ASPP, frozen BatchNorm): three frames
of 384 x 384, the same clips and objects for both, cross-entropy alone. Theirs handles one clip at a time, so with
--batch it adds up gradients over the clips, as its training script does. The weights of both are the same: random ones,
with small residual branches so that features neither vanish nor explode. With --profile the network is that of a
profile instead, and theirs is not run. Each way runs in a process of its own, so that its peak memory is its own; on a
busy machine the CPU seconds are more reliable than the others. Loading draws clips as the paper profile's main training
does, from drawn videos of 480 x 854 with depth, in one process on one thread.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import resource
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.inference import draw
from pipeline.core.archives import ShardWriter, ZipWriter
from pipeline.core.images import encode_depth, encode_mask
from pipeline.core.processes import Processes
from pipeline.core.runtime import pick_device
from pipeline.datasets.clips import Batch, ClipDataset, ClipSource, collate
from pipeline.datasets.davis import open_davis
from pipeline.datasets.depth_input import open_depth_input
from pipeline.dstm.network import DSTM
from pipeline.pretrained.stm import NETWORK, SWITCHES, read_published
from pipeline.settings import load_settings
from pipeline.training.config import LossSwitches
from pipeline.training.losses import Objective
from pipeline.training.precision import training_dtype
from pipeline.training.state import make_state
from pipeline.training.step import TrainingStep, one_hot

T = TypeVar("T")

FRAMES = 3


@dataclass(frozen=True)
class Setting:
    """What is measured.

    Attributes:
        way: `theirs` or `ours`.
        precision: `fp32` or `bf16`.
        profile: of params.yaml, whose network is used; empty: STM's.
        reference: checkout of the public reproduction.
        weights: file of the common weights, written by theirs.
        batch: clips per step.
        objects: in each clip.
        side: of the frames.
        steps: that are timed.
        device: `cpu` or `cuda`.
        compiled: compile both backbones and the decoder.
    """

    way: str
    precision: str
    profile: str
    reference: str
    weights: str
    batch: int
    objects: int
    side: int
    steps: int
    device: str
    compiled: bool


def make_batch(setting: Setting) -> Batch:
    """Discs that move over noise; the same for every way."""
    rng = np.random.default_rng(0)
    side, k = setting.side, setting.objects
    frames = np.repeat(rng.integers(0, 256, (setting.batch, 1, 3, side, side), np.uint8), FRAMES, 1)
    labels = np.zeros((setting.batch, FRAMES, side, side), np.uint8)
    rows, columns = np.mgrid[:side, :side]
    for b in range(setting.batch):
        for t in range(FRAMES):
            for i in range(k):
                at_row, at_column = side * (i + 1) / (k + 1), side * (0.3 + 0.1 * t + 0.05 * b % 0.3)
                disc = (rows - at_row) ** 2 + (columns - at_column) ** 2 < (side / (3 * k + 3)) ** 2
                labels[b, t][disc] = i + 1
                frames[b, t][:, disc] = np.array([60 * i + 40, 200 - 50 * i, 120], np.uint8)[:, None]
    depth = torch.full((setting.batch, FRAMES, 1, side, side), 0.5)
    objects = torch.ones(setting.batch, k, dtype=torch.bool)
    return Batch(torch.from_numpy(frames), depth, torch.from_numpy(labels), objects)


def calm(network: nn.Module) -> None:
    """Shrink each residual branch of random weights: frozen BatchNorm does not normalise them."""
    for module in network.modules():
        if hasattr(module, "bn3") and hasattr(module.bn3, "weight"):
            module.bn3.weight.data.fill_(0.2)


def load_reference(checkout: Path) -> Any:
    """The model module of the reproduction, with its unused imports replaced and without its download of weights."""
    for name in ("matplotlib", "matplotlib.pyplot", "resnest", "resnest.torch"):
        sys.modules.setdefault(name, types.ModuleType(name))
    sys.modules["resnest.torch"].resnest101 = None  # type: ignore[attr-defined]
    from torchvision import models

    original = models.resnet50
    models.resnet50 = lambda **_: original(weights=None)
    sys.path.insert(0, str(checkout))
    from model.model import STM  # type: ignore[import-not-found]

    torch.manual_seed(0)
    network = STM("resnet50")
    calm(network)
    network.train()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    return network


def their_step(network: Any, setting: Setting, device: torch.device) -> Callable[[Batch], float]:
    """One step as in its `train_davis.py`: clip after clip, in fp32, frame 2 memorized without gradient."""
    network.to(device)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-5, eps=1e-8, betas=(0.9, 0.999))
    criterion = nn.CrossEntropyLoss()

    def step(batch: Batch) -> float:
        total = 0.0
        for clip in batch.parts(1):
            number = torch.tensor([[setting.objects]])
            frames, labels = clip.frames, clip.labels
            masks = one_hot(labels[:, 0], setting.objects + 1)
            key, value = network(frames[:, 0], masks, number)
            second = network(frames[:, 1], key, value, number)
            key2, value2 = network(frames[:, 1], F.softmax(second, dim=1).detach(), number)
            third = network(frames[:, 2], torch.cat([key, key2], dim=3), torch.cat([value, value2], dim=3), number)
            loss = criterion(second, labels[:, 1]) + criterion(third, labels[:, 2])
            loss.backward()
            total += float(loss.detach().cpu()) / (FRAMES - 1) / len(batch.objects)
        optimizer.step()
        optimizer.zero_grad()
        return total

    return step


def our_network(setting: Setting, device: torch.device) -> DSTM:
    """STM's network with the common weights, or a profile's."""
    torch.manual_seed(0)
    if setting.profile:
        settings = load_settings()
        network = DSTM(settings.model, settings.profiles[setting.profile].network, awaits_weights=True)
        calm(network)
    elif setting.weights:
        network = read_published(Path(setting.weights))
    else:
        network = DSTM(SWITCHES, NETWORK, awaits_weights=True)
        calm(network)
    if setting.compiled:
        for part in (network.query_encoder.backbone, network.memory_encoder.backbone, network.decoder):
            part.compile()
    return network.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]


def our_step(network: DSTM, setting: Setting, device: torch.device) -> Callable[[Batch], float]:
    """One step as in `training/loop.py`, with cross-entropy alone."""
    config = load_settings().profiles["paper"].train
    config = replace(config, precision=setting.precision, batch=setting.batch)  # type: ignore[arg-type]
    dtype = training_dtype(config.precision, device)
    state = make_state(network, config, device, dtype)
    objective = Objective(LossSwitches(lovasz=False), config)
    step = TrainingStep(network, state, objective, config, 0, dtype, Processes(0, 1))

    def run(batch: Batch) -> float:
        reading = step(batch, config.lr, True, False)
        assert reading is not None
        return reading.losses["loss"]

    return run


def measure(setting: Setting) -> dict[str, Any]:
    """Time one way; called in a process of its own."""
    device = pick_device(setting.device)
    if setting.way == "theirs":
        network = load_reference(Path(setting.reference))
        torch.save(network.state_dict(), setting.weights)
        step = their_step(network, setting, device)
        parameters = sum(p.numel() for p in network.parameters())
    else:
        ours = our_network(setting, device)
        step = our_step(ours, setting, device)
        parameters = sum(p.numel() for p in ours.parameters())
    batch = make_batch(setting)
    first = step(batch.to(device))  # also warms up
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        torch.cuda.synchronize()
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(setting.steps):
        step(batch.to(device))
    if device.type == "cuda":
        torch.cuda.synchronize()
    seconds, cpu_seconds = time.perf_counter() - wall, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated() / 2**30
    return {
        "way": setting.way,
        "precision": setting.precision,
        "compiled": setting.compiled,
        "profile": setting.profile or "stm",
        "arithmetic": "float32" if setting.way == "theirs" else str(_dtype(setting, device)).removeprefix("torch."),
        "batch": setting.batch,
        "objects": setting.objects,
        "side": setting.side,
        "parameters": int(parameters),
        "first_loss": first,
        "seconds_per_step": seconds / setting.steps,
        "cpu_seconds_per_step": cpu_seconds / setting.steps,
        "peak_gib": peak,
    }


def _dtype(setting: Setting, device: torch.device) -> torch.dtype:
    return training_dtype(setting.precision, device)  # type: ignore[arg-type]


def apart(work: Callable[..., T], *arguments: Any) -> T:
    """The result of a function in a process of its own.

    Raises:
        RuntimeError: it failed; its traceback is on stderr.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def count(profile: str, batch: int, objects: int, side: int) -> dict[str, Any]:
    """Operations and memory of one step, counted without computing anything, so also for a GPU that is not there.

    Args:
        profile: of params.yaml, whose network is counted.
        batch: clips of the step.
        objects: in each clip.
        side: of the frames.

    Returns:
        Floating-point operations of forward and backward in 10^12; GiB that backward needs of forward in float32 and
        in bfloat16; GiB of weights, gradients and averages of Adam. Cross-entropy alone, since the Lovász loss has no
        products.
    """
    settings = load_settings()
    used = torch.ones(batch, objects, dtype=torch.bool)
    row: dict[str, Any] = {"profile": profile, "batch": batch, "objects": objects}
    network = DSTM(settings.model, settings.profiles[profile].network, awaits_weights=True).train()
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        _empty(network, mode)
        row["state_gib"] = 4 * sum(p.numel() * p.element_size() for p in network.parameters()) / 2**30
        for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
            saved, operations = _passes(network, used, side, dtype)
            row |= {f"saved_gib_{name}": saved / 2**30, "teraoperations": operations / 1e12}
    return row


def _empty(network: DSTM, mode: FakeTensorMode) -> None:
    """Replace all weights by tensors without content."""
    for module in network.modules():
        for name, p in list(module._parameters.items()):
            if p is not None:
                module._parameters[name] = nn.Parameter(mode.from_tensor(p.detach()), p.requires_grad)
        for name, buffer in list(module._buffers.items()):
            if buffer is not None:
                module._buffers[name] = mode.from_tensor(buffer)


def _passes(network: DSTM, used: Tensor, side: int, dtype: torch.dtype) -> tuple[int, int]:
    """Bytes that forward leaves for backward, and operations of both."""
    batch, objects = used.shape
    frames = torch.empty(batch, FRAMES, 3, side, side)
    depth = torch.empty(batch, FRAMES, 1, side, side)
    masks = torch.empty(batch, objects + 1, side, side)
    labels = torch.empty(batch * (FRAMES - 1), side, side, dtype=torch.int64)
    kept: dict[int, Tensor] = {}

    def keep(x: Tensor) -> Tensor:
        kept[x.untyped_storage()._cdata] = x
        return x

    with FlopCounterMode(display=False) as counter:
        with (
            torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x),
            torch.autocast("cpu", dtype, enabled=dtype != torch.float32),
        ):
            logits = network(frames, depth, masks, used).logits.flatten(0, 1)
            loss = F.cross_entropy(logits.float(), labels)
        loss.backward()
    own = {p.untyped_storage()._cdata for p in network.parameters()}
    return sum(x.untyped_storage().nbytes() for key, x in kept.items() if key not in own), counter.get_total_flops()


def write_videos(folder: Path, count: int, height: int, width: int) -> None:
    """A DAVIS archive of drawn videos, and depth maps as the depth stage writes them."""
    ramp = np.tile(np.linspace(0, 1, width, dtype=np.float32), (height, 1))
    (folder / "frames").mkdir(parents=True)
    with (
        ZipWriter(folder / "raw" / "DAVIS-2017-trainval-480p.zip") as archive,
        ShardWriter(folder / "depth", 1 << 30) as maps,
    ):
        names = [f"video{v}" for v in range(count)]
        for split in ("2017/train", "2017/val", "2016/val"):
            archive.write(f"DAVIS/ImageSets/{split}.txt", "".join(f"{name}\n" for name in names).encode())
        for name in names:
            mask = draw(folder / "frames", 8, height, width, 3)
            depths = []
            for t in range(8):
                frame = (folder / "frames" / f"{t:05d}.jpg").read_bytes()
                archive.write(f"DAVIS/JPEGImages/480p/{name}/{t:05d}.jpg", frame)
                archive.write(f"DAVIS/Annotations/480p/{name}/{t:05d}.png", encode_mask(mask))
                noise = np.random.default_rng(t).normal(0, 0.01, ramp.shape).astype(np.float32)
                depths.append((f"{name}/{t:05d}.png", encode_depth((ramp + noise).clip(0, 1))))
            maps.write_group(depths)


def measure_loading(clips: int, height: int, width: int) -> dict[str, Any]:
    """Clips per second of one core, for the paper profile's main training."""
    import cv2

    cv2.setNumThreads(0)
    config = load_settings().profiles["paper"].train.clips
    if min(height, width) < config.augment.crop:
        config = replace(config, augment=replace(config.augment, crop=min(height, width) // 2))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_videos(folder, 4, height, width)
        videos = open_davis(folder / "raw", "train")
        depth = open_depth_input(folder / "depth", "estimated", videos.videos)
        rates = {}
        for kind, maps in (("with_depth", depth), ("without_depth", None)):
            dataset = ClipDataset([ClipSource(videos, maps, None, skips=True)], config)
            dataset.sample(np.random.default_rng(0), 0)
            start = time.process_time()
            drawn = [dataset.sample(np.random.default_rng(seed), 2) for seed in range(clips)]
            collate(drawn, config.max_objects)
            rates[kind] = clips / (time.process_time() - start)
    return {"clips_per_core_second": rates, "height": height, "width": width, "crop": config.augment.crop}


def describe() -> dict[str, str]:
    """The machine and the versions."""
    processor = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), processor)
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    return {
        "cpu": processor,
        "threads": str(torch.get_num_threads()),
        "gpu": gpu,
        "torch": torch.__version__,
        "commit": commit,
    }


def main() -> None:
    """Measure what the command line asks for; one JSON line per row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", default="", help="checkout of haochenheheda/Training-Code-of-STM")
    parser.add_argument("--profile", default="", help="the network of this profile instead of STM's")
    parser.add_argument("--precision", nargs="+", choices=("fp32", "bf16"), default=["fp32", "bf16"])
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--objects", type=int, default=2)
    parser.add_argument("--side", type=int, default=384)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--compile", action="store_true", help="also with the backbones and the decoder compiled")
    parser.add_argument("--count", action="store_true", help="only count operations and memory")
    parser.add_argument("--loading", action="store_true", help="only clips per second of one core")
    parser.add_argument("--clips", type=int, default=24, help="that --loading draws")
    parser.add_argument("--height", type=int, default=480, help="of the videos of --loading")
    parser.add_argument("--width", type=int, default=854)
    options = parser.parse_args()
    print(json.dumps(describe()), flush=True)
    if options.count:
        for batch in sorted({options.batch, max(1, options.batch // 4)}):
            row = count(options.profile or "paper", batch, options.objects, options.side)
            print(json.dumps(row), flush=True)
        return
    if options.loading:
        print(json.dumps(measure_loading(options.clips, options.height, options.width)), flush=True)
        return
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        reference = "" if options.profile else options.reference
        weights = str(Path(folder) / "weights.pth") if reference else ""
        ways = [("theirs", "fp32", False)] if reference else []
        ways += [("ours", precision, False) for precision in options.precision]
        ways += [("ours", precision, True) for precision in options.precision if options.compile]
        for way, precision, compiled in ways:
            setting = Setting(
                way, precision, options.profile, reference, weights, options.batch, options.objects, options.side,
                options.steps, options.device, compiled,
            )  # fmt: skip
            rows.append(apart(measure, setting))
            if way == "ours" and rows[0]["way"] == "theirs":
                seconds = "seconds_per_step" if options.device == "cuda" else "cpu_seconds_per_step"
                rows[-1]["times_as_fast"] = rows[0][seconds] / rows[-1][seconds]
                rows[-1]["first_loss_differs"] = abs(rows[0]["first_loss"] - rows[-1]["first_loss"])
            print(json.dumps(rows[-1]), flush=True)


if __name__ == "__main__":
    main()
