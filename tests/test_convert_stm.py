"""The STM release becomes a checkpoint of ours that computes what the released code computed."""

from __future__ import annotations

import hashlib
import json
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.models import resnet50

from pipeline.convert import convert_stm, main
from pipeline.core.errors import UserError
from pipeline.dstm.checkpoint import load_dstm
from pipeline.dstm.memory import stack_slots
from pipeline.dstm.network import DSTM
from pipeline.inference.fused import fuse
from pipeline.inference.prepared import prepare
from pipeline.pretrained.stm import rename

# What the released model gave for the weights, frames and masks that are made here (source and commit in the file).
RELEASED = json.loads((Path(__file__).parent / "fixtures" / "stm.json").read_text())
CPU = torch.device("cpu")
FILE = Path("STM_weights.pth")


def noise(name: str, shape: tuple[int, ...]) -> Tensor:
    """Numbers in [-1, 1) that depend on a name and a position alone: raw bits, the same on every machine."""
    count = int(np.prod(shape))
    words = np.random.PCG64(zlib.crc32(name.encode())).random_raw(-(-count // 4)).astype("<u8").view("<u2")[:count]
    return torch.from_numpy(words.astype(np.float32) / 2**15 - 1).view(shape)


def published_shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of the released state dict, DataParallel's prefix left off."""
    with torch.device("meta"):
        resnet = resnet50(weights=None).state_dict()
    stages = {"conv1": "conv1", "bn1": "bn1", "layer1": "res2", "layer2": "res3", "layer3": "res4"}
    shapes: dict[str, tuple[int, ...]] = {}
    for encoder in ("Encoder_M", "Encoder_Q"):
        for name, tensor in resnet.items():
            stage, _, rest = name.partition(".")
            if stage in stages:
                shapes[f"{encoder}.{stages[stage]}.{rest}"] = tuple(tensor.shape)
        shapes |= {f"{encoder}.{name}": (1, 3, 1, 1) for name in ("mean", "std")}
    shapes |= {f"Encoder_M.{name}.weight": (64, 1, 7, 7) for name in ("conv1_m", "conv1_o")}
    convolutions = {f"KV_{which}_r4.{head}": (n, 1024) for which in "MQ" for head, n in (("Key", 128), ("Value", 512))}
    convolutions |= {"Decoder.convFM": (256, 1024), "Decoder.RF3.convFS": (256, 512), "Decoder.RF2.convFS": (256, 256)}
    blocks = ["ResMM", *(f"{part}.{block}" for part in ("RF3", "RF2") for block in ("ResFS", "ResMM"))]
    convolutions |= {f"Decoder.{block}.conv{i}": (256, 256) for block in blocks for i in (1, 2)}
    convolutions["Decoder.pred2"] = (2, 256)
    for name, (out, into) in convolutions.items():
        shapes |= {f"{name}.weight": (out, into, 3, 3), f"{name}.bias": (out,)}
    return shapes


def make_weight(name: str, shape: tuple[int, ...]) -> Tensor:
    """One tensor of the state dict, such that features neither vanish nor grow and memories are told apart."""
    if not shape:
        return torch.tensor(0)
    if name.endswith((".mean", ".std")):
        constant = (0.485, 0.456, 0.406) if name.endswith(".mean") else (0.229, 0.224, 0.225)
        return torch.tensor(constant).view(shape)
    values = noise(name, shape)
    if name.endswith("running_var"):
        return 1 + values / 2
    if len(shape) == 4:
        gain = {"conv1_m": 3.0, "conv1_o": 3.0, "Key": 0.4, "Value": 0.4, "pred2": 0.5}.get(
            name.split(".")[-2], 1.4 if "Encoder" in name else 1.0
        )
        return values * gain * (3 / float(np.prod(shape[1:]))) ** 0.5
    if name.startswith("Encoder") and name.endswith(".weight"):  # BatchNorm's; small where it ends a residual branch
        return (1 + values / 4) * (0.25 if ".bn3." in name else 1.0)
    return values / 4


def published(prefix: str = "module.") -> dict[str, Tensor]:
    return {prefix + name: make_weight(name, shape) for name, shape in published_shapes().items()}


def hollow() -> dict[str, Tensor]:
    """A state dict of the right names and shapes that takes no room: one number behind each tensor."""
    return {
        name: make_weight(name, shape) if name.endswith((".mean", ".std")) else torch.zeros(()).expand(shape)
        for name, shape in published_shapes().items()
    }


def frame(case: str, i: int, height: int, width: int) -> Tensor:
    """1,3,H,W in [0, 1]."""
    return (noise(f"{case} frame {i}", (1, 3, height, width)) + 1) / 2


def first_mask(n_objects: int, height: int, width: int) -> Tensor:
    """1,K+1,H,W: upright bars, one an object, and background."""
    columns = torch.arange(width) * (2 * n_objects + 1) // width  # bars and gaps in turn
    rows = torch.arange(height)
    inside = (rows >= height // 8) & (rows < height - height // 4)
    ids = torch.where(inside[:, None] & (columns % 2 == 1), (columns + 1) // 2, 0)
    return torch.stack([ids == k for k in range(n_objects + 1)])[None].float()


@torch.inference_mode()
def unrolled(network: DSTM, case: dict[str, Any]) -> dict[str, Tensor]:
    """Three frames: the second is remembered with its prediction, the third read from both."""
    frames = [frame(case["name"], i, case["height"], case["width"]) for i in range(3)]
    masks = first_mask(case["n_objects"], case["height"], case["width"])
    slots, results = [], {}
    for t in (1, 2):
        slots.append(network.memorize(frames[t - 1], None, masks))
        results[f"mem_key {t}"], results[f"mem_value {t}"] = slots[-1]
        query = network.encode_query(frames[t], None)
        results[f"query_key {t + 1}"], results[f"query_value {t + 1}"] = query.key, query.value
        logits = network.segment(query, stack_slots(slots))
        masks = logits.softmax(dim=1)
        results[f"logits {t + 1}"], results[f"probabilities {t + 1}"] = logits, masks
    return results


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> DSTM:
    """Through the command and back from its file."""
    folder = tmp_path_factory.mktemp("stm")
    torch.save(published(), folder / FILE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["convert", "stm", str(folder / FILE), str(folder / "models" / "dstm.pt")])
        main()
    return load_dstm(folder / "models" / "dstm.pt", CPU)


@pytest.mark.parametrize("case", RELEASED["cases"], ids=lambda c: str(c["name"]))
@pytest.mark.parametrize("form", ["plain", "fused", "prepared"])
def test_equals_the_released_model(network: DSTM, case: dict[str, Any], form: str) -> None:
    made = {"plain": lambda: network, "fused": lambda: fuse(network), "prepared": lambda: prepare(network, "fp32")}
    results = unrolled(made[form](), case)
    assert sorted(results) == sorted(case["results"])
    for name, result in results.items():
        values, expected = result.double().flatten(), case["results"][name]
        tolerance = 1e-4 * expected["std"]
        assert list(result.shape) == expected["shape"], name
        assert float(values.mean()) == pytest.approx(expected["mean"], abs=tolerance), name
        assert float(values.std()) == pytest.approx(expected["std"], abs=tolerance), name
        at = [int(i) for i in expected["values"]]
        np.testing.assert_allclose(values[at], list(expected["values"].values()), atol=tolerance, rtol=0, err_msg=name)


def test_names_are_the_released_ones() -> None:
    lines = "".join(f"{name} {list(shape)}\n" for name, shape in sorted(published_shapes().items()))
    assert hashlib.sha256(lines.encode()).hexdigest() == RELEASED["keys_sha256"]


def test_prefix_and_counters_make_no_difference() -> None:
    whole = rename(published(), FILE)
    bare = rename({k: v for k, v in published("").items() if not k.endswith("num_batches_tracked")}, FILE)
    assert whole.keys() == bare.keys() and all(torch.equal(whole[name], bare[name]) for name in whole)


def refused(path: Path, *words: str) -> None:
    with pytest.raises(UserError) as caught:
        convert_stm(path, path.parent / "made.pt")
    message = str(caught.value)
    assert str(path) in message and "\n" not in message
    assert all(word in message for word in words), message
    assert not (path.parent / "made.pt").exists()


def test_unreadable_files_are_refused(tmp_path: Path) -> None:
    refused(tmp_path / FILE, "does not exist", "STM_weights.pth")
    (tmp_path / "text.pth").write_text("no weights")
    refused(tmp_path / "text.pth", "is a text file, not weights", "download it again")
    torch.save(hollow(), tmp_path / "whole.pth")
    data = (tmp_path / "whole.pth").read_bytes()
    (tmp_path / "half.pth").write_bytes(data[: len(data) // 2])
    refused(tmp_path / "half.pth", "is damaged", "download it again")


def test_other_weights_are_refused(tmp_path: Path) -> None:
    def saved(name: str, content: object) -> Path:
        torch.save(content, tmp_path / name)
        return tmp_path / name

    whole = hollow()
    refused(saved("ours.pth", {"kind": "dstm", "state_dict": whole}), "not a state dict")
    refused(saved("depth.pth", {"module.seq.0.weight": torch.zeros(1)}), "it has seq.0.weight", "released STM")
    refused(saved("none.pth", {}), "it lacks")
    refused(saved("more.pth", {**whole, "Decoder.RF1.convFS.bias": torch.zeros(1)}), "it has Decoder.RF1.convFS.bias")
    refused(saved("block.pth", {**whole, "Encoder_Q.res4.6.bn1.bias": torch.zeros(1)}), "Encoder_Q.res4.6.bn1.bias")
    fewer = {name: tensor for name, tensor in whole.items() if name != "Encoder_M.res3.0.downsample.0.weight"}
    refused(saved("fewer.pth", fewer), "it lacks Encoder_M.res3.0.downsample.0.weight")
    wide = {**whole, "KV_Q_r4.Key.weight": torch.zeros(()).expand(64, 1024, 3, 3)}
    refused(saved("wide.pth", wide), "KV_Q_r4.Key.weight has the shape [64, 1024, 3, 3], expected [128, 1024, 3, 3]")
    refused(saved("mean.pth", {**whole, "Encoder_Q.mean": torch.full((1, 3, 1, 1), 0.5)}), "Encoder_Q.mean is [0.5")
