from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from pipeline.core.archives import ZipWriter
from pipeline.core.errors import UserError
from pipeline.core.images import encode_jpeg
from pipeline.depth_training import trainer
from pipeline.depth_training.averaging import recompute_statistics
from pipeline.depth_training.optimizers import DepthOptimizer
from pipeline.depth_training.replicas import average_statistics, replicate
from pipeline.depth_training.validation import warnings
from pipeline.hourglass.batches import augment, epoch_batches, input_sides
from pipeline.hourglass.checkpoint import PUBLISHED, load_hourglass
from pipeline.hourglass.config import (
    DepthAugmentConfig,
    DepthLossConfig,
    DepthValidationConfig,
    HourglassConfig,
    TrainDepthConfig,
)
from pipeline.hourglass.network import Hourglass
from pipeline.train_depth import run

NETWORK = HourglassConfig(width=0.125, stem_stride=2, input_height=64, input_width=96)
CONFIG = TrainDepthConfig(
    checkpoint="none",
    seed=3,
    epochs=2,
    batch=4,
    replicas=2,
    optimizer="muon",
    lr=2e-3,
    muon_lr=0.05,
    warmup_steps=2,
    schedule="cosine",
    halve_every=1,
    ema_decay=0.5,
    statistics_batches=2,
    statistics_batch=4,
    frozen_epochs=1,
    precision="fp32",
    loss=DepthLossConfig(data=1.0, gradient=0.75, first_order=0.075, second_order=0.1, scales=3),
    augment=DepthAugmentConfig(flip=True, zoom=1.2, jitter=0.1),
    validation=DepthValidationConfig(
        pairs=50,
        min_ratio=1.05,
        still_change=0.05,
        steady=0.9,
        percentile_low=2.0,
        percentile_high=98.0,
        warn_si_rmse=0.0,
        warn_ordered_pairs=0.0,
    ),
)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def write_frames(folder: Path, videos: dict[str, int]) -> Path:
    """Two objects before a background; what is darker is farther."""
    rng = np.random.default_rng(0)
    with ZipWriter(folder / "mannequin.zip") as archive:
        for video, n_frames in videos.items():
            depths = rng.uniform(1, 8, 3)
            for i in range(n_frames):
                ids = np.zeros((72, 104), np.uint8)
                ids[10:40, 5 + i : 45 + i], ids[30:60, 60:90] = 1, 2
                depth = depths[ids]
                rgb = (np.repeat((230 - 25 * depth)[..., None], 3, 2) + rng.normal(0, 3, (72, 104, 3))).clip(0, 255)
                stem = f"MannequinChallenge/{video}"
                archive.write(f"{stem}/rgb/{i:05d}.jpg", encode_jpeg(rgb.astype(np.uint8)))
                archive.write(f"{stem}/depth/{i:05d}.png", png((depth * 1000).astype(np.uint16)))
                archive.write(f"{stem}/instances/{i:05d}.png", png(ids))
    return folder


def png(image: np.ndarray[Any, Any]) -> bytes:
    return bytes(cv2.imencode(".png", image)[1].tobytes())


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return write_frames(tmp_path / "raw", {"train/a": 5, "train/b": 4, "val/c": 3, "val/d": 1})


def train(raw: Path, out: Path, config: TrainDepthConfig = CONFIG, scratch: str = "scratch") -> dict[str, torch.Tensor]:
    model, metrics = out / "depth.pt", out / "depth.json"
    run(NETWORK, config, raw, model, metrics, out / scratch, torch.device("cpu"), workers=2, save_every=2)
    return load_hourglass(model).state_dict()


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def test_trains_judges_and_repeats_itself(raw: Path, tmp_path: Path) -> None:
    first = train(raw, tmp_path / "one")
    assert equal(first, train(raw, tmp_path / "two"))
    texts = [(tmp_path / name / "depth.json").read_text() for name in ("one", "two")]
    assert texts[0] == texts[1]
    figures = json.loads(texts[0])
    assert figures["weights"] == "trained" and figures["frames"] == 4
    assert 0 < figures["pairs"] <= 4 * 50 and 0 <= figures["ordered_pairs"] <= 1
    assert figures["si_rmse"] > 0 and figures["static_change"]["per_video"] is not None
    assert not list((tmp_path / "one" / "scratch").iterdir())


