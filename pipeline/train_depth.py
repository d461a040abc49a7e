"""Train the depth network on RGB and depth, or use published weights, and validate it.

After a kill, training resumes where it stopped, with the result of an uninterrupted run. With a checkpoint there is no
training; frames with known depth, if there are any, are then used to validate it.

Reads: data/${profile}/raw/mannequin
Writes: models/${profile}/depth.pt, metrics/depth.json
Params: profiles.${profile}.hourglass, shared.train_depth, profiles.${profile}.train_depth
Run: python -m pipeline.train_depth
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from pipeline.core.archive_index import store_folder
from pipeline.core.errors import UserError
from pipeline.core.files import write_json
from pipeline.core.layout import Layout
from pipeline.core.resume import enter_state_folder, state_folder
from pipeline.core.runtime import fingerprint, log, pick_device, run_main, scratch_lock, seed_everything
from pipeline.datasets.find_archives import list_archives
from pipeline.datasets.rgbd import RgbdSource, open_rgbd
from pipeline.depth_training.trainer import DepthTrainer
from pipeline.depth_training.validation import validate, warnings
from pipeline.hourglass.batches import DepthBatch, DepthSample, augment, epoch_batches
from pipeline.hourglass.checkpoint import read_any, save_hourglass
from pipeline.hourglass.config import HourglassConfig, TrainDepthConfig
from pipeline.hourglass.estimator import DepthEstimator
from pipeline.hourglass.network import Hourglass
from pipeline.settings import load_settings
from pipeline.sources.fetch import fetch, forget
from pipeline.sources.local import is_remote, resolve
from pipeline.sources.store import Store


def run(
    network: HourglassConfig,
    config: TrainDepthConfig,
    raw: Path,
    model_path: Path,
    metrics_path: Path,
    scratch: Path,
    device: torch.device,
    workers: int,
    save_every: int,
) -> None:
    """Obtain a depth network and validate it.

    Args:
        network: Its architecture (with a checkpoint: that of the checkpoint).
        config: Its training, or the source of its weights.
        raw: Folder of the frames with depth; it may be empty if there is a checkpoint.
        model_path: The checkpoint to write.
        metrics_path: The JSON file of metrics to write; see `pipeline.depth_training.validation.validate`.
        scratch: Folder for the state of an unfinished training.
        device: Of the computation.
        workers: Threads that read frames.
        save_every: Steps between two saves of an unfinished training; 0: only at the end of an epoch.

    Raises:
        UserError: There are neither frames nor a checkpoint, frames are unusable, or the loss is no longer finite.
    """
    given = config.checkpoint != "none"
    present = bool(list_archives(raw))
    if not given and not present:
        raise UserError(
            f"{raw} has no frames with depth and train_depth.checkpoint is none; expected one of them; set "
            "data.mannequin or train_depth.checkpoint"
        )
    facts = {"hourglass": asdict(network), "train_depth": asdict(config), "mannequin": fingerprint(raw)}
    folder = state_folder(scratch, facts)
    if given:
        model = _obtain(config.checkpoint, scratch)
    else:
        with scratch_lock(folder):
            enter_state_folder(folder, facts)
            model = _train(network, config, raw, folder, device, workers, save_every)
    figures = {"weights": "checkpoint" if given else "trained", "frames": 0}
    if present:
        source = open_rgbd(raw, "val")
        estimator = DepthEstimator(model, device, config.precision)
        figures |= validate(estimator, source.frames(), source.read, config.validation, config.seed)
    save_hourglass(model_path, model)
    write_json(metrics_path, figures)
    log(", ".join(f"{name} {value}" for name, value in figures.items()))
    for line in warnings(figures, config.validation) if present else []:
        log(line)
    if not given:
        shutil.rmtree(folder, ignore_errors=True)


def _obtain(checkpoint: str, scratch: Path) -> Hourglass:
    """The network of a checkpoint named by path or URL."""
    hint = "expected none, or the path or URL of a checkpoint; correct the parameter"
    if is_remote(checkpoint):
        store = Store(store_folder() or scratch)
        checksum = (store.ledger.get(checkpoint) or "").partition(":")[2]
        kept = store.find(checksum, checkpoint) if checksum else None
        if kept is not None:
            return read_any(kept)
        fetched = fetch(checkpoint, store.parts, store.ledger)
        model = read_any(fetched.path)
        store.keep(fetched.path, fetched.sha256)
        store.ledger.record(checkpoint, f"sha256:{fetched.sha256}")
        forget(fetched.path)
        return model
    return read_any(resolve(checkpoint, "train_depth.checkpoint", Path.cwd(), hint))


def _train(
    network: HourglassConfig,
    config: TrainDepthConfig,
    raw: Path,
    folder: Path,
    device: torch.device,
    workers: int,
    save_every: int,
) -> Hourglass:
    source = open_rgbd(raw, "train")
    frames = source.frames()
    if len(frames) < config.batch:
        raise UserError(
            f"{raw} has {len(frames)} training frames; expected at least {config.batch}; lower train_depth.batch"
        )

    def load(i: int, rng: np.random.Generator) -> DepthSample:
        return _sample(source, frames[i], network, config, rng)

    seed_everything(config.seed)
    model = Hourglass(network).to(device).to(memory_format=torch.channels_last)
    log(f"depth network: {sum(p.numel() for p in model.parameters())} weights, {len(frames)} frames")

    def batches(epoch: int, first: int) -> Iterator[DepthBatch]:
        return epoch_batches(load, len(frames), config.batch, config.seed, epoch, workers, first)

    DepthTrainer(model, config, len(frames) // config.batch, save_every).run(batches, folder / "state.pt")
    return model


def _sample(
    source: RgbdSource,
    frame: tuple[str, str],
    network: HourglassConfig,
    config: TrainDepthConfig,
    rng: np.random.Generator,
) -> DepthSample:
    read = source.read(*frame)
    return augment(read.rgb, read.depth, network, config.augment, rng)


def main() -> None:
    """Train or load the depth network with the settings of params.yaml."""
    settings = load_settings()
    layout = Layout(Path.cwd(), settings.profile)
    params = settings.profile_params
    run(
        params.hourglass,
        params.train_depth,
        layout.raw("mannequin"),
        layout.model("depth"),
        layout.metrics / "depth.json",
        layout.scratch("train_depth"),
        pick_device(settings.runtime.device),
        settings.runtime.workers,
        settings.runtime.save_every,
    )


if __name__ == "__main__":
    raise SystemExit(run_main(main))
