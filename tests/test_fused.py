"""The copy made for inference computes what the network computes."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import pytest
import torch
from timm.layers import Conv2dSame
from torch import nn

from pipeline.dstm.config import Switches
from pipeline.dstm.frozen_norm import FrozenNorm
from pipeline.dstm.memory import stack_slots
from pipeline.dstm.network import DSTM
from pipeline.inference import inverted
from pipeline.inference.fused import fuse
from pipeline.inference.prepared import Block, Residual, prepare
from tests.support.toy_inference import NETWORK


@torch.inference_mode()
def result(network: DSTM) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    frames, depth = torch.rand(2, 3, 45, 61, generator=generator), torch.rand(2, 1, 45, 61, generator=generator)
    masks = torch.rand(2, 3, 45, 61, generator=generator).softmax(dim=1)
    memory = stack_slots([network.memorize(frames, depth, masks)])
    return network.segment(network.encode_query(frames, depth), memory)


@pytest.mark.parametrize(
    ("norm", "resnest"), [("batch", True), ("batch", False), ("frozen", True), ("frozen", False), ("group", True)]
)
def test_equals_the_network(norm: Literal["batch", "frozen", "group"], resnest: bool) -> None:
    torch.manual_seed(2)
    network = DSTM(Switches(resnest, True, True, "estimated"), replace(NETWORK, norm=norm), awaits_weights=True).eval()
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d | FrozenNorm)]
    assert bool(norms) == (norm != "group")
    for module in norms:
        for values, low, high in (
            (module.running_mean, -0.3, 0.3),
            (module.running_var, 0.2, 2.0),
            (module.weight.data, 0.5, 1.5),
            (module.bias.data, -0.5, 0.5),
        ):
            assert isinstance(values, torch.Tensor)
            values.uniform_(low, high)
    network.requires_grad_(False)
    before = result(network)
    fused = fuse(network)
    assert before.std() > 1e-3
    torch.testing.assert_close(result(fused), before, atol=1e-4 * float(before.std()), rtol=1e-4)
    torch.testing.assert_close(result(network), before, atol=0, rtol=0)  # the original is left as it is
    assert not any(isinstance(m, nn.BatchNorm2d | FrozenNorm) for m in fused.modules())
    assert not any(p.requires_grad for p in fused.parameters())
    prepared = prepare(network, "fp32")
    torch.testing.assert_close(result(prepared), before, atol=1e-4 * float(before.std()), rtol=1e-4)
    torch.testing.assert_close(result(network), before, atol=0, rtol=0)
    kinds = [type(m) for m in prepared.modules()]
    assert nn.Conv2d not in kinds and kinds.count(Residual) == 5
    assert (Block in kinds) == (norm != "group")
    assert float((result(prepare(network, "bf16")) - before).abs().mean()) < 0.05 * float(before.std())


@pytest.mark.parametrize("band", [1, 2**16, 2**30])
@pytest.mark.parametrize("stride", [8, 16])
def test_lite_equals_the_network(band: int, stride: Literal[8, 16], monkeypatch: pytest.MonkeyPatch) -> None:
    """EfficientNet-Lite with its "same" padding and ReLU6; wide features as a whole or a few rows at a time."""
    monkeypatch.setattr(inverted, "_BAND_BYTES", band)
    torch.manual_seed(2)
    name = "tf_efficientnet_lite0"
    config = replace(NETWORK, resnest_backbone=name, width=1.0, norm="frozen", stride=stride)
    network = DSTM(Switches(True, True, True, "estimated"), config, awaits_weights=True).eval().requires_grad_(False)
    for module in network.modules():
        if isinstance(module, FrozenNorm):
            module.running_mean.uniform_(-0.3, 0.3)
            module.weight.uniform_(0.8, 1.6)
            module.bias.uniform_(-0.3, 1.0)
    generator = torch.Generator().manual_seed(1)
    frames, depth = torch.rand(1, 3, 150, 61, generator=generator), torch.rand(1, 1, 150, 61, generator=generator)
    masks = torch.rand(1, 3, 150, 61, generator=generator).softmax(dim=1)
    prepared = prepare(network, "fp32")
    with torch.inference_mode():
        plain, fast = network.encode_query(frames, depth), prepared.encode_query(frames, depth)
        slot, fast_slot = network.memorize(frames, depth, masks), prepared.memorize(frames, depth, masks)
        fused = fuse(network).encode_query(frames, depth)
    for found, also, want in zip(fast[:4], fused[:4], plain[:4]):
        assert want.std() > 1e-3
        torch.testing.assert_close(found, want, atol=1e-4 * float(want.std()), rtol=1e-4)
        torch.testing.assert_close(also, want, atol=1e-4 * float(want.std()), rtol=1e-4)
    for found, want in zip(fast_slot, slot):
        torch.testing.assert_close(found, want, atol=1e-4 * float(want.std()), rtol=1e-4)
    kinds = [type(module) for module in prepared.modules()]
    if stride == 16:
        assert kinds.count(inverted.InvertedBlock) == 2 * 11
    assert not {nn.Conv2d, Conv2dSame, FrozenNorm} & set(kinds)
