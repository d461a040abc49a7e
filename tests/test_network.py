"""The network's invariances, on random weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import Tensor

from pipeline.core.checkpoint import save_checkpoint
from pipeline.core.errors import UserError
from pipeline.dstm.aggregate import soft_aggregate
from pipeline.dstm.checkpoint import KIND, load_dstm
from pipeline.dstm.config import NetworkConfig, Switches, from_plain, to_plain
from pipeline.dstm.memory import read_memory, stack_slots
from pipeline.dstm.network import DSTM
from tests.support.toy_network import ALL_ON, TINY


def make(switches: Switches = ALL_ON, config: NetworkConfig = TINY) -> DSTM:
    torch.manual_seed(0)
    return DSTM(switches, config, awaits_weights=True).eval()


def clip(b: int, k: int, height: int = 40, width: int = 56, t: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    frames = torch.rand(b, t, 3, height, width, generator=generator)
    depth = torch.rand(b, t, 1, height, width, generator=generator)
    masks = torch.rand(b, k + 1, height, width, generator=generator).softmax(dim=1)
    return frames, depth, masks


def used(b: int, k: int) -> Tensor:
    return torch.ones(b, k, dtype=torch.bool)


@pytest.mark.parametrize("height,width", [(40, 56), (33, 47), (64, 48)])
@pytest.mark.parametrize("stride", [8, 16])
def test_shapes_for_any_sides(height: int, width: int, stride: int) -> None:
    network = make(config=replace(TINY, stride=stride, value_mask=True))  # type: ignore[arg-type]
    frames, depth, masks = clip(2, 3, height, width)
    with torch.no_grad():
        outcome = network(frames, depth, masks, used(2, 3))
    assert outcome.logits.shape == (2, 2, 4, height, width)
    assert outcome.carried is not None and float(outcome.carried.min()) >= 0 and float(outcome.carried.max()) <= 1


def test_padding_round_trip() -> None:
    """A frame padded by hand to a multiple of 16 gives, in its inner part, what the bare frame gives."""
    network = make()
    frames, depth, masks = clip(1, 2, 36, 52, t=2)
    pad = (6, 6, 6, 6)  # 36 -> 48, 52 -> 64, split evenly as the network does
    with torch.no_grad():
        bare = network(frames, depth, masks, used(1, 2)).logits
        big = [torch.nn.functional.pad(x, pad) for x in (frames, depth, masks)]
        inner = network(big[0], big[1], big[2], used(1, 2)).logits[..., 6:-6, 6:-6]
    torch.testing.assert_close(bare, inner, atol=1e-5, rtol=1e-5)


def test_permuting_objects_permutes_the_result() -> None:
    network = make(config=replace(TINY, value_mask=True))
    frames, depth, masks = clip(1, 3)
    order = [0, 3, 1, 2]
    with torch.no_grad():
        straight = network(frames, depth, masks, used(1, 3)).logits
        permuted = network(frames, depth, masks[:, order], used(1, 3)).logits
    torch.testing.assert_close(permuted, straight[:, :, order], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("switches", [ALL_ON, replace(ALL_ON, aspp=False), replace(ALL_ON, resnest=False)])
def test_zero_initialised_depth_changes_nothing(switches: Switches) -> None:
    """With equal weights elsewhere, a fresh network with depth equals the one without, whatever the depth is."""
    without = make(replace(switches, depth=False))
    with_depth = make(switches)
    missing, unexpected = with_depth.load_state_dict(without.state_dict(), strict=False)
    assert sorted(missing) == ["memory_encoder.depth_stem.weight", "query_encoder.depth_stem.weight"] and not unexpected
    frames, depth, masks = clip(1, 2)
    with torch.no_grad():
        torch.testing.assert_close(
            with_depth(frames, depth, masks, used(1, 2)).logits, without(frames, None, masks, used(1, 2)).logits
        )


def test_depth_stem_learns() -> None:
    """Zero at the start, but its gradient is not: depth is used as soon as training begins."""
    network = make()
    frames, depth, masks = clip(1, 2)
    network(frames, depth, masks, used(1, 2)).logits.square().mean().backward()
    for stem in (network.query_encoder.depth_stem, network.memory_encoder.depth_stem):
        assert stem is not None and stem.weight.grad is not None and float(stem.weight.grad.abs().max()) > 0


def test_a_batch_equals_its_single_items() -> None:
    """Videos of different numbers of objects share a batch without touching each other."""
    network = make(config=replace(TINY, value_mask=True))
    frames, depth, masks = clip(2, 3)
    objects = torch.tensor([[True, True, False], [True, True, True]])
    masks[0, 3] = 0
    with torch.no_grad():
        batch = network(frames, depth, masks, objects).logits
        first = network(frames[:1], depth[:1], masks[:1, :3], used(1, 2)).logits
        second = network(frames[1:], depth[1:], masks[1:], used(1, 3)).logits
    torch.testing.assert_close(batch[:1, :, :3].softmax(2), first.softmax(2), atol=1e-5, rtol=1e-4)
    assert float(batch[0].softmax(1)[:, 3].max()) == 0
    torch.testing.assert_close(batch[1:].softmax(2), second.softmax(2), atol=1e-5, rtol=1e-4)


def test_forward_is_memorize_and_segment() -> None:
    """Training's unroll by the public methods that inference calls."""
    network = make()
    frames, depth, masks = clip(1, 2)
    with torch.no_grad():
        logits = network(frames, depth, masks, used(1, 2)).logits
        slots = [network.memorize(frames[:, 0], depth[:, 0], masks)]
        second = network.segment(network.encode_query(frames[:, 1], depth[:, 1]), stack_slots(slots))
        slots.append(network.memorize(frames[:, 1], depth[:, 1], second.softmax(1)))
        third = network.segment(network.encode_query(frames[:, 2], depth[:, 2]), stack_slots(slots), chunk=3)
    torch.testing.assert_close(logits, torch.stack([second, third], dim=1), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("norm", ["group", "batch"])
def test_forward_equals_a_loop_over_videos_and_objects(norm: Literal["group", "batch"]) -> None:
    """Queries in one batch and shared frame features equal one video, one frame, one object at a time."""
    network = make(config=replace(TINY, value_mask=True, norm=norm)).train(norm == "group")
    for encoder in (network.query_encoder, network.memory_encoder):
        assert encoder.depth_stem is not None
        torch.nn.init.normal_(encoder.depth_stem.weight, std=0.1)
    frames, depth, masks = clip(3, 3, 32, 48, t=4)
    objects = torch.tensor([[True, False, True], [False, True, False], [True, True, True]])
    with torch.no_grad():
        found = network(frames, depth, masks, objects)
        for video in range(3):
            slots_used = objects[video].nonzero()[:, 0].tolist()
            now, slots, expected = masks[video, 1:][objects[video]], list[tuple[Tensor, ...]](), []
            for i in range(4):
                frame, plane = frames[video : video + 1, i], depth[video : video + 1, i]
                if i:
                    query, odds = network.encode_query(frame, plane), []
                    for k in range(len(slots_used)):
                        key, value = (torch.stack([pair[j][k : k + 1] for pair in slots], 2) for j in (0, 1))
                        read = read_memory(query.key, key, value, True)
                        readout = network.aspp(torch.cat([query.value, read], dim=1))
                        odds.append(network.decoder(readout, query.skip8, query.skip4)[0, 0])
                    logits = soft_aggregate(torch.stack(odds)[None])[0]
                    expected.append(logits)
                    now = logits.softmax(0)[1:]
                others = (now.sum(0, keepdim=True) - now).clamp(0, 1)
                planes = [(a[None, None], b[None, None]) for a, b in zip(now, others)]
                pairs = [network.encode_memory(frame, plane, *of_object) for of_object in planes]
                slots.append(tuple(torch.cat(parts) for parts in zip(*pairs)))
            rows = [0, *(slot + 1 for slot in slots_used)]
            torch.testing.assert_close(found.logits[video][:, rows], torch.stack(expected), atol=1e-4, rtol=1e-4)


def test_autocast_keeps_the_logits_of_the_read_in_float32() -> None:
    generator = torch.Generator().manual_seed(0)
    key, keys = (10 * torch.randn(shape, generator=generator) for shape in ((1, 8, 4, 4), (1, 8, 2, 4, 4)))
    value = torch.randn(1, 3, 2, 4, 4, generator=generator)
    exact = read_memory(key, keys, value, scale=True)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(read_memory(key, keys, value, scale=True).float(), exact, atol=0.02, rtol=0.02)


def test_soft_aggregation_by_hand() -> None:
    p = torch.tensor([0.9, 0.2])
    logits = soft_aggregate(torch.logit(p).view(1, 2, 1, 1))
    background = 0.1 * 0.8
    odds = torch.tensor([background / (1 - background), 0.9 / 0.1, 0.2 / 0.8])
    torch.testing.assert_close(logits.softmax(1).flatten(), odds / odds.sum(), atol=1e-6, rtol=1e-5)


def test_soft_aggregation_clamps_the_value_but_not_the_gradient() -> None:
    odds = torch.tensor([40.0, -40.0]).view(1, 2, 1, 1).requires_grad_()
    logits = soft_aggregate(odds)
    limit = torch.logit(torch.tensor(1 - 1e-7, dtype=torch.float64)).float()
    torch.testing.assert_close(logits[0, 1:].flatten(), torch.stack([limit, -limit]), atol=1e-4, rtol=1e-5)
    assert torch.isfinite(logits).all()
    logits[:, 1].sum().backward()
    assert odds.grad is not None and torch.isfinite(odds.grad).all() and float(odds.grad[0, 0]) == 1


def test_shared_start_and_key_scale() -> None:
    network = make(config=replace(TINY, shared_start=True, key_std=1.5))
    query, memory = network.query_encoder.backbone.state_dict(), network.memory_encoder.backbone.state_dict()
    assert all(torch.equal(query[name], memory[name]) for name in query)
    frames, depth, masks = clip(2, 2)
    network.calibrate_keys(frames[:, 0], depth[:, 0], masks, used(2, 2))
    with torch.no_grad():
        assert float(network.encode_query(frames[:, 0], depth[:, 0]).key.std()) == pytest.approx(1.5, rel=1e-3)
        assert float(network.memorize(frames[:, 0], depth[:, 0], masks)[0].std()) == pytest.approx(1.5, rel=1e-3)


def test_frozen_norm_has_no_trainable_statistics() -> None:
    network = make(config=replace(TINY, norm="frozen")).train()
    backbone = network.query_encoder.backbone
    assert not any("bn" in name for name, _ in backbone.named_parameters() if "attn" not in name)
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    frames, depth, masks = clip(1, 1)
    network(frames, depth, masks, used(1, 1))
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())


