"""Write a trained network as ONNX graphs, to run it without torch.

    python -m pipeline.export models/sample/dstm.pt onnx
    python -m pipeline.export models/paper/dstm.pt onnx --height 720 --width 1280 --opset 20

It writes query_encoder.onnx, memory_encoder.onnx, reader.onnx, decoder.onnx and export.json, which describes their
inputs and outputs and how they are chained. They take frames of any size and any number of objects. Before they are
written, each runs in onnxruntime at the size of --height and --width, and its result is compared with the network's.
`docs/export.md` has the loop that segments a video with them. This needs onnx, onnxscript and onnxruntime.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.core.errors import UserError
from pipeline.core.files import write_bytes, write_json
from pipeline.core.runtime import log, run_main
from pipeline.dstm.checkpoint import load_dstm
from pipeline.dstm.config import to_plain
from pipeline.dstm.memory import read_memory
from pipeline.dstm.network import DSTM
from pipeline.inference.fused import fuse
from pipeline.tracing.graph import OPSETS, PAD_TO, Axes, Graph, compare, require_packages, to_onnx

_TOLERANCE = 1e-3  # largest difference from the network, as a share of an output's largest value
_CHAIN = (
    "input: frames are RGB / 255; frames, depth and masks are padded, log_odds are cropped back to the frame",
    "memorize a frame: memory_encoder; mask is an object's probability, others the sum of the other objects' "
    "probabilities, at most 1; the first frame with its given mask, later ones with their result",
    "memory: mem_key and mem_value of several frames stacked along T; as published: the first frame, every 5th one "
    "and the previous one",
    "segment a frame: query_encoder, reader, decoder, then soft_aggregation over the objects",
)
_SOFT_AGGREGATION = {
    "p_k": "clip(1 / (1 + exp(-log_odds_k)), 1e-7, 1 - 1e-7), of the objects k = 1..N",
    "p_0": "clip((1 - p_1) * ... * (1 - p_N), 1e-7, 1 - 1e-7), of the background",
    "probability": "odds_k / (odds_0 + ... + odds_N), where odds_k = p_k / (1 - p_k)",
}


class _Part(nn.Module):
    """A part of the network: calls the network's own modules."""

    def __init__(self, network: DSTM) -> None:
        super().__init__()
        self.network = network


