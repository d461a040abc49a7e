"""Estimate a depth map for every frame of one source of frames.

Inverse depth, normalised by robust percentiles of each video, as 16-bit PNGs of the frames' size in shards. After a
kill, the next run continues with the first unfinished shard. A source without data has no shards.

Reads: data/${profile}/${item}/${key}, models/${profile}/depth.pt
Writes: data/${profile}/depth/${key}
Params: shared.depth, profiles.${profile}.depth
Run: python -m pipeline.depth ${key}
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch

from pipeline.core.archives import ZipWriter, open_archive
from pipeline.core.errors import UserError
from pipeline.core.files import output_folder, say_why_empty
from pipeline.core.kernels.onednn import describe_arithmetic
from pipeline.core.layout import Layout
from pipeline.core.runtime import (
    available_cores,
    digest,
    file_digest,
    fingerprint,
    log,
    pick_device,
    progress,
    run_main,
    scratch_lock,
)
from pipeline.datasets.davis import open_davis
from pipeline.datasets.find_archives import list_archives
from pipeline.datasets.simulated import open_simulated
from pipeline.datasets.splits import SUBMITTED, open_split
from pipeline.datasets.video import VideoSource
from pipeline.datasets.youtubevos import open_youtubevos
from pipeline.depth_maps.external_maps import ExternalMaps
from pipeline.depth_maps.write_maps import FrameRef, InverseDepth, depth_maps, estimated
from pipeline.hourglass.checkpoint import load_hourglass
from pipeline.hourglass.config import DepthConfig
from pipeline.hourglass.estimator import DepthEstimator
from pipeline.settings import load_settings
from pipeline.sources.local import resolve

_MOST_THREADS = 16

RAW = ("davis", "youtubevos", "challenge")  # data sets of videos; for the others, the simulated clips are used
DATASETS = (*RAW, "msra10k", "coco", "voc")


def run(
    dataset: str, config: DepthConfig, frames: Path, checkpoint: Path, output: Path, scratch: Path, device: torch.device
) -> None:
    """Write the depth maps of one source.

    Args:
        dataset: One of DATASETS.
        config: The source of depth and its normalisation.
        frames: Folder of the source: the raw data for a data set of videos, the simulated clips for the others.
        checkpoint: The trained depth network.
        output: Folder of shards to write; members are `<video>/<frame>.png`.
        scratch: Folder for finished shards of an unfinished run.
        device: Of the computation.

    Raises:
        UserError: Frames are unreadable, the checkpoint is unusable, or some of the user's maps are missing.
    """
    if not list_archives(frames):
        with output_folder(output) as empty:
            say_why_empty(empty, f"No frames in the data set {dataset}, so no depth maps.")
        log(f"{dataset}: no frames in {frames}, so no depth maps; later stages leave it out")
        return
    videos = _videos(open_videos(dataset, frames))
    inverse = _inverse_depth(dataset, config, checkpoint, device)
    folder = scratch / _key(dataset, config, frames, checkpoint)
    groups = _grouped(videos, config.shard_frames)
    shards = [folder / f"shard-{i:05d}.zip" for i in range(len(groups))]
    with scratch_lock(folder), _worker_threads(device) as pool:
        for shard, group in zip(shards, groups):
            if shard.exists():
                log(f"{dataset}: {shard.name} is finished already")
                continue
            jobs = _grouped(group, config.batch)
            done = pool.map(partial(depth_maps, inverse=inverse, config=config), jobs)
            with ZipWriter(shard) as writer:
                for files in progress(
                    done, len(jobs), f"depth of {dataset}, {shard.stem} of {len(shards)}, groups of videos"
                ):
                    for name, data in files:
                        writer.write(name, data)
        with output_folder(output) as finished:
            for shard in shards:
                shutil.move(shard, finished / shard.name)
    shutil.rmtree(folder)


def _key(dataset: str, config: DepthConfig, frames: Path, checkpoint: Path) -> str:
    """Name of the resume state for these parameters and inputs, so that no other run uses it."""
    inputs = [(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in list_archives(frames)]
    maps = Path(config.folder)
    if config.estimator == "hourglass" or not maps.exists():  # a missing folder is refused later
        source = file_digest(checkpoint)
    else:
        source = fingerprint(maps) if maps.is_dir() else file_digest(maps)
    return digest([dataset, asdict(config), inputs, source])


def open_videos(dataset: str, frames: Path) -> list[VideoSource]:
    """All splits of a source that exist in its folder."""
    if dataset == "davis":
        return [open_davis(frames, split) for split in _davis_splits(frames)]
    if dataset == "youtubevos":
        names = {path.stem for path in list_archives(frames)}
        return [open_youtubevos(frames, split) for split in ("train", "valid") if split in names]
    if dataset == "challenge":
        listed = [split for split in SUBMITTED if split in _davis_splits(frames)]
        return [open_split(frames, split) for split in listed or SUBMITTED[-1:]]
    return [open_simulated(frames)]


def _davis_splits(frames: Path) -> list[str]:
    listed = {
        Path(name) for path in list_archives(frames) for name in open_archive(path).names() if name.endswith(".txt")
    }
    named = {path.stem for path in listed if path.parts[-3:-1] == ("ImageSets", "2017")}
    return [split for split in ("train", "val", "test-dev", "test-challenge") if split in named]


def _videos(sources: Sequence[VideoSource]) -> list[list[FrameRef]]:
    """The frames of each video; a video that several splits list counts once."""
    videos: dict[str, list[FrameRef]] = {}
    for source in sources:
        for video in source.videos:
            if video.name not in videos:
                videos[video.name] = [FrameRef(video.name, i, partial(source.frame, video, i)) for i in video.frames]
    return list(videos.values())


def _grouped(videos: Sequence[list[FrameRef]], at_least: int) -> list[list[list[FrameRef]]]:
    """Successive videos in groups of `at_least` frames or a little more; the last group may be smaller."""
    groups: list[list[list[FrameRef]]] = []
    n_frames = at_least
    for video in videos:
        if n_frames >= at_least:
            groups.append([])
            n_frames = 0
        groups[-1].append(video)
        n_frames += len(video)
    return groups


@contextmanager
def _worker_threads(device: torch.device) -> Iterator[ThreadPoolExecutor]:
    """Threads that each process complete videos, from decoding to encoding, so that no step waits for another.

    On a CPU each thread computes on one core. That is faster than all cores on one frame, especially on a busy machine.
    """
    cores = min(available_cores(), _MOST_THREADS)
    before = torch.get_num_threads()
    try:
        if device.type == "cpu":
            torch.set_num_threads(1)
            with ThreadPoolExecutor(cores, initializer=torch.set_num_threads, initargs=(1,)) as pool:
                yield pool
        else:
            with ThreadPoolExecutor(cores) as pool:
                yield pool
    finally:
        torch.set_num_threads(before)


def _inverse_depth(dataset: str, config: DepthConfig, checkpoint: Path, device: torch.device) -> InverseDepth:
    if config.estimator == "folder":
        hint = "expected a folder of depth maps; correct the parameter"
        return ExternalMaps(resolve(config.folder, "depth.folder", Path.cwd(), hint), dataset, config.folder_holds)
    log(f"{dataset}: estimating depth in {describe_arithmetic(config.precision, device)}")
    return estimated(DepthEstimator(load_hourglass(checkpoint), device, config.precision))


def main() -> None:
    """Write the depth maps of the source named on the command line."""
    if len(sys.argv) != 2 or sys.argv[1] not in DATASETS:
        raise UserError(f"usage: python -m pipeline.depth DATASET; expected one of {', '.join(DATASETS)}")
    dataset = sys.argv[1]
    settings = load_settings()
    layout = Layout(Path.cwd(), settings.profile)
    run(
        dataset,
        settings.profile_params.depth,
        layout.raw(dataset) if dataset in RAW else layout.simulated(dataset),
        layout.model("depth"),
        layout.depth(dataset),
        layout.scratch(f"depth-{dataset}"),
        pick_device(settings.runtime.device),
    )


if __name__ == "__main__":
    raise SystemExit(run_main(main))
