"""Train D-STM on real videos, from the pretrained weights.

Reads: models/${profile}/pretrain.pt, data/${profile}/raw/davis, data/${profile}/raw/youtubevos,
    data/${profile}/depth/davis, data/${profile}/depth/youtubevos
Writes: models/${profile}/dstm.pt, metrics/train.csv
Params: seed, model, loss, shared.network, shared.training, profiles.${profile}.network,
    profiles.${profile}.training, profiles.${profile}.train
Run: python -m pipeline.launch pipeline.train
"""

from __future__ import annotations

from pathlib import Path

from pipeline.core.checkpoint import load_checkpoint
from pipeline.core.errors import UserError
from pipeline.core.layout import Layout
from pipeline.core.manifest import is_empty
from pipeline.core.runtime import file_digest, fingerprint, log, pick_device, run_main
from pipeline.datasets.clips import ClipSource
from pipeline.datasets.davis import open_davis
from pipeline.datasets.depth_input import open_depth_input
from pipeline.datasets.youtubevos import open_youtubevos
from pipeline.dstm.checkpoint import KIND, load_weights
from pipeline.dstm.config import Switches
from pipeline.settings import Settings, load_settings
from pipeline.training.stage import Job, make_network, run_job


def open_sources(layout: Layout, model: Switches, davis_share: float) -> list[ClipSource]:
    """Clips of DAVIS and YouTube-VOS, whichever is there.

    Args:
        layout: where things are.
        model: whether depth is read, and which.
        davis_share: share of the clips from DAVIS when both are there; 0: by numbers of videos.

    Raises:
        UserError: neither is there.
    """
    found = []
    if not is_empty(layout.raw("davis")):
        found.append(("davis", open_davis(layout.raw("davis"), "train")))
    if not is_empty(layout.raw("youtubevos")):
        found.append(("youtubevos", open_youtubevos(layout.raw("youtubevos"), "train")))
    if not found:
        raise UserError(
            "neither DAVIS nor YouTube-VOS is there to train on; expected one at least; "
            f"set profiles.{layout.profile}.data.davis or .youtubevos to other than none"
        )
    sources = []
    for name, videos in found:
        share = davis_share if name == "davis" and davis_share and len(found) > 1 else None
        depth = open_depth_input(layout.depth(name), model.depth_input, videos.videos) if model.depth else None
        sources.append(ClipSource(videos, depth, share, skips=True))
        log(f"{name}: {len(videos.videos)} videos")
    return sources


def run(settings: Settings, layout: Layout) -> None:
    """Run the stage.

    Args:
        settings: the whole params.yaml.
        layout: where things are.

    Raises:
        UserError: the pretrained weights are missing or of another architecture, or there is nothing to train on.
    """
    params = settings.profile_params
    start_path = layout.model("pretrain")
    if not start_path.is_file():
        raise UserError(f"{start_path} does not exist; expected the pretrained weights; run the pretrain stage first")
    folders = [f for name in ("davis", "youtubevos") for f in (layout.raw(name), layout.depth(name))]
    job = Job(
        name="train",
        switches=settings.model,
        network=params.network,
        loss=settings.loss,
        config=params.train,
        seed=settings.seed,
        device=pick_device(settings.runtime.device),
        workers=settings.runtime.workers,
        inputs=(file_digest(start_path), *(fingerprint(folder) for folder in folders)),
        scratch=layout.scratch("train"),
        model_path=layout.model("dstm"),
        curves_path=layout.metrics / "train.csv",
    )
    network = make_network(job, awaits_weights=True)
    load_weights(network, load_checkpoint(start_path, KIND)["state_dict"], start_path)
    run_job(job, network, open_sources(layout, settings.model, params.train.davis_share))


def main() -> None:
    """Run the stage with params.yaml."""
    settings = load_settings()
    run(settings, Layout(Path.cwd(), settings.profile))


if __name__ == "__main__":
    raise SystemExit(run_main(main))