def test_checkpoint_rebuilds_its_network(tmp_path: Path) -> None:
    network = make()
    path = tmp_path / "dstm.pt"
    save_checkpoint(path, KIND, to_plain(ALL_ON, TINY), network.state_dict())
    assert from_plain(to_plain(ALL_ON, TINY)) == (ALL_ON, TINY)
    loaded = load_dstm(path, torch.device("cpu"))
    frames, depth, masks = clip(1, 1)
    with torch.no_grad():
        torch.testing.assert_close(
            loaded(frames, depth, masks, used(1, 1)).logits, network(frames, depth, masks, used(1, 1)).logits
        )


def test_checkpoint_of_another_architecture(tmp_path: Path) -> None:
    path = tmp_path / "dstm.pt"
    save_checkpoint(path, KIND, to_plain(replace(ALL_ON, aspp=False), TINY), make().state_dict())
    with pytest.raises(UserError, match="another architecture"):
        load_dstm(path, torch.device("cpu"))


def test_published_backbones_take_their_place() -> None:
    """The paper's profile: ResNeSt-50 and ResNet-50 to stride 16, on the meta device, so that nothing is computed."""
    paper = replace(TINY, resnest_backbone="resnest50d", resnet_backbone="resnet50.tv_in1k", width=1.0, norm="frozen")
    for resnest in (True, False):
        with torch.device("meta"):
            network = DSTM(replace(ALL_ON, resnest=resnest), paper, awaits_weights=True)
        assert network.query_encoder.backbone.channels == (256, 512, 1024)
