"""The exported graphs segment a video through onnxruntime and numpy alone as the network does."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pipeline import export
from pipeline.core.checkpoint import save_checkpoint
from pipeline.core.errors import UserError
from pipeline.core.runtime import run_main
from pipeline.dstm.checkpoint import KIND, load_dstm
from pipeline.dstm.config import NetworkConfig, Switches, to_plain
from pipeline.dstm.memory import stack_slots
from pipeline.dstm.network import DSTM
from pipeline.inference.fused import fuse
from pipeline.pretrained.shipped import shipped_weights
from pipeline.tracing.graph import OPSETS, PACKAGES, compare, to_onnx
from tests.support.tiny_archives import Toy, make_toy
from tests.support.toy_inference import NETWORK, frames_of, labels, one_hot

ROOT = Path(__file__).resolve().parents[1]
VARIANTS: dict[str, tuple[Switches, NetworkConfig]] = {
    "resnet": (Switches(False, True, True, "estimated"), NETWORK),
    "resnest": (Switches(True, True, True, "estimated"), replace(NETWORK, stride=16)),
    "plain": (
        Switches(False, False, False, "estimated"),
        replace(NETWORK, resnet_backbone="resnet18", stride=16, norm="group", value_mask=False),
    ),
}
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("resnest", "plain", "shipped")]
Segment = Callable[..., Iterator[NDArray[np.float64]]]


class Exported(NamedTuple):
    """A network and the folder it was exported to."""

    network: DSTM
    folder: Path


@torch.no_grad()
def make_network(switches: Switches, config: NetworkConfig) -> DSTM:
    """Random weights, brought to where every input matters: the statistics of a toy, sharp keys, balanced odds."""
    torch.manual_seed(3)
    network = DSTM(switches, config)
    frames, depth, masks = _toy_input()
    for name, module in network.named_modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # plain mean over the passes
        if name.endswith("depth_stem"):
            torch.nn.init.normal_(module.weight, std=0.1)
    for _ in range(2):  # first the statistics, then with them
        network.memorize(frames, depth, masks)
        network.encode_query(frames, depth)
        network.eval()
    network.calibrate_keys(frames, depth, masks, torch.ones(4, 2, dtype=torch.bool))
    return balanced(network)


@torch.no_grad()
def balanced(network: DSTM) -> DSTM:
    """The network with odds of mean 0 and deviation 2 on the toy, so that every object gets some pixels."""
    frames, depth, masks = _toy_input()
    memory = stack_slots([network.memorize(frames, depth, masks)])
    odds = network.segment(network.encode_query(frames, depth), memory)[:, 1:]
    predict = network.decoder.predict
    assert predict.bias is not None
    predict.weight.mul_(2 / odds.std())
    predict.bias.copy_(torch.tensor([0.0, predict.bias.diff() * 2 / odds.std() - 2 * odds.mean() / odds.std()]))
    return network


def _toy_input() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    toy = make_toy(4, 2, 48, 64)
    frames = torch.from_numpy(toy.frames).permute(0, 3, 1, 2).float() / 255
    return frames, torch.from_numpy(toy.depths)[:, None], torch.cat([one_hot(mask, 2) for mask in toy.masks])


@pytest.fixture(scope="module", params=["resnet", *SLOW])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """A network that went through its checkpoint and the command."""
    for name in PACKAGES:
        pytest.importorskip(name)
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "shipped":  # trained: with random weights an EfficientNet amplifies rounding along a clip
        network = balanced(load_dstm(shipped_weights(), torch.device("cpu")))
    else:
        network = make_network(*VARIANTS[request.param])
    plain = to_plain(network.switches, network.config)
    save_checkpoint(folder / "dstm.pt", KIND, plain, network.state_dict())
    assert command(folder / "dstm.pt", folder / "onnx", "--height", "30", "--width", "120") == 0
    return Exported(network, folder / "onnx")


def command(*arguments: object) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["export", *map(str, arguments)])
        return run_main(export.main)


def documented() -> Segment:
    """`segment` of docs/export.md."""
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "export.md").read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    exec(block, names)
    segment: Segment = names["segment"]
    return segment


def through_onnx(exported: Exported, toy: Toy, every: int) -> NDArray[np.float64]:
    depths = toy.depths if exported.network.switches.depth else None
    return np.stack(list(documented()(exported.folder, toy.frames, depths, toy.masks[0], every)))


@torch.inference_mode()
def through_torch(network: DSTM, toy: Toy) -> NDArray[np.float32]:
    """Probabilities T,K+1,H,W of the network; every frame is remembered."""
    masks = one_hot(toy.masks[0], int(toy.masks[0].max()))
    slots: list[tuple[torch.Tensor, torch.Tensor]] = []
    found = []
    for t, (rgb, plane) in enumerate(zip(toy.frames, toy.depths)):
        frame, depth = torch.from_numpy(rgb).permute(2, 0, 1)[None].float() / 255, torch.from_numpy(plane)[None, None]
        if t:
            masks = network.segment(network.encode_query(frame, depth), stack_slots(slots)).softmax(dim=1)
        slots.append(network.memorize(frame, depth, masks))
        found.append(masks[0].numpy())
    return np.stack(found)


@pytest.mark.parametrize(("objects", "height", "width"), [(2, 61, 90), (1, 16, 16), (3, 40, 129)])
def test_segments_as_the_network(exported: Exported, objects: int, height: int, width: int) -> None:
    """Sizes other than traced and checked, with and without padding; memories of one, two and three frames."""
    toy = make_toy(4, objects, height, width)
    found, expected = through_onnx(exported, toy, every=1), through_torch(exported.network, toy)
    assert found.shape == expected.shape == (4, objects + 1, height, width)
    np.testing.assert_allclose(found, expected, atol=1e-4, rtol=0)
    if objects > 1:
        assert (expected[1:].std(axis=(2, 3)) > 2e-3).all(), "far more than the tolerance, for every object"


def test_remembers_what_the_propagation_remembers(exported: Exported) -> None:
    toy = make_toy(9, 2, 40, 56)
    found = through_onnx(exported, toy, every=3)
    expected = labels(exported.network, frames_of(toy), {0: toy.masks[0]}, memory_every=3)
    best = np.sort(found, axis=1)
    decided = best[:, -1] - best[:, -2] > 1e-3
    assert decided.mean() > 0.98
    np.testing.assert_array_equal(found.argmax(axis=1)[decided], expected[decided])
    other = through_onnx(exported, toy, every=4)
    assert np.abs(other - found).max() > 1e-2, "which frames are remembered makes a difference"


def test_parts_of_a_run_make_the_whole(exported: Exported) -> None:
    """Frames encoded together or one by one; a query read as a whole, by rows or by objects."""
    runtime = pytest.importorskip("onnxruntime")
    encoder, reader = (runtime.InferenceSession(exported.folder / f"{n}.onnx") for n in ("query_encoder", "reader"))
    rng = np.random.default_rng(1)
    names = [given.name for given in encoder.get_inputs()]
    frames = {name: rng.random((3, 3 if name == "frames" else 1, 48, 64), np.float32) for name in names}
    together = encoder.run(None, frames)
    for i in range(3):
        for one, several in zip(encoder.run(None, {name: x[i : i + 1] for name, x in frames.items()}), together):
            np.testing.assert_allclose(one[0], several[i], atol=1e-5 * np.abs(several).max(), rtol=0)
    h, w = together[0].shape[2:]
    channels = reader.get_inputs()[2].shape[1]
    inputs = {
        "query_key": together[0][:1],
        "mem_key": rng.standard_normal((2, together[0].shape[1], 5, h, w), np.float32),
        "mem_value": rng.standard_normal((2, channels, 5, h, w), np.float32),
    }
    (whole,) = reader.run(None, inputs)
    rows = [reader.run(None, inputs | {"query_key": inputs["query_key"][:, :, i : i + 1]})[0] for i in range(h)]
    np.testing.assert_allclose(np.concatenate(rows, axis=2), whole, atol=1e-5, rtol=0)
    second = {"mem_key": inputs["mem_key"][1:], "mem_value": inputs["mem_value"][1:]}
    np.testing.assert_allclose(reader.run(None, inputs | second)[0], whole[1:], atol=1e-5, rtol=0)


def test_the_description_is_that_of_the_files(exported: Exported) -> None:
    onnx = pytest.importorskip("onnx")
    about = json.loads((exported.folder / "export.json").read_text())
    assert {p.name for p in exported.folder.iterdir()} == {
        "export.json",
        *(g["file"] for g in about["graphs"].values()),
    }
    assert about["model"]["depth"] == ("depth" in about["graphs"]["query_encoder"]["inputs"])
    assert about["network"] == to_plain(exported.network.switches, exported.network.config)["network"]
    for graph in about["graphs"].values():
        data = (exported.folder / graph["file"]).read_bytes()
        assert str(ROOT).encode() not in data and b".py" not in data, "no paths of the machine it was written on"
        model = onnx.load_from_string(data)
        onnx.checker.check_model(model, full_check=True)
        assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", about["opset"])]
        for described, values in (("inputs", model.graph.input), ("outputs", model.graph.output)):
            assert graph[described] == {
                v.name: ",".join(d.dim_param or str(d.dim_value) for d in v.type.tensor_type.shape.dim) for v in values
            }


def test_a_difference_is_seen(exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Graphs are compared with the network, and if they differ, nothing is written."""
    fused = fuse(exported.network)
    data = (exported.folder / "memory_encoder.onnx").read_bytes()
    assert compare(export.graphs_of(fused)["memory_encoder"], data, 32, 64) < 1e-4
    monkeypatch.setattr(export, "to_onnx", lambda *_: (exported.folder / "query_encoder.onnx").read_bytes())
    fused.skip4.project.weight[0, 0] *= 1.5
    with pytest.raises(RuntimeError, match="query_encoder differs from the network by 0"):
        export.export(fused, tmp_path / "out", 32, 64, 18)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_same_bytes_again_and_another_opset(exported: Exported) -> None:
    graph = export.graphs_of(fuse(exported.network))["reader"]
    assert to_onnx(graph, 18) == (exported.folder / "reader.onnx").read_bytes()
    latest = to_onnx(graph, OPSETS[-1])
    assert latest != (exported.folder / "reader.onnx").read_bytes()
    assert compare(graph, latest, 16, 32) < 1e-4


