"""A tiny network whose random weights give every object a part of the picture, and a plain twin of the propagation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from pipeline.dstm.config import Switches
from pipeline.dstm.memory import stack_slots
from pipeline.dstm.network import DSTM
from pipeline.inference.config import InferConfig, InferSwitches
from pipeline.inference.frames import Frame
from pipeline.inference.propagate import propagate
from tests.support.tiny_archives import Toy, make_toy
from tests.support.toy_network import TINY

Mask = NDArray[np.uint8]
CPU = torch.device("cpu")
PLAIN = InferSwitches(tta=False)
TTA = InferSwitches(tta=True)
CONFIG = InferConfig(
    split="val",
    short_side=0,
    memory_every=3,
    memory_frames=0,
    memory_gb=1.0,
    lookahead=4,
    chunk=5,
    precision="fp32",
    flip=True,
    tta_memory="own",
    scales=(1.0, 1.3),
)
NETWORK = replace(TINY, stride=8, value_mask=True, key_std=3.0)


@torch.no_grad()
def make_network(depth: bool = True) -> DSTM:
    """Random weights, brought to where every input matters: the statistics of a toy, sharp keys, balanced odds."""
    torch.manual_seed(3)
    network = DSTM(Switches(resnest=False, depth=depth, aspp=True, depth_input="estimated"), NETWORK)
    for encoder in (network.query_encoder, network.memory_encoder):
        if encoder.depth_stem is not None:
            torch.nn.init.normal_(encoder.depth_stem.weight, std=0.1)
    toy = make_toy(4, 2, 40, 56)
    frames = torch.from_numpy(toy.frames).permute(0, 3, 1, 2).float() / 255
    maps = torch.from_numpy(toy.depths)[:, None]
    masks = torch.cat([one_hot(mask, 2) for mask in toy.masks])
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # plain mean over the passes
    network.train()
    network.memorize(frames, maps, masks)
    network.encode_query(frames, maps)
    network.eval().calibrate_keys(frames, maps, masks, torch.ones(4, 2, dtype=torch.bool))
    memory = stack_slots([network.memorize(frames, maps, masks)])
    odds = network.segment(network.encode_query(frames, maps), memory)[:, 1:]
    predict = network.decoder.predict
    assert predict.bias is not None
    predict.weight.mul_(2 / odds.std())
    predict.bias.copy_(torch.tensor([0.0, -2 * float(odds.mean() / odds.std())]))
    return network


def frames_of(toy: Toy) -> list[Frame]:
    return [Frame(rgb, depth) for rgb, depth in zip(toy.frames, toy.depths)]


def video(n_frames: int = 9, n_objects: int = 2, height: int = 40, width: int = 56) -> tuple[list[Frame], Mask]:
    """A toy video and its first mask."""
    toy = make_toy(n_frames, n_objects, height, width)
    return frames_of(toy), toy.masks[0]


def labels(
    network: DSTM,
    frames: list[Frame],
    masks: Mapping[int, Mask],
    switches: InferSwitches = PLAIN,
    **changes: object,
) -> NDArray[np.uint8]:
    """T,H,W label maps of the propagation under test."""
    return np.stack(list(propagate(network, frames, masks, switches, replace(CONFIG, **changes), CPU)))  # type: ignore[arg-type]


def one_hot(mask: Mask, n_objects: int) -> Tensor:
    return F.one_hot(torch.from_numpy(mask).long(), n_objects + 1).permute(2, 0, 1)[None].float()


def resize(x: Tensor, size: tuple[int, int], mode: str) -> Tensor:
    if mode == "nearest-exact":
        return F.interpolate(x, size=size, mode=mode)
    return F.interpolate(x, size=size, mode=mode, align_corners=False, antialias=size[0] < x.shape[-2])


def without(probabilities: Tensor, named: Tensor) -> Tensor:
    """1,K+1,H,W probabilities without some objects, pixel by pixel: what they won goes to the background."""
    result = probabilities.clone()
    for y, x in np.ndindex(*probabilities.shape[-2:]):
        pixel = probabilities[0, :, y, x].tolist()
        winner = pixel.index(max(pixel))
        rest = [0.0 if k and bool(named[k - 1]) else p for k, p in enumerate(pixel)]
        if winner and bool(named[winner - 1]):
            rest[0] += sum(pixel) - sum(rest)
        result[0, :, y, x] = torch.tensor(rest) / sum(rest)
    return result


@torch.inference_mode()
def naive(
    network: DSTM,
    frames: list[Frame],
    masks: Mapping[int, Mask],
    n_objects: int,
    kept: Callable[[int], list[int]],
    views: list[tuple[float, bool]],
    averaged: bool = False,
) -> NDArray[np.uint8]:
    """Every view memorizes every frame; `kept(t)` picks those that segment frame t. Ids are 1..K."""
    height, width = masks[0].shape
    slots: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}
    seen = torch.zeros(n_objects, dtype=torch.bool)
    results = []
    for t, frame in enumerate(frames):
        rgb = torch.from_numpy(frame.rgb).permute(2, 0, 1)[None].float() / 255
        assert frame.depth is not None
        depth = torch.from_numpy(frame.depth)[None, None]
        inputs, estimates = [], []
        for v, (scale, mirrored) in enumerate(views):
            size = (round(height * scale), round(width * scale))
            small_rgb, small_depth = resize(rgb, size, "bilinear"), resize(depth, size, "bilinear")
            inputs.append((small_rgb.flip(-1), small_depth.flip(-1)) if mirrored else (small_rgb, small_depth))
            if t:
                memory = stack_slots([slots[v, i] for i in kept(t)])
                query = network.encode_query(inputs[v][0], inputs[v][1])
                estimates.append(network.segment(query, memory, seen[None]).softmax(dim=1))
        if t:
            upright = [e.flip(-1) if mirrored else e for e, (_, mirrored) in zip(estimates, views)]
            mean = torch.stack([resize(u, (height, width), "bilinear") for u in upright]).mean(dim=0)
        else:
            mean = one_hot(np.zeros_like(masks[0]), n_objects)
        given = one_hot(masks.get(t, np.zeros_like(masks[0])), n_objects)
        named = given[0, 1:].flatten(1).any(dim=1)
        if t and bool((named & seen).any()):
            mean = without(mean, named)
        seen |= named
        mean = torch.where(given[:, :1] == 0, given, mean)
        results.append(mean[0].argmax(dim=0).to(torch.uint8).numpy())
        for v, (scale, mirrored) in enumerate(views):
            size = (round(height * scale), round(width * scale))
            if t == 0 or averaged:
                own = resize(mean, size, "bilinear" if t else "nearest-exact")
                own = own.flip(-1) if mirrored else own
            else:
                small = resize(given, size, "nearest-exact")
                small = small.flip(-1) if mirrored else small
                estimate = without(estimates[v], named) if given[:, 1:].any() else estimates[v]
                own = torch.where(small[:, :1] == 0, small, estimate)
            slots[v, t] = network.memorize(inputs[v][0], inputs[v][1], own)
    return np.stack(results)