def test_goes_on_after_a_kill_with_the_same_result(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = train(raw, tmp_path / "whole")
    save, calls = trainer.store_state, []

    def killed(*args: Any, **kwargs: Any) -> None:
        save(*args, **kwargs)
        calls.append(args)
        if len(calls) == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "store_state", killed)
        with pytest.raises(KeyboardInterrupt):
            train(raw, tmp_path / "cut")
    assert not (tmp_path / "cut" / "depth.pt").exists()
    resumed = train(raw, tmp_path / "cut")
    assert "resuming after step 0 of epoch 2 of 2" in capsys.readouterr().out
    assert equal(whole, resumed)

    with monkeypatch.context() as patch:
        calls.clear()
        patch.setattr(trainer, "store_state", killed)
        with pytest.raises(KeyboardInterrupt):
            train(raw, tmp_path / "other")
    train(raw, tmp_path / "other", replace(CONFIG, lr=1e-3))
    assert "resuming" not in capsys.readouterr().out  # other parameters, other state


def test_replicas_give_the_gradient_of_the_mean_of_their_losses(raw: Path, tmp_path: Path) -> None:
    """Two replicas on two equal halves do what one does on one half."""
    steps = []
    for replicas, repeat in ((1, 1), (2, 2)):
        torch.manual_seed(0)
        model = Hourglass(NETWORK)
        config = replace(CONFIG, optimizer="adam", replicas=replicas, batch=2 * repeat, warmup_steps=0)
        config = replace(config, ema_decay=0.0, statistics_batches=0, frozen_epochs=0, epochs=1)
        half = trainer.DepthBatch(torch.rand(2, 3, 64, 96), torch.rand(2, 32, 48) + 1)
        batch = trainer.DepthBatch(half.frames.repeat(repeat, 1, 1, 1), half.depth.repeat(repeat, 1, 1))
        trainer.DepthTrainer(model, config, 1).run(lambda epoch, first, b=batch: iter([b]))  # type: ignore[misc]
        steps.append(model.state_dict())
    for name, value in steps[0].items():
        torch.testing.assert_close(steps[1][name], value, atol=1e-6, rtol=1e-5)


def test_the_result_is_the_moving_average_of_the_weights() -> None:
    """Compared with the weights after each step, averaged by hand; the first step starts the average."""
    torch.manual_seed(0)
    batches = [trainer.DepthBatch(torch.rand(2, 3, 64, 96), torch.rand(2, 32, 48) + 1) for _ in range(3)]
    config = replace(CONFIG, replicas=1, batch=2, epochs=1, statistics_batches=0, frozen_epochs=0)

    def watched(
        model: Hourglass, seen: list[dict[str, torch.Tensor]], epoch: int, first: int
    ) -> Iterator[trainer.DepthBatch]:
        for batch in batches:
            yield batch
            seen.append({name: value.detach().clone() for name, value in model.state_dict().items()})

    results = {}
    for decay in (0.0, 0.75):
        torch.manual_seed(1)
        model = Hourglass(NETWORK)
        seen: list[dict[str, torch.Tensor]] = []
        fitter = trainer.DepthTrainer(model, replace(config, ema_decay=decay), steps_per_epoch=3)

        fitter.run(partial(watched, model, seen))
        results[decay] = model.state_dict()
        steps = seen[:3]
    for name, value in results[0.75].items():
        if value.is_floating_point():
            expected = 0.75 * (0.75 * steps[0][name] + 0.25 * steps[1][name]) + 0.25 * steps[2][name]
            torch.testing.assert_close(value, expected, atol=1e-6, rtol=1e-5)
            torch.testing.assert_close(results[0.0][name], steps[2][name], atol=0, rtol=0)