@pytest.mark.slow
def test_the_command_in_a_fresh_process(tmp_path: Path) -> None:
    """Nothing that an earlier call left behind is needed, as happened with a cached constant."""
    for name in PACKAGES:
        pytest.importorskip(name)
    network = DSTM(*VARIANTS["plain"]).eval()
    save_checkpoint(tmp_path / "dstm.pt", KIND, to_plain(*VARIANTS["plain"]), network.state_dict())
    line = [sys.executable, "-m", "pipeline.export", "dstm.pt", "onnx", "--height", "32", "--width", "48"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert {path.suffix for path in (tmp_path / "onnx").iterdir()} == {".onnx", ".json"}


def test_missing_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(tmp_path / "none.pt", tmp_path / "out") == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "none.pt does not exist; expected a checkpoint of kind dstm" in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("missing", [["onnxruntime"], list(PACKAGES)])
def test_missing_packages(
    missing: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in missing:
        monkeypatch.setitem(sys.modules, name, None)
    assert command(tmp_path / "none.pt", tmp_path / "out") == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and f"run pip install {' '.join(missing)}\n" in error


def test_what_cannot_be(tmp_path: Path) -> None:
    for name in PACKAGES:
        pytest.importorskip(name)
    network = DSTM(*VARIANTS["plain"]).eval()
    (tmp_path / "file").write_text("")
    for folder, height, opset, message in (
        ("out", 480, 17, "opset is 17; expected 18 to 23"),
        ("out", 480, 99, "opset is 99"),
        ("out", 0, 18, "the frames are 854x0"),
        ("file", 480, 18, "file is a file; expected a folder"),
    ):
        with pytest.raises(UserError, match=message):
            export.export(network, tmp_path / folder, height, 854, opset)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
