"""Estimate a depth map for every frame of one source of frames.

Inverse depth, normalised by robust percentiles of each video, as 16-bit PNGs in shards, of the size that `depth.store`
says. Several processes share the shards (`runtime.processes`, one for each GPU). After a kill, the next run continues
with the unfinished shards. A source without data has no shards.

Reads: data/${profile}/${item}/${key}, models/${profile}/depth.pt
Writes: data/${profile}/depth/${key}
Params: shared.depth, profiles.${profile}.depth
Run: python -m pipeline.launch pipeline.depth ${key}
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch

from pipeline.core.archives import ZipWriter
from pipeline.core.errors import UserError
from pipeline.core.files import output_folder, say_why_empty
from pipeline.core.kernels.onednn import describe_arithmetic
from pipeline.core.layout import Layout
from pipeline.core.processes import Processes, join_processes
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
from pipeline.datasets.davis import davis_splits, open_davis
from pipeline.datasets.find_archives import identify, list_archives, list_sources
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
ALONE = Processes(0, 1)

RAW = ("davis", "youtubevos", "challenge")  # data sets of videos; for the others, the simulated clips are used
DATASETS = (*RAW, "msra10k", "coco", "voc")


def run(
    dataset: str,
    config: DepthConfig,
    frames: Path,
    checkpoint: Path,
    output: Path,
    scratch: Path,
    device: torch.device,
    processes: Processes = ALONE,
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
        processes: That share the work; the result does not depend on their number.

    Raises:
        UserError: Frames are unreadable, the checkpoint is unusable, or some of the user's maps are missing.
    """
    if not list_archives(frames):
        if processes.first:
            with output_folder(output) as empty:
                say_why_empty(empty, f"No frames in the data set {dataset}, so no depth maps.")
            log(f"{dataset}: no frames in {frames}, so no depth maps; later stages leave it out")
        return
    videos = _videos(open_videos(dataset, frames))
    inverse = _inverse_depth(dataset, config, checkpoint, device)
    folder = scratch / _key(dataset, config, frames, checkpoint)
    groups = _grouped(videos, config.shard_frames)
    shards = [folder / f"shard-{i:05d}.zip" for i in range(len(groups))]
    # rank 0 holds the lock for all, and the others begin when it has it
    with scratch_lock(folder) if processes.first else nullcontext():
        processes.agree(None)
        with _worker_threads(device, processes.count) as pool:
            for number in range(processes.rank, len(groups), processes.count):
                if shards[number].exists():
                    log(f"{dataset}: {shards[number].name} is finished already")
                else:
                    place = f"depth of {dataset}, {shards[number].stem} of {len(shards)}"
                    _write_shard(shards[number], groups[number], inverse, config, pool, place)
        processes.gather([None])
        if processes.first:
            with output_folder(output) as finished:
                for shard in shards:
                    shutil.move(shard, finished / shard.name)
            shutil.rmtree(folder)


def _write_shard(
    shard: Path,
    videos: Sequence[list[FrameRef]],
    inverse: InverseDepth,
    config: DepthConfig,
    pool: ThreadPoolExecutor,
    place: str,
) -> None:
    """Estimate, encode and write the maps of some videos; decoding and encoding run beside the network, in threads."""
    jobs = _grouped(videos, config.batch)
    done = pool.map(partial(depth_maps, inverse=inverse, config=config), jobs)
    with ZipWriter(shard) as writer:
        for files in progress(done, len(jobs), f"{place}, groups of videos"):
            for name, data in files:
                writer.write(name, data)


def _key(dataset: str, config: DepthConfig, frames: Path, checkpoint: Path) -> str:
    """Name of the resume state for these parameters and inputs, so that no other run uses it."""
    maps = Path(config.folder)
    if config.estimator == "hourglass" or not maps.exists():  # a missing folder is refused later
        source = file_digest(checkpoint)
    else:
        source = fingerprint(maps) if maps.is_dir() else file_digest(maps)
    return digest([dataset, asdict(config), identify(frames), source])


def open_videos(dataset: str, frames: Path) -> list[VideoSource]:
    """All splits of a source that exist in its folder."""
    if dataset == "davis":
        return [open_davis(frames, split) for split in davis_splits(frames)]
    if dataset == "youtubevos":
        names = {Path(name).stem for name in list_sources(frames)}
        return [open_youtubevos(frames, split) for split in ("train", "valid") if split in names]
    if dataset == "challenge":
        listed = [split for split in SUBMITTED if split in davis_splits(frames)]
        return [open_split(frames, split) for split in listed or SUBMITTED[-1:]]
    return [open_simulated(frames)]


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
def _worker_threads(device: torch.device, processes: int) -> Iterator[ThreadPoolExecutor]:
    """Threads that each process complete videos, from decoding to encoding, so that no step waits for another.

    On a CPU each thread computes on one core. That is faster than all cores on one frame, especially on a busy machine.
    """
    cores = max(1, min(available_cores() // processes, _MOST_THREADS))
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
    with join_processes() as processes:
        run(
            dataset,
            settings.profile_params.depth,
            layout.raw(dataset) if dataset in RAW else layout.simulated(dataset),
            layout.model("depth"),
            layout.depth(dataset),
            layout.scratch(f"depth-{dataset}"),
            pick_device(settings.runtime.device),
            processes,
        )


if __name__ == "__main__":
    raise SystemExit(run_main(main))
