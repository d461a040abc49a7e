"""Pretrain D-STM on short videos simulated from stills: stored clips, or new ones drawn each time (`live.use`).

Reads: data/${profile}/simulated/msra10k, data/${profile}/simulated/coco, data/${profile}/simulated/voc,
    data/${profile}/depth/msra10k, data/${profile}/depth/coco, data/${profile}/depth/voc,
    data/${profile}/raw/msra10k, data/${profile}/raw/coco, data/${profile}/raw/voc
Writes: models/${profile}/pretrain.pt, metrics/pretrain.csv
Params: seed, model, loss, shared.live, shared.network, shared.training, profiles.${profile}.live,
    profiles.${profile}.network, profiles.${profile}.training, profiles.${profile}.pretrain
Run: python -m pipeline.launch pipeline.pretrain
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from pipeline.core.errors import UserError
from pipeline.core.layout import Layout
from pipeline.core.runtime import digest, fingerprints, log, pick_device, run_main
from pipeline.datasets.clips import ClipMaker, ClipSource
from pipeline.datasets.depth_input import open_depth_input
from pipeline.datasets.simulated import open_simulated
from pipeline.dstm.config import Switches
from pipeline.live.config import LiveConfig
from pipeline.settings import Settings, load_settings
from pipeline.training.initial import NO_FILE
from pipeline.training.live_clips import open_live
from pipeline.training.stage import Job, initial_network, make_network, run_job, weight_inputs

STILLS = ("msra10k", "coco", "voc")


def open_simulated_clips(layout: Layout, model: Switches, live: LiveConfig) -> list[ClipMaker]:
    """Clips of every simulated data set that has any, in proportion to their numbers of videos.

    Args:
        layout: paths of the profile.
        model: whether depth is read, and which.
        live: whether clips are drawn from the stills instead, and their settings.

    Raises:
        UserError: there are no clips, or drawn clips would need depth.
    """
    if live.use:
        return [open_live(layout, live, model.depth, None)]
    sources: list[ClipMaker] = []
    for name in STILLS:
        videos = open_simulated(layout.simulated(name))
        if videos.videos:
            maps = open_depth_input(layout.depth(name), model.depth_input, videos.videos) if model.depth else None
            sources.append(ClipSource(videos, maps, share=None, skips=False))
            log(f"{name}: {len(videos.videos)} simulated videos")
    if not sources:
        raise UserError(
            f"no simulated videos in {layout.data / 'simulated'}; expected some of {', '.join(STILLS)}; "
            f"set one of profiles.{layout.profile}.data.{{msra10k,coco,voc}} to other than none"
        )
    return sources


def run(settings: Settings, layout: Layout) -> None:
    """Run the stage.

    Args:
        settings: all of params.yaml.
        layout: paths of the profile.
    """
    params = settings.profile_params
    folders = [f for name in STILLS for f in (layout.simulated(name), layout.depth(name), layout.raw(name))]
    job = Job(
        name="pretrain",
        switches=settings.model,
        network=params.network,
        loss=settings.loss,
        config=params.pretrain,
        seed=settings.seed,
        device=pick_device(settings.runtime.device),
        options=settings.runtime.options,
        inputs={
            **weight_inputs(params.pretrain, params.network),
            "live": digest(asdict(params.live)),
            **fingerprints(folders),
        },
        scratch=layout.scratch("pretrain"),
        model_path=layout.model("pretrain"),
        curves_path=layout.metrics / "pretrain.csv",
    )
    network = make_network(job) if params.pretrain.init_from == NO_FILE else initial_network(job)
    run_job(job, network, open_simulated_clips(layout, settings.model, params.live))


def main() -> None:
    """Run the stage with params.yaml."""
    settings = load_settings()
    run(settings, Layout(Path.cwd(), settings.profile))


if __name__ == "__main__":
    raise SystemExit(run_main(main))
