"""Write a part of the network as an ONNX graph, and compare its result in onnxruntime with the part's."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim

from pipeline.core.errors import UserError

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
"""Packages that only the export needs."""

OPSETS = range(18, 24)
"""ONNX versions: torch writes the first, and ONNX's converter raises it to at most the last; lowering often fails."""

PAD_TO = 16
"""Rows `H` and columns `W` are multiples of this."""

Axes = tuple[int | str, ...]
"""Each axis is a number (its length) or a name (free length, equal for all axes of that name)."""

_TRACED = (48, 80)  # H, W while tracing: small, and different, so that rows and columns cannot be confused
_LENGTHS = {"L": 2, "N": 3, "T": 4, "rows": 2, "columns": 5}  # of the other free axes in random inputs; all different


@dataclass(frozen=True)
class Graph:
    """A part of the network and its tensors, all float32.

    Free axes are `L` frames, `N` objects, `T` frames in the memory, `H` and `W` padded sides of the frame, also divided
    by a stride (`H16`), and `rows` and `columns` of a query.

    Attributes:
        module: takes tensors (None for inputs that it does not have) and returns one or several.
        inputs: name -> axes, in the order of the module's arguments; None for inputs that it does not have.
        outputs: name -> axes.
    """

    module: nn.Module
    inputs: dict[str, Axes | None]
    outputs: dict[str, Axes]


def require_packages() -> None:
    """Check that all packages are installed.

    Raises:
        UserError: one of `PACKAGES` is not installed.
    """
    missing = " ".join(name for name in PACKAGES if find_spec(name) is None)
    if missing:
        raise UserError(f"{missing} not found; the export needs {', '.join(PACKAGES)}; run pip install {missing}")


def to_onnx(graph: Graph, opset: int) -> bytes:
    """Trace a graph.

    Args:
        graph: a part of the network, in evaluation mode, on the CPU.
        opset: one of `OPSETS`.

    Returns:
        The ONNX file, weights included.

    Raises:
        UserError: the graph has a node that ONNX's converter cannot write in that opset.
    """
    free = {name: Dim(name) for name in _LENGTHS} | _sides(Dim("high"), Dim("wide"))
    present = {name: axes for name, axes in graph.inputs.items() if axes is not None}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about future changes of torch
        program = torch.onnx.export(
            graph.module,
            _random_inputs(graph, *_TRACED),
            dynamo=True,
            dynamic_shapes=[
                None if axes is None else {i: free[axis] for i, axis in enumerate(axes) if isinstance(axis, str)}
                for axes in graph.inputs.values()
            ],
            input_names=list(present),
            output_names=list(graph.outputs),
            opset_version=opset,
            verbose=False,
        )
    assert program is not None
    proto = program.model_proto
    if proto.opset_import[0].version != opset:
        raise UserError(f"the graph cannot be written in opset {opset}; expected {OPSETS[0]}; give --opset {OPSETS[0]}")
    _tidy(proto, present | graph.outputs)
    data: bytes = proto.SerializeToString(deterministic=True)
    return data


def _tidy(proto: Any, axes: Mapping[str, Axes]) -> None:
    """Give free axes their names, and drop paths and stack traces that torch adds to the nodes."""
    for value in (*proto.graph.input, *proto.graph.output):
        for axis, dimension in zip(axes[value.name], value.type.tensor_type.shape.dim):
            if isinstance(axis, str):
                dimension.dim_param = axis
    del proto.graph.value_info[:]
    for part in (proto, proto.graph, *proto.graph.node, *proto.graph.input, *proto.graph.output):
        part.doc_string = ""
        del part.metadata_props[:]


def compare(graph: Graph, data: bytes, height: int, width: int) -> float:
    """Run a graph in onnxruntime and in torch, on the same random inputs.

    Args:
        graph: a part of the network, in evaluation mode, on the CPU.
        data: the same part as ONNX.
        height: `H`.
        width: `W`.

    Returns:
        The largest difference between them, as a share of the output's largest value.
    """
    runtime: Any = import_module("onnxruntime")  # by name, because it has no types and may not be installed
    inputs = _random_inputs(graph, height, width)
    given = {name: tensor.numpy() for name, tensor in zip(graph.inputs, inputs) if tensor is not None}
    session = runtime.InferenceSession(data, providers=["CPUExecutionProvider"])
    found = session.run(list(graph.outputs), given)
    with torch.inference_mode():
        outputs = graph.module(*inputs)
    expected = (outputs,) if isinstance(outputs, Tensor) else outputs
    return max(float((torch.from_numpy(f) - e).abs().max() / e.abs().max()) for f, e in zip(found, expected))


def _random_inputs(graph: Graph, height: int, width: int) -> tuple[Tensor | None, ...]:
    generator = torch.Generator().manual_seed(0)
    lengths = _LENGTHS | _sides(height // PAD_TO, width // PAD_TO)
    return tuple(
        None if axes is None else torch.rand([lengths.get(axis, axis) for axis in axes], generator=generator)
        for axes in graph.inputs.values()
    )


def _sides(high: Any, wide: Any) -> dict[str, Any]:
    """`H`, `W` and their values at each stride, from the sides in units of `PAD_TO`, as numbers or free axes."""
    strides = {"": 1, "4": 4, "8": 8, "16": 16}
    rows = {f"H{name}": PAD_TO // stride * high for name, stride in strides.items()}
    return rows | {f"W{name}": PAD_TO // stride * wide for name, stride in strides.items()}