class _QueryEncoder(_Part):
    def forward(self, frames: Tensor, depth: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        query = self.network.encode_query(frames, depth)
        return query.key, query.value, query.skip8, query.skip4


class _MemoryEncoder(_Part):
    """One frame and N objects: what depends only on the frame and its depth is computed once."""

    def forward(self, frame: Tensor, depth: Tensor | None, mask: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
        return self.network.encode_memory(frame, depth, mask, others)


class _Reader(_Part):
    def forward(self, query_key: Tensor, mem_key: Tensor, mem_value: Tensor) -> Tensor:
        queries = query_key.expand(mem_key.shape[0], -1, -1, -1)
        return read_memory(queries, mem_key, mem_value, self.network.config.scale_keys)


class _Decoder(_Part):
    """One frame and N objects, which share its skip connections."""

    def forward(self, query_value: Tensor, read: Tensor, skip8: Tensor, skip4: Tensor) -> Tensor:
        readout = torch.cat([query_value.expand(read.shape[0], -1, -1, -1), read], dim=1)  # f_t of Eq. (1)
        odds: Tensor = self.network.decoder(self.network.aspp(readout), skip8, skip4)
        return odds


def graphs_of(network: DSTM) -> dict[str, Graph]:
    """The parts that are exported, by name.

    Args:
        network: in evaluation mode, on the CPU.
    """
    config, depth = network.config, network.switches.depth
    ck, cv, c = config.key_channels, config.value_channels, config.decoder_channels
    cm = cv + 2 * config.value_mask
    places = (f"H{config.stride}", f"W{config.stride}")
    plane, key, value, read = (1, "H", "W"), (ck, *places), (cv, *places), (cm, *places)
    skip8, skip4 = (c, "H8", "W8"), (c, "H4", "W4")
    return {
        "query_encoder": Graph(
            _QueryEncoder(network),
            {"frames": ("L", 3, "H", "W"), "depth": ("L", *plane) if depth else None},
            {"query_key": ("L", *key), "query_value": ("L", *value), "skip8": ("L", *skip8), "skip4": ("L", *skip4)},
        ),
        "memory_encoder": Graph(
            _MemoryEncoder(network),
            {
                "frame": (1, 3, "H", "W"),
                "depth": (1, *plane) if depth else None,
                "mask": ("N", *plane),
                "others": ("N", *plane),
            },
            {"mem_key": ("N", *key), "mem_value": ("N", *read)},
        ),
        "reader": Graph(
            _Reader(network),
            {
                "query_key": (1, ck, "rows", "columns"),
                "mem_key": ("N", ck, "T", *places),
                "mem_value": ("N", cm, "T", *places),
            },
            {"read": ("N", cm, "rows", "columns")},
        ),
        "decoder": Graph(
            _Decoder(network),
            {"query_value": (1, *value), "read": ("N", *read), "skip8": (1, *skip8), "skip4": (1, *skip4)},
            {"log_odds": ("N", *plane)},
        ),
    }


def export(network: DSTM, folder: Path, height: int, width: int, opset: int) -> None:
    """Write the graphs and `export.json`; nothing is written if a graph differs from the network.

    Args:
        network: in evaluation mode, on the CPU.
        folder: created if it does not exist; files of these names in it are replaced.
        height: rows of the frames with which the graphs are compared with the network.
        width: columns.
        opset: of ONNX.

    Raises:
        UserError: a package is missing, the opset or the size is impossible, or `folder` is a file.
    """
    require_packages()
    if opset not in OPSETS:
        raise UserError(f"opset is {opset}; expected {OPSETS[0]} to {OPSETS[-1]}; give one of them")
    if min(height, width) < 1:
        raise UserError(f"the frames are {width}x{height}; expected at least 1x1; correct --height and --width")
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; expected a folder to write into; give another one")
    height, width = height + -height % PAD_TO, width + -width % PAD_TO
    graphs = graphs_of(fuse(network))
    files = {}
    for name, graph in graphs.items():
        log(f"{name}: tracing")
        files[name] = to_onnx(graph, opset)
        difference = compare(graph, files[name], height, width)
        if not difference <= _TOLERANCE:
            raise RuntimeError(f"{name} differs from the network by {difference:.2g} of its largest value")
        log(
            f"{name}: {len(files[name]) / 1e6:.1f} MB, equal to the network within {difference:.0e} at {width}x{height}"
        )
    for name, data in files.items():
        write_bytes(folder / f"{name}.onnx", data)
    write_json(folder / "export.json", describe(network, graphs, opset))
    log(f"{len(files)} graphs and export.json are in {folder}")


def describe(network: DSTM, graphs: Mapping[str, Graph], opset: int) -> dict[str, Any]:
    """The content of `export.json`, plain values.

    Args:
        network: what was exported.
        graphs: its parts.
        opset: of ONNX.
    """

    def shapes(tensors: Mapping[str, Axes | None]) -> dict[str, str]:
        return {name: ",".join(map(str, axes)) for name, axes in tensors.items() if axes is not None}

    places = f"H{network.config.stride}, W{network.config.stride}"
    return {
        "graphs": {
            name: {"file": f"{name}.onnx", "inputs": shapes(graph.inputs), "outputs": shapes(graph.outputs)}
            for name, graph in graphs.items()
        },
        "axes": {
            "L": "frames",
            "N": "objects",
            "T": "frames in the memory",
            "H, W": f"rows and columns of the padded frame, multiples of {PAD_TO}; a number after them is a stride",
            "rows, columns": f"the rows and columns of the query that are read: {places}, or a part of them",
        },
        "values": "float32; frames, masks and others in [0, 1]; depth in [0, 1], 1 near, as written by the depth stage",
        "pad_multiple": PAD_TO,
        "padding": "zeros, half on each side; if the number is odd, the larger half below and on the right",
        "chain": _CHAIN,
        "soft_aggregation": _SOFT_AGGREGATION,
        "opset": opset,
        **to_plain(network.switches, network.config),
    }


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; wrong arguments end the program with its usage."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.export", description="Write a network as ONNX graphs.")
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="a D-STM checkpoint, from train or convert")
    parser.add_argument("out", type=Path, metavar="OUT_DIR", help="folder for the graphs and export.json")
    parser.add_argument("--height", type=int, default=480, help="rows of the frames to check with (%(default)s)")
    parser.add_argument("--width", type=int, default=854, help="columns of the frames to check with (%(default)s)")
    parser.add_argument("--opset", type=int, default=OPSETS[0], help="version of ONNX (%(default)s)")
    return parser.parse_args(argv)


def main() -> None:
    """Export the checkpoint of the command line."""
    options = parse_arguments()
    require_packages()  # before the weights are read
    network = load_dstm(options.checkpoint, torch.device("cpu"))
    export(network, options.out, options.height, options.width, options.opset)


if __name__ == "__main__":
    raise SystemExit(run_main(main))
