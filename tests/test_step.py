"""One optimizer step: the same gradient however the batch is divided, and what is left out or refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
import torch

from pipeline.core.processes import Processes
from pipeline.datasets.clips import Batch, ClipDataset, collate
from pipeline.dstm.network import DSTM
from pipeline.training.config import LossSwitches, TrainingConfig
from pipeline.training.losses import Objective, clip_jaccard
from pipeline.training.state import make_state
from pipeline.training.step import TrainingStep
from tests.support.tiny_archives import Toy
from tests.support.toy_network import ALL_ON, TINY
from tests.support.toy_training import PLAIN, TRAINING, toy_source

CPU = torch.device("cpu")
SMALL = replace(
    TRAINING,
    batch=12,
    carried_weight=0.5,
    clips=replace(TRAINING.clips, n_frames=2, augment=replace(PLAIN, crop=32, max_scale=1.5)),
)


def draw(toy: Toy, config: TrainingConfig, count: int) -> Batch:
    dataset = ClipDataset([toy_source(toy)], config.clips)
    clips = [dataset.sample(np.random.default_rng(seed), 1) for seed in range(count)]
    return collate(clips, config.clips.max_objects).to(CPU)


def gradients(batch: Batch, norm: Literal["frozen", "group"], clips_per_pass: int) -> dict[str, torch.Tensor]:
    """Those of a step, which leaves them behind."""
    torch.manual_seed(0)
    network = DSTM(ALL_ON, replace(TINY, norm=norm, value_mask=True), awaits_weights=True).train()
    state = make_state(network, SMALL, CPU, torch.float32)
    objective = Objective(LossSwitches(True), SMALL)
    step = TrainingStep(
        network, state, objective, replace(SMALL, clip_norm=0.0), clips_per_pass, torch.float32, Processes(0, 1)
    )
    step(batch, 1.0e-3, True, False)
    return {name: p.grad for name, p in network.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("norm", ["frozen", "group"])
def test_a_batch_has_one_gradient_however_it_is_divided(toy_video: Toy, norm: Literal["frozen", "group"]) -> None:
    """12 at once; three passes of 4; and, as in 4 processes of 3 clips, the mean of the gradients of the shares."""
    batch = draw(toy_video, SMALL, 12)
    assert not bool(batch.objects.all()), "clips with fewer objects than slots, so that a mean over slots would differ"
    whole, passes = gradients(batch, norm, 0), gradients(batch, norm, 4)
    shares = [gradients(part, norm, 0) for part in batch.parts(3)]
    mean = {name: torch.stack([share[name] for share in shares]).mean(0) for name in whole}
    largest = max(float(gradient.abs().max()) for gradient in whole.values())
    for name, gradient in whole.items():
        torch.testing.assert_close(passes[name], gradient, atol=1e-5 * largest, rtol=1e-3)
        torch.testing.assert_close(mean[name], gradient, atol=1e-5 * largest, rtol=1e-3)


def test_a_step_in_float16_that_overflows_is_left_out(toy_video: Toy) -> None:
    config = replace(SMALL, precision="fp16", batch=2)
    torch.manual_seed(0)
    network = DSTM(ALL_ON, replace(TINY, norm="group")).train()
    state = make_state(network, config, CPU, torch.float16)
    step = TrainingStep(
        network, state, Objective(LossSwitches(True), config), config, 0, torch.float32, Processes(0, 1)
    )
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    state.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8, enabled=True)
    overflow = network.decoder.predict.weight.register_hook(lambda gradient: gradient * float("inf"))
    reading = step(draw(toy_video, config, 2), 1.0e-3, True, False)
    assert reading is not None and reading.losses["loss"] < 10  # the loss itself is fine
    assert all(torch.equal(p, before[name]) for name, p in network.named_parameters())
    assert state.scaler.get_scale() == 2.0**7
    overflow.remove()
    step(draw(toy_video, config, 2), 1.0e-3, True, False)
    assert not all(torch.equal(p, before[name]) for name, p in network.named_parameters())


def test_jaccard_of_training_clips() -> None:
    """By hand: clip 0 has one object with J 1/2 and then 1; clip 1 two objects, one of them nowhere."""
    labels = torch.tensor([[[[1, 1, 0, 255]], [[0, 0, 1, 255]]], [[[2, 0, 0, 0]], [[2, 2, 0, 0]]]])
    predicted = torch.tensor([[[[1, 0, 0, 1]], [[0, 0, 1, 1]]], [[[2, 2, 0, 0]], [[0, 0, 0, 0]]]])
    logits = torch.nn.functional.one_hot(predicted, 3).permute(0, 1, 4, 2, 3).float()
    objects = torch.tensor([[True, False], [True, True]])
    torch.testing.assert_close(clip_jaccard(logits, labels, objects), torch.tensor([0.75, (1 + 0.5 + 1 + 0) / 4]))
