"""Speed of the exported graphs through onnxruntime, with the loop of docs/export.md.

    python -m benchmarks.onnx_video
    python -m benchmarks.onnx_video --weights weights/dstm-lite.safetensors --objects 1 5

Writes the graphs of a network to a temporary folder, and segments a drawn video with numpy and onnxruntime alone.
Without --weights the weights are random, which takes the same time. Depth is 0.5 everywhere where a network takes it.
Compare only figures of one machine, taken in one run; where other programs run beside it, CPU seconds say more.
"""

from __future__ import annotations

import argparse
import re
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.inference import draw
from pipeline.dstm.checkpoint import load_dstm
from pipeline.dstm.network import DSTM
from pipeline.export import export
from pipeline.settings import load_settings

_DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "export.md"


def make_network(profile: str, weights: Path | None) -> DSTM:
    """The network of a file, or of a profile with random weights."""
    if weights is not None:
        return load_dstm(weights, torch.device("cpu"))
    settings = load_settings()
    switches = replace(settings.model, depth=profile != "lite")
    return DSTM(switches, settings.profiles[profile].network, awaits_weights=True).eval()


def documented_loop() -> Any:
    """The function `segment` of docs/export.md."""
    (block,) = re.findall(r"```python\n(.*?)```", _DOCUMENT.read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    exec(block, names)
    return names["segment"]


def measure(folder: Path, depth: bool, frames: NDArray[np.uint8], mask: NDArray[np.uint8]) -> tuple[float, float]:
    """Frames per second and CPU seconds per frame, from the second frame on, without loading the graphs."""
    depths = np.full(frames.shape[:3], 0.5, np.float32) if depth else None
    masks = documented_loop()(folder, frames, depths, mask)
    next(masks)  # loads the graphs and memorizes nothing yet
    start, start_cpu = time.perf_counter(), time.process_time()
    count = sum(1 for _ in masks)
    return count / (time.perf_counter() - start), (time.process_time() - start_cpu) / count


def main() -> None:
    """Export, run and print a line for each number of objects."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.onnx_video", description="Speed of exported graphs.")
    parser.add_argument("--network", choices=("sample", "paper", "lite"), default="lite", help="profile of the network")
    parser.add_argument("--weights", type=Path, help="a D-STM file; it says what network it is")
    parser.add_argument("--objects", type=int, nargs="+", default=[1, 5])
    parser.add_argument("--length", type=int, default=16, help="frames (default: %(default)s)")
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--width", type=int, default=854)
    options = parser.parse_args()
    network = make_network(options.network, options.weights)
    with tempfile.TemporaryDirectory() as place:
        graphs = Path(place) / "onnx"
        export(network, graphs, options.height, options.width, 18)
        for n_objects in options.objects:
            video = Path(place) / str(n_objects)
            video.mkdir()
            mask = draw(video, options.length, options.height, options.width, n_objects)
            images = [cv2.imread(str(path))[..., ::-1] for path in sorted(video.glob("*.jpg"))]  # type: ignore[index]
            rate, cpu = measure(graphs, network.switches.depth, np.stack(images).astype(np.uint8), mask)
            print(
                f"{options.width}x{options.height}, {n_objects} objects: {rate:.2f} frames/s, {cpu:.2f} CPU s a frame"
            )


if __name__ == "__main__":
    main()
