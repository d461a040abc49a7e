"""Train D-STM on real videos, optionally mixed with clips drawn from stills, starting from the pretrained weights.

Reads: models/${profile}/pretrain.pt, data/${profile}/raw/davis, data/${profile}/raw/youtubevos,
    data/${profile}/depth/davis, data/${profile}/depth/youtubevos,
    data/${profile}/raw/msra10k, data/${profile}/raw/coco, data/${profile}/raw/voc
Writes: models/${profile}/dstm.pt, metrics/train.csv
Params: seed, model, loss, shared.live, shared.network, shared.training, profiles.${profile}.live,
    profiles.${profile}.network, profiles.${profile}.training, profiles.${profile}.train
Run: python -m pipeline.launch pipeline.train
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from pipeline.core.checkpoint import load_checkpoint
from pipeline.core.errors import UserError
from pipeline.core.layout import Layout
from pipeline.core.manifest import is_empty
from pipeline.core.runtime import digest, file_digest, fingerprints, log, pick_device, run_main
from pipeline.datasets.clips import ClipMaker, ClipSource
from pipeline.datasets.davis import open_davis
from pipeline.datasets.depth_input import open_depth_input
from pipeline.datasets.youtubevos import open_youtubevos
from pipeline.dstm.checkpoint import KIND, load_weights
from pipeline.dstm.config import Switches
from pipeline.live.config import LiveConfig
from pipeline.settings import Settings, load_settings
from pipeline.training.config import TrainingConfig
from pipeline.training.initial import NO_FILE
from pipeline.training.live_clips import READERS, open_live
from pipeline.training.stage import Job, initial_network, make_network, run_job, weight_inputs


def open_real_clips(layout: Layout, model: Switches, config: TrainingConfig, live: LiveConfig) -> list[ClipMaker]:
    """Clips of DAVIS and YouTube-VOS, as far as they exist, and of stills.

    Args:
        layout: paths of the profile.
        model: whether depth is read, and which.
        config: `stills_share` of the clips come from stills, and `davis_share` of the others from DAVIS if both exist;
            0: in proportion to numbers of videos.
        live: how clips are drawn from stills.

    Raises:
        UserError: neither exists, or clips of stills are requested without `live.use`.
    """
    stills = config.stills_share
    if stills and not live.use:
        raise UserError(
            f"train.stills_share is {stills} without live.use; clips of stills can only be drawn with it; set "
            f"profiles.{layout.profile}.live.use to true or stills_share to 0"
        )
    found = []
    if not is_empty(layout.raw("davis")):
        found.append(("davis", open_davis(layout.raw("davis"), "train")))
    if not is_empty(layout.raw("youtubevos")):
        found.append(("youtubevos", open_youtubevos(layout.raw("youtubevos"), "train")))
    if not found:
        raise UserError(
            "neither DAVIS nor YouTube-VOS is available for training; expected at least one; "
            f"set profiles.{layout.profile}.data.davis or .youtubevos to other than none"
        )
    sources: list[ClipMaker] = [open_live(layout, live, model.depth, stills)] if stills else []
    for name, videos in found:
        fixed = name == "davis" and config.davis_share and len(found) > 1
        share = config.davis_share * (1 - stills) if fixed else None
        depth = open_depth_input(layout.depth(name), model.depth_input, videos.videos) if model.depth else None
        sources.append(ClipSource(videos, depth, share, skips=True))
        log(f"{name}: {len(videos.videos)} videos")
    return sources


def run(settings: Settings, layout: Layout) -> None:
    """Run the stage.

    Args:
        settings: all of params.yaml.
        layout: paths of the profile.

    Raises:
        UserError: the pretrained weights are missing or have another architecture, or there are no training videos.
    """
    params = settings.profile_params
    start_path = layout.model("pretrain")
    from_pretraining = params.train.init_from == NO_FILE
    if from_pretraining and not start_path.is_file():
        raise UserError(f"{start_path} does not exist; expected the pretrained weights; run the pretrain stage first")
    folders = [f for name in ("davis", "youtubevos") for f in (layout.raw(name), layout.depth(name))]
    folders += [layout.raw(name) for name in READERS]
    job = Job(
        name="train",
        switches=settings.model,
        network=params.network,
        loss=settings.loss,
        config=params.train,
        seed=settings.seed,
        device=pick_device(settings.runtime.device),
        options=settings.runtime.options,
        inputs={
            **weight_inputs(params.train, params.network),
            **({"pretrain.pt": file_digest(start_path)} if from_pretraining else {}),
            "live": digest(asdict(params.live)),
            **fingerprints(folders),
        },
        scratch=layout.scratch("train"),
        model_path=layout.model("dstm"),
        curves_path=layout.metrics / "train.csv",
    )
    if from_pretraining:
        network = make_network(job, awaits_weights=True)
        load_weights(network, load_checkpoint(start_path, KIND)["state_dict"], start_path)
    else:
        network = initial_network(job)
    run_job(job, network, open_real_clips(layout, settings.model, params.train, params.live))


def main() -> None:
    """Run the stage with params.yaml."""
    settings = load_settings()
    run(settings, Layout(Path.cwd(), settings.profile))


if __name__ == "__main__":
    raise SystemExit(run_main(main))
