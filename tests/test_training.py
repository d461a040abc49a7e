"""The training loop: resume equals no interruption, processes change nothing, one clip is learnt."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pipeline.core.checkpoint import load_checkpoint
from pipeline.core.errors import UserError
from pipeline.core.processes import Processes
from pipeline.core.resume import state_folder
from pipeline.datasets.clips import Batch, ClipDataset
from pipeline.dstm.checkpoint import KIND, load_dstm
from pipeline.dstm.network import DSTM, Unrolled
from pipeline.training.config import LossSwitches, RunOptions, TrainingConfig
from pipeline.training.curriculum import learning_rate, max_skip
from pipeline.training.loop import Files, fit
from pipeline.training.losses import Objective
from pipeline.training.stage import Job, make_network, run_job
from pipeline.training.state import State
from pipeline.training.step import one_hot
from tests.support.tiny_archives import Toy
from tests.support.toy_network import ALL_ON, TINY
from tests.support.toy_training import OPTIONS, TRAINING, toy_source

CPU = torch.device("cpu")
ALONE = Processes(0, 1)
TWO_WORKERS = replace(OPTIONS, workers=2)


class StopAfter(Objective):
    """Interrupts training after some steps, as Ctrl-C would between them."""

    def __init__(self, config: TrainingConfig, steps: int) -> None:
        super().__init__(LossSwitches(True), config)
        self.left = steps

    def __call__(self, outcome: Unrolled, batch: Batch) -> dict[str, torch.Tensor]:
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1
        return super().__call__(outcome, batch)


def train(
    toy: Toy, state: Path, objective: Objective, config: TrainingConfig, options: RunOptions = OPTIONS
) -> tuple[DSTM, list[dict[str, float]]]:
    torch.manual_seed(0)
    network = DSTM(ALL_ON, replace(TINY, key_std=1.5))
    dataset = ClipDataset([toy_source(toy)], config.clips)
    return network, run_fit(network, dataset, objective, config, options, state)


def run_fit(
    network: DSTM,
    dataset: ClipDataset,
    objective: Objective,
    config: TrainingConfig,
    options: RunOptions,
    state: Path,
) -> list[dict[str, float]]:
    return fit(
        network,
        dataset,
        objective,
        config,
        options,
        seed=3,
        device=CPU,
        files=Files(state, state.with_suffix(".csv"), state.with_suffix(".events"), state.with_suffix(".kept")),
        processes=ALONE,
    )


@pytest.mark.parametrize("ema_decay", [0.0, 0.7])
def test_resume_equals_no_interruption(toy_video: Toy, tmp_path: Path, ema_decay: float) -> None:
    config = replace(TRAINING, ema_decay=ema_decay)
    whole, history = train(toy_video, tmp_path / "a.pt", Objective(LossSwitches(True), config), config)
    with pytest.raises(KeyboardInterrupt):
        train(toy_video, tmp_path / "b.pt", StopAfter(config, 5), config)
    assert load_checkpoint(tmp_path / "b.pt", "dstm-training")["step"] == 3  # the last whole epoch
    resumed, again = train(toy_video, tmp_path / "b.pt", Objective(LossSwitches(True), config), config, TWO_WORKERS)
    assert history == again
    assert all(torch.equal(value, resumed.state_dict()[name]) for name, value in whole.state_dict().items())


def test_overfits_one_clip(toy_video: Toy, tmp_path: Path) -> None:
    """Sixty steps on one toy video: most pixels of both objects are right."""
    config = replace(TRAINING, epochs=1, steps_per_epoch=60, lr=3.0e-3, decay_epoch=1, skip_end=0)
    network, history = train(toy_video, tmp_path / "s.pt", Objective(LossSwitches(True), config), config)
    network.eval()
    frames = torch.from_numpy(toy_video.frames[:3]).permute(0, 3, 1, 2)[None].float() / 255
    labels = torch.from_numpy(toy_video.masks[:3]).long()[None]
    with torch.no_grad():
        objects = torch.ones(1, 2, dtype=torch.bool)
        predicted = network(frames, torch.zeros(1, 3, 1, 48, 64), one_hot(labels[:, 0], 3), objects).logits.argmax(2)
    for k in (1, 2):
        both, either = (predicted == k) & (labels[:, 1:] == k), (predicted == k) | (labels[:, 1:] == k)
        assert float(both.sum() / either.sum()) > 0.6, f"object {k}"
    assert history[-1]["loss"] < 1.2


class Snapshots(Objective):
    """Keeps the weights that each step starts from."""

    def __init__(self, config: TrainingConfig, network: DSTM) -> None:
        super().__init__(LossSwitches(True), config)
        self.network = network
        self.seen: list[dict[str, torch.Tensor]] = []

    def __call__(self, outcome: Unrolled, batch: Batch) -> dict[str, torch.Tensor]:
        self.seen.append({name: value.clone() for name, value in self.network.state_dict().items()})
        return super().__call__(outcome, batch)


def test_network_ends_with_the_moving_average(toy_video: Toy, tmp_path: Path) -> None:
    """The average starts at the weights after the first step and keeps 0.7 of itself at each later one."""
    config = replace(TRAINING, ema_decay=0.7)
    dataset = ClipDataset([toy_source(toy_video)], config.clips)
    torch.manual_seed(0)
    network = DSTM(ALL_ON, replace(TINY, norm="group"))
    objective, state = Snapshots(config, network), tmp_path / "s.pt"
    run_fit(network, dataset, objective, config, OPTIONS, state)
    last = load_checkpoint(state, "dstm-training")["state_dict"]
    name = "decoder.predict.weight"
    expected = objective.seen[1][name]
    for weights in [*objective.seen[2:], last]:
        expected = 0.7 * expected + 0.3 * weights[name]
    torch.testing.assert_close(network.state_dict()[name], expected)
    assert not torch.equal(network.state_dict()[name], last[name])


def test_batch_too_small_for_batch_norm_is_refused(toy_video: Toy, tmp_path: Path) -> None:
    config = replace(TRAINING, batch=1)
    with pytest.raises(UserError, match="batch is 1 over 1 processes with"):
        train(toy_video, tmp_path / "s.pt", Objective(LossSwitches(True), config), config)


class NotFinite(Objective):
    """Gives no number at step 2."""

    def __call__(self, outcome: Unrolled, batch: Batch) -> dict[str, torch.Tensor]:
        losses = super().__call__(outcome, batch)
        self.step = getattr(self, "step", -1) + 1
        return {**losses, "loss": losses["loss"] * (math.nan if self.step == 2 else 1.0)}


def test_a_loss_that_is_not_finite_changes_no_weight(
    toy_video: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[int] = []
    update = State.update

    def counted(state: State) -> None:
        steps.append(state.step)
        update(state)

    monkeypatch.setattr(State, "update", counted)
    with pytest.raises(UserError, match="the loss is nan at step 2 with the clips toy/toy/0000"):
        train(toy_video, tmp_path / "s.pt", NotFinite(LossSwitches(True), TRAINING), TRAINING)
    assert steps == [0, 1]


def test_a_loss_that_is_not_finite_stops(toy_video: Toy, tmp_path: Path) -> None:
    config = replace(TRAINING, lr=1.0e30, clip_norm=0.0)
    with pytest.raises(UserError, match="expected a finite number"):
        train(toy_video, tmp_path / "s.pt", Objective(LossSwitches(True), config), config)


def test_stage_writes_a_checkpoint_that_loads(toy_video: Toy, tmp_path: Path) -> None:
    job = Job(
        "pretrain", ALL_ON, TINY, LossSwitches(False), TRAINING, 0, CPU, OPTIONS, {"x": "1"}, tmp_path / "scratch",
        tmp_path / "m.pt", tmp_path / "c.csv",
    )  # fmt: skip
    run_job(job, make_network(job), [toy_source(toy_video)])
    assert load_dstm(tmp_path / "m.pt", CPU).switches == ALL_ON
    lines = (tmp_path / "c.csv").read_text().splitlines()
    assert lines[0] == "epoch,step,lr,max_skip,loss,cross_entropy,jaccard" and len(lines) == 3
    assert lines[1].split(",")[:4] == ["1", "3", "0.001", "0"] and lines[2].split(",")[:4] == ["2", "6", "0.0005", "1"]
    assert not list((tmp_path / "scratch").rglob("*.pt"))  # the resume state is gone
    first = (tmp_path / "m.pt").read_bytes()
    run_job(job, make_network(job), [toy_source(toy_video)])
    assert (tmp_path / "m.pt").read_bytes() == first  # two runs, one result
    assert load_checkpoint(tmp_path / "m.pt", KIND)["config"]["model"]["aspp"] is True


def test_key_of_the_resume_state_tells_settings_and_inputs_apart(tmp_path: Path) -> None:
    job = Job(
        "train", ALL_ON, TINY, LossSwitches(True), TRAINING, 0, CPU, OPTIONS, {"x": "1"}, tmp_path, tmp_path, tmp_path
    )
    others = [
        replace(job, seed=1),
        replace(job, inputs={"x": "2"}),
        replace(job, loss=LossSwitches(False)),
        replace(job, switches=replace(ALL_ON, depth=False)),
        replace(job, config=replace(TRAINING, lr=1.0)),
        replace(job, network=replace(TINY, key_channels=16)),
    ]
    folders = [state_folder(tmp_path, one.facts) for one in [job, *others]]
    assert len(set(folders)) == len(others) + 1
    assert state_folder(tmp_path, replace(job, options=TWO_WORKERS, model_path=tmp_path / "m").facts) == folders[0]


def test_paper_curriculum_and_schedule() -> None:
    """Section 3.1: skips from 0 to 25, learning rate 1e-5 divided by 2 after 100 of 150 epochs."""
    config = replace(TRAINING, epochs=150, lr=1.0e-5, decay_epoch=100, skip_start=0, skip_end=25)
    assert max_skip(config, 0) == 0 and max_skip(config, 149) == 25
    skips = [max_skip(config, epoch) for epoch in range(150)]
    assert skips == sorted(skips) and set(skips) == set(range(26))
    rates = [learning_rate(config, step, 10) for step in range(1500)]
    assert set(rates[:1000]) == {1.0e-5} and set(rates[1000:]) == {0.5e-5}


def test_cosine_schedule_with_warm_up() -> None:
    config = replace(TRAINING, epochs=10, schedule="cosine", lr=1.0, warmup_steps=4)
    rates = [learning_rate(config, step, 10) for step in range(100)]
    assert rates[0] == pytest.approx(0.25) and max(rates) < 1
    assert rates[50] == pytest.approx(0.5) and rates[-1] == pytest.approx(0.5 * (1 + math.cos(math.pi * 0.99)))


def test_processes_share_the_batch() -> None:
    parts = [list(Processes(rank, 4).share(12)) for rank in range(4)]
    assert sorted(place for part in parts for place in part) == list(range(12)) and {len(part) for part in parts} == {3}
    with pytest.raises(UserError, match="multiple"):
        Processes(0, 5).share(12)


@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path: Path) -> None:
    """The global batch is shared out, so the number of processes does not change the result."""
    root = Path(__file__).resolve().parents[1]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    results = []
    for name, launcher in (("one", []), ("two", torchrun)):
        out = tmp_path / f"{name}.json"
        command = [sys.executable, *launcher, "-m", "tests.support.train_toy", str(out)]
        subprocess.run(command, cwd=root, env=environment, check=True, capture_output=True)
        results.append(json.loads(out.read_text()))
    one, two = results
    for mine, theirs in zip(one["history"], two["history"], strict=True):
        assert mine == pytest.approx(theirs, rel=1e-3)
    for sums in (one["sums"], two["sums"]):
        # adds the same to k^Q . k^M at every memory place, which a softmax does not see: its gradient is rounding alone
        del sums["memory_heads.key.bias"]
    # Adam moves a bias whose gradient is near 0 by up to lr in a direction that rounding decides
    assert one["sums"] == pytest.approx(two["sums"], rel=1e-3, abs=2e-4)
