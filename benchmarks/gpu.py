"""What `benchmarks/gpu.sh` runs: training steps, inference, depth, loading, and agreement of CPU and GPU, in one JSON.

Each measurement runs in a process of its own. Those that would start after `--minutes` are left out and listed under
`left_out`. At the end the file is checked: every figure is a positive number, CPU and GPU agree, losses of both
training codes agree. The exit code is 1 if a check fails.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks import depth, inference
from benchmarks import training as steps
from pipeline.core.runtime import pick_device
from pipeline.dstm.network import DSTM
from pipeline.footage.footage import open_footage
from pipeline.hourglass.checkpoint import PUBLISHED
from pipeline.hourglass.estimator import DepthEstimator
from pipeline.hourglass.network import Hourglass
from pipeline.settings import load_settings
from pipeline.training.step import one_hot

AGREE = {"logits": 2e-2, "masks": 0.999, "loss": 1e-3}
"""Largest difference of logits, smallest share of equal pixels, and largest difference of losses, in fp32."""


@dataclass(frozen=True)
class Scale:
    """How large everything is.

    Attributes:
        batch: clips of a training step.
        side: of their frames.
        timed: training steps that are timed.
        height: of the videos of inference.
        width: of them.
        frames: in them.
        objects: numbers of objects.
        depth_frames: frames whose depth is estimated.
        clips: that are loaded.
    """

    batch: int
    side: int
    timed: int
    height: int
    width: int
    frames: int
    objects: tuple[int, ...]
    depth_frames: int
    clips: int


FULL = Scale(12, 384, 5, 480, 854, 40, (1, 2, 5, 10), 64, 24)
TOY = Scale(2, 32, 1, 48, 64, 3, (1,), 2, 2)


def agreement(side: int, device_name: str) -> dict[str, float]:
    """Differences between the CPU and the device for one clip of the paper profile's network, in fp32."""
    setting = steps.Setting("ours", "fp32", "paper", "", "", 1, 2, side, 1, "cpu", False)
    device, cpu = pick_device(device_name), torch.device("cpu")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    network: DSTM = steps.our_network(setting, cpu).eval()
    outcomes = []
    for place in (cpu, device):
        batch = steps.make_batch(setting).to(place)
        network.to(place)
        with torch.no_grad():
            masks = one_hot(batch.labels[:, 0], 3)
            outcomes.append(network(batch.frames, batch.depth, masks, batch.objects).logits.cpu())
    one, other = outcomes
    return {
        "logits_differ_at_most": float((one - other).abs().max()),
        "equal_pixels": float((one.argmax(2) == other.argmax(2)).double().mean()),
    }


def inference_speed(scale: Scale, objects: int, tta: bool, device: str) -> dict[str, float]:
    """Frames per second and peak memory of the paper profile's network, from decoding to PNG."""
    setting = inference.Setting("paper", "bf16", tta, True, device, None, None, False, False)
    with tempfile.TemporaryDirectory() as name:
        mask = inference.draw(Path(name), scale.frames, scale.height, scale.width, objects)
        footage = inference.FirstFrames(open_footage(name), scale.frames)
        rate, cpu, peak = inference.measure(setting, footage, mask)
    return {"frames_per_second": rate, "cpu_seconds_per_frame": cpu, "peak_gib": peak}


def depth_speed(frames: int, device_name: str) -> dict[str, float]:
    """Frames per second of the published depth network on frames of 480 x 854, without files."""
    device = pick_device(device_name)
    torch.manual_seed(0)
    network = Hourglass(PUBLISHED)
    pictures = [depth.decode_rgb(data, "frame") for data in depth.draw_frames(frames)]
    rates = {}
    for precision in ("fp32", "bf16"):
        estimator = DepthEstimator(network, device, precision)  # type: ignore[arg-type]
        estimator.log_depth(pictures[: depth.BATCH])
        start = time.perf_counter()
        for first in range(0, frames, depth.BATCH):
            estimator.log_depth(pictures[first : first + depth.BATCH])
        rates[f"{precision}_frames_per_second"] = frames / (time.perf_counter() - start)
    return rates


class Results:
    """The JSON, written after each measurement.

    Args:
        path: the file.
        minutes: after which no further measurement starts.
    """

    def __init__(self, path: Path, minutes: float) -> None:
        self.content: dict[str, Any] = {"left_out": []}
        self._path, self._end = path, time.monotonic() + 60 * minutes

    def add(self, name: str, work: Callable[..., Any], *arguments: Any) -> None:
        """Measure in a process of its own; a measurement that fails is noted with its error and fails the check."""
        if time.monotonic() > self._end:
            self.content["left_out"].append(name)
            return
        start = time.monotonic()
        try:
            self.content[name] = steps.apart(work, *arguments)
        except Exception as error:
            self.content[name] = {"failed": f"{type(error).__name__}: {error}"[:500]}
        print(f"{name} ({time.monotonic() - start:.0f} s): {json.dumps(self.content[name])}", flush=True)
        self._path.write_text(json.dumps(self.content, indent=1) + "\n")