def test_recomputed_statistics_are_the_mean_over_the_batches() -> None:
    """Of the first BatchNorm layer, whose input does not depend on the others; old statistics leave no trace."""
    torch.manual_seed(0)
    model = Hourglass(NETWORK)
    stem, norm = model.seq[0], model.seq[1]
    assert isinstance(norm, torch.nn.BatchNorm2d) and norm.running_mean is not None and norm.running_var is not None
    norm.running_mean.fill_(50.0)
    momenta = [m.momentum for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    batches = [torch.rand(4, 3, 64, 96) * scale for scale in (1.0, 0.5, 2.0)]
    weights = {name: value.clone() for name, value in model.named_parameters()}
    recompute_statistics(model, batches, torch.float32)
    with torch.no_grad():
        outs = [stem(batch).transpose(0, 1).flatten(1) for batch in batches]
    mean, variance = (torch.stack(values).mean(0) for values in ([o.mean(1) for o in outs], [o.var(1) for o in outs]))
    torch.testing.assert_close(norm.running_mean, mean, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(norm.running_var, variance, atol=1e-5, rtol=1e-4)
    assert not model.training and all(torch.equal(p, weights[name]) for name, p in model.named_parameters())
    assert momenta == [m.momentum for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]


def test_statistics_without_batches_stay_as_they_are() -> None:
    model = Hourglass(NETWORK)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    recompute_statistics(model, [], torch.float32)
    assert equal(model.state_dict(), before)


def test_the_last_epochs_are_trained_as_the_network_is_used(raw: Path) -> None:
    """The statistics are recomputed once, in large batches of an epoch of their own, and then stay as they are."""
    torch.manual_seed(0)
    config = replace(CONFIG, epochs=3, frozen_epochs=2, batch=2, statistics_batches=2, statistics_batch=4)
    model = Hourglass(NETWORK)
    asked, modes = [], []
    fitter = trainer.DepthTrainer(model, config, steps_per_epoch=2)

    def batches(epoch: int, first: int) -> Iterator[trainer.DepthBatch]:
        generator = torch.Generator().manual_seed(epoch)
        asked.append(epoch)
        for _ in range(5):
            frames = torch.rand(2, 3, 64, 96, generator=generator)
            yield trainer.DepthBatch(frames, torch.rand(2, 32, 48, generator=generator) + 1)
            modes.append((epoch, model.training))
            if epoch == 1 and len(statistics) == 0:
                statistics.update({n: b.clone() for n, b in model.named_buffers() if b.is_floating_point()})

    statistics: dict[str, torch.Tensor] = {}
    fitter.run(batches)
    assert asked == [0, 3, 1, 2] and not model.training
    assert [training for epoch, training in modes if epoch == 0] == [True] * 5
    assert [training for epoch, training in modes if epoch in (1, 2)] == [False] * 10
    assert statistics and all(torch.equal(b, statistics[n]) for n, b in model.named_buffers() if n in statistics)


def test_replicas_share_their_statistics(raw: Path) -> None:
    torch.manual_seed(0)
    model = Hourglass(NETWORK)
    replicas = replicate(model, 3)
    for i, replica in enumerate(replicas):
        for buffer in replica.buffers():
            if buffer.is_floating_point():
                buffer.fill_(float(i))
    average_statistics(replicas)
    for replica in replicas:
        assert all(bool((b == 1.0).all()) for b in replica.buffers() if b.is_floating_point())


def test_a_poor_network_gets_one_line(raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    limits = replace(CONFIG.validation, warn_si_rmse=0.2, warn_ordered_pairs=0.85)
    fine = {"si_rmse": 0.2, "ordered_pairs": 0.85}
    assert warnings(fine, limits) == []
    assert warnings({"si_rmse": None, "ordered_pairs": None}, limits) == []
    (line,) = warnings({"si_rmse": 0.3, "ordered_pairs": 0.8}, limits)
    assert "si_rmse is 0.300, expected at most 0.2; ordered_pairs is 0.800, expected at least 0.85" in line
    assert warnings({"si_rmse": 0.3, "ordered_pairs": 0.8}, CONFIG.validation) == []
    strict = replace(CONFIG, validation=replace(CONFIG.validation, warn_si_rmse=1e-6))
    train(raw, tmp_path / "out", strict)
    assert capsys.readouterr().out.count("warning: the depth network is poor") == 1


def test_schedules() -> None:
    def factors(config: TrainDepthConfig, steps: list[int]) -> list[float]:
        rates = trainer.DepthTrainer(Hourglass(NETWORK), config, steps_per_epoch=10)
        return [rates.rate_factor(step) for step in steps]

    published = replace(CONFIG, schedule="halve", halve_every=8, warmup_steps=0)
    assert factors(published, [0, 79, 80, 159, 160]) == [1, 1, 0.5, 0.5, 0.25]
    cosine = replace(CONFIG, epochs=4, warmup_steps=4)
    assert factors(cosine, [0, 20, 40]) == pytest.approx([0.25, 0.5, 0])


def test_muon_steps_are_orthogonal() -> None:
    model = Hourglass(NETWORK).to(memory_format=torch.channels_last)
    optimizer = DepthOptimizer(model, replace(CONFIG, optimizer="muon", muon_lr=0.1))
    optimizer.set_factor(0.5)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for p in model.parameters():
        p.grad = torch.randn_like(p)
    optimizer.step()
    for name, p in model.named_parameters():
        step = (p.detach() - before[name]).flatten(1 if p.ndim > 1 else 0)
        if p.ndim == 4 and name.startswith("seq."):
            singular = torch.linalg.svdvals(step / max(1, step.shape[0] / step.shape[1]) ** 0.5)
            assert float((singular / 0.05 - 1).abs().max()) < 0.5  # as near as the five iterations come
        else:
            torch.testing.assert_close(step.abs(), torch.full_like(step, 0.5 * CONFIG.lr), atol=1e-6, rtol=1e-3)


def test_without_frames_a_checkpoint_is_needed(raw: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "manifest.json").write_text('{"files": []}')
    with pytest.raises(UserError, match=r"no frames with depth and train_depth\.checkpoint is none"):
        train(empty, tmp_path / "out")

    weights = tmp_path / "best_net_G.pth"
    torch.save(Hourglass(PUBLISHED).state_dict(), weights)
    train(empty, tmp_path / "out", replace(CONFIG, checkpoint=str(weights)))
    assert json.loads((tmp_path / "out" / "depth.json").read_text()) == {"weights": "checkpoint", "frames": 0}

    ours = train(raw, tmp_path / "own")
    again = train(raw, tmp_path / "taken", replace(CONFIG, checkpoint=str(tmp_path / "own" / "depth.pt")))
    assert equal(ours, again)
    one, two = (json.loads((tmp_path / name / "depth.json").read_text()) for name in ("own", "taken"))
    assert one | {"weights": "checkpoint"} == two


def test_user_errors(raw: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="9 training frames; expected at least 10"):
        train(raw, tmp_path / "out", replace(CONFIG, batch=10, statistics_batch=10))
    with pytest.raises(UserError, match="expected a finite number"):
        train(raw, tmp_path / "out", replace(CONFIG, lr=1e30))
    with pytest.raises(UserError, match="not found"):
        train(raw, tmp_path / "out", replace(CONFIG, checkpoint="missing.pth"))
    with pytest.raises(UserError, match=r"multiple of train_depth\.replicas"):
        replace(CONFIG, batch=5, statistics_batch=5)
    with pytest.raises(UserError, match=r"statistics_batch is 6; expected a multiple of train_depth\.batch"):
        replace(CONFIG, statistics_batch=6)
    with pytest.raises(UserError, match=r"frozen_epochs is 1; expected 0, or"):
        replace(CONFIG, statistics_batches=0)
    assert not (tmp_path / "out" / "depth.pt").exists()


def test_augmentation_keeps_frame_and_depth_together() -> None:
    ramp = np.tile(np.arange(0, 208, 2, dtype=np.uint8), (72, 1))
    rgb, depth = np.repeat(ramp[..., None], 3, 2), ramp.astype(np.float32) + 1
    for seed in range(8):
        sample = augment(rgb, depth, NETWORK, DepthAugmentConfig(True, 1.5, 0.0), np.random.default_rng(seed))
        assert sample.rgb.shape == (64, 96, 3) and sample.depth.shape == (32, 48)
        shown = sample.rgb[::2, ::2, 0].astype(float)
        assert np.abs(shown + 1 - sample.depth).max() <= 6
        assert np.isin(sample.depth, depth).all()  # no depth between depths
    plain = augment(rgb, depth, NETWORK, DepthAugmentConfig(False, 1.0, 0.0), np.random.default_rng(0))
    assert np.array_equal(plain.rgb, cv2.resize(rgb, (96, 64), interpolation=cv2.INTER_AREA))


def test_batches_depend_on_seed_and_epoch_alone() -> None:
    rgb, depth = np.random.default_rng(0).integers(0, 255, (10, 72, 104, 3), np.uint8), np.ones((72, 104), np.float32)
    augmentation = DepthAugmentConfig(True, 1.5, 0.3)

    def epoch(number: int, workers: int) -> list[torch.Tensor]:
        batches = epoch_batches(
            lambda i, rng: augment(rgb[i], depth, NETWORK, augmentation, rng), 10, 4, 0, number, workers
        )
        return [batch.frames for batch in batches]

    one, other = epoch(0, 1), epoch(0, 4)
    assert len(one) == 2 and one[0].shape == (4, 3, 64, 96)
    assert all(torch.equal(a, b) for a, b in zip(one, other))
    assert not torch.equal(one[0], epoch(1, 1)[0])
    assert float(one[0].min()) >= 0 and float(one[0].max()) <= 1


@pytest.mark.parametrize(
    ("frame", "expected"),
    [((480, 854), (288, 512)), ((144, 256), (288, 512)), ((854, 480), (512, 288)), ((5, 5), (384, 384))],
)
def test_input_keeps_aspect_and_area(frame: tuple[int, int], expected: tuple[int, int]) -> None:
    assert input_sides(*frame, PUBLISHED) == expected