def faults(content: dict[str, Any]) -> list[str]:
    """What is wrong with the results; nothing if they are complete and agree.

    Args:
        content: of the JSON file.
    """
    found = [f"{name} failed" for name, value in content.items() if isinstance(value, dict) and "failed" in value]
    for name, value in content.items():
        numbers = value.values() if isinstance(value, dict) else []
        if any(isinstance(x, float) and not (math.isfinite(x) and x >= 0) for x in numbers):
            found.append(f"{name} has a figure that is not a positive number")
    one = content.get("agreement", {})
    if one.get("logits_differ_at_most", 0) > AGREE["logits"] or one.get("equal_pixels", 1) < AGREE["masks"]:
        found.append("CPU and device disagree")
    theirs, ours = (content.get(f"step stm {name}", {}).get("first_loss") for name in ("theirs fp32", "ours fp32"))
    if theirs is not None and ours is not None and abs(theirs - ours) > AGREE["loss"]:
        found.append("the losses of the two training codes disagree")
    if not any(name.startswith("step") for name in content):
        found.append("no training step was measured")
    return found


def measure_all(results: Results, scale: Scale, device: str, reference: str) -> None:
    """The measurements, the most wanted ones first."""
    results.content["machine"] = steps.describe()
    results.add("agreement", agreement, min(scale.side, 192), device)
    with tempfile.TemporaryDirectory() as folder:
        weights = str(Path(folder) / "weights.pth") if reference else ""
        base = steps.Setting(
            "ours", "fp32", "", reference, weights, 1, 2, scale.side, scale.timed, device, False
        )  # fmt: skip
        if reference:
            results.add("step stm theirs fp32", steps.measure, replace(base, way="theirs"))
        for precision in ("fp32", "bf16"):
            results.add(f"step stm ours {precision}", steps.measure, replace(base, precision=precision))
        paper = replace(base, profile="paper", batch=scale.batch, weights="")
        for precision, compiled in (("bf16", False), ("fp32", False), ("bf16", True), ("fp32", True)):
            name = f"step paper batch {scale.batch} {precision}{' compiled' if compiled else ''}"
            if not compiled or device == "cuda":
                results.add(name, steps.measure, replace(paper, precision=precision, compiled=compiled))
    results.add("loading", steps.measure_loading, scale.clips, scale.height, scale.width)
    for tta in (False, True):
        for objects in scale.objects:
            name = f"inference {objects} objects{' tta' if tta else ''}"
            results.add(name, inference_speed, scale, objects, tta, device)
    results.add("depth", depth_speed, scale.depth_frames, device)


def cores_needed(content: dict[str, Any]) -> dict[str, float]:
    """CPU cores that keep the device busy with clips, for each measured step of the paper profile."""
    loading = content.get("loading", {}).get("clips_per_core_second")
    if loading is None:
        return {}
    rows = {name: row for name, row in content.items() if name.startswith("step paper") and "failed" not in row}
    return {name: row["batch"] / row["seconds_per_step"] / loading["with_depth"] for name, row in rows.items()}


def main() -> None:
    """Measure, check and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, help="JSON file to write")
    parser.add_argument("--toy", action="store_true", help="on the CPU at toy size")
    parser.add_argument("--reference", default="", help="checkout of haochenheheda/Training-Code-of-STM")
    parser.add_argument("--minutes", type=float, default=7.0, help="after which no measurement starts")
    options = parser.parse_args()
    if not options.toy and not torch.cuda.is_available():
        parser.error("torch finds no CUDA device; --toy runs everything on the CPU at toy size")
    load_settings()
    results = Results(options.output, options.minutes)
    scale, device = (TOY, "cpu") if options.toy else (FULL, "cuda")
    measure_all(results, scale, device, options.reference)
    results.content["cores_needed"] = cores_needed(results.content)
    results.content["faults"] = faults(results.content)
    options.output.write_text(json.dumps(results.content, indent=1) + "\n")
    for fault in results.content["faults"]:
        print(f"check failed: {fault}")
    raise SystemExit(1 if results.content["faults"] else 0)


if __name__ == "__main__":
    main()
