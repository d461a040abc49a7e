"""Segment the videos of a split with the trained network, starting from their first masks.

The network is rebuilt from the checkpoint. Finished sequences survive a kill and are not repeated. Under torchrun they
are distributed over the processes. Nothing is written to the output before every sequence is complete. Masks of a split
that only a challenge's server can score are also checked and packed for it.

Reads: models/${profile}/dstm.pt, data/${profile}/raw/davis, data/${profile}/depth/davis,
    data/${profile}/raw/challenge, data/${profile}/depth/challenge
Writes: data/${profile}/masks, data/${profile}/submission
Params: infer, shared.infer, profiles.${profile}.infer
Run: python -m pipeline.launch pipeline.infer
"""

from __future__ import annotations

import errno
import os
import shutil
import threading
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.core.errors import UserError
from pipeline.core.files import output_folder, say_why_empty, write_bytes
from pipeline.core.images import encode_mask
from pipeline.core.layout import Layout
from pipeline.core.processes import Processes, join_processes
from pipeline.core.runtime import (
    available_cores,
    digest,
    file_digest,
    fingerprint,
    log,
    pick_device,
    run_main,
    scratch_lock,
)
from pipeline.core.threads import WriteBehind, read_ahead
from pipeline.datasets.config import Split
from pipeline.datasets.depth_input import DepthInput, open_depth_input
from pipeline.datasets.splits import SUBMITTED, dataset_of, open_split
from pipeline.datasets.video import Video, VideoSource
from pipeline.dstm.checkpoint import load_dstm
from pipeline.dstm.network import DSTM
from pipeline.inference.config import InferConfig, InferSwitches
from pipeline.inference.frames import Frame
from pipeline.inference.prepared import prepare
from pipeline.inference.propagate import propagate
from pipeline.scoring.results import Results
from pipeline.scoring.submission import Server, write_submission
from pipeline.settings import load_settings


@dataclass(frozen=True)
class SetSegmenter:
    """Everything needed to segment the sequences of a data set.

    Attributes:
        network: in evaluation mode, on `device`.
        source: the videos.
        depth: their depth maps; None for a network without depth.
        switches: `infer.*`.
        config: `profiles.*.infer`.
        device: of the network.
        workers: number of sequences segmented in parallel on a CPU; they share `infer.memory_gb`.
        stop: once set, running sequences end as if interrupted.
    """

    network: DSTM
    source: VideoSource
    depth: DepthInput | None
    switches: InferSwitches
    config: InferConfig
    device: torch.device
    workers: int
    stop: threading.Event = field(default_factory=threading.Event)

    def write(self, video: Video, folder: Path) -> None:
        """Segment a video into indexed PNGs named after its frames.

        Raises:
            UserError: invalid masks, frames or depth maps.
        """
        bound = 2 * self.config.lookahead
        frames = read_ahead(video.frames, partial(self._read, video), bound, threads=1)
        beside = int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if self.device.type == "cpu" else 1
        share = 1 / (beside * _at_a_time(self.device, self.workers))
        masks = propagate(self.network, frames, self._given(video), self.switches, self.config, self.device, share)
        with WriteBehind(bound, threads=1) as writer:
            for frame_id, mask in zip(video.frames, masks):
                if self.stop.is_set():
                    raise KeyboardInterrupt
                writer.put(partial(_write_mask, folder / f"{frame_id}.png", mask))

    def _read(self, video: Video, frame_id: str) -> Frame:
        frame = self.source.frame(video, frame_id)
        return Frame(frame, None if self.depth is None else self.depth.read(video, frame_id, frame))

    def _given(self, video: Video) -> dict[int, NDArray[np.uint8]]:
        """Frame index -> mask of only the objects that first appear there."""
        given = {}
        for frame_id in sorted(set(video.first_seen.values()), key=video.frames.index):
            mask = self.source.mask(video, frame_id)
            new = [i for i, first in video.first_seen.items() if first == frame_id]
            given[video.frames.index(frame_id)] = np.where(np.isin(mask, new), mask, np.uint8(0))
        return given


def run(
    raw: Path,
    depth: Path,
    weights: Path,
    masks: Path,
    scratch: Path,
    switches: InferSwitches,
    config: InferConfig,
    device: torch.device,
    workers: int,
    submission: Path | None = None,
) -> None:
    """Segment every video of the split.

    Args:
        raw: folder of the archive that holds the split.
        depth: shards of its depth maps; not read for a network without depth.
        weights: the D-STM checkpoint.
        masks: folder to write, `<sequence>/<frame>.png`.
        scratch: folder for finished sequences.
        switches: `tta`.
        config: split, memory, scales.
        device: of the computation.
        workers: number of sequences segmented in parallel on a CPU.
        submission: folder for the server's archive, `<split>.zip`; without one for a split that is scored here. None:
            not written.

    Raises:
        UserError: invalid inputs, failed sequences (reported after all others are done), or masks that a server would
            refuse.
    """
    network = prepare(load_dstm(weights, device), config.precision)
    source = open_split(raw, config.split)
    model = network.switches
    maps = open_depth_input(depth, model.depth_input, source.videos) if model.depth else None
    inputs = [file_digest(weights), fingerprint(raw), fingerprint(depth) if maps else ""]
    done = scratch / digest([asdict(switches), asdict(config), *inputs])
    segmenter = SetSegmenter(network, source, maps, switches, config, device, workers)
    with join_processes() as processes:
        if not processes.first:
            _segment_share(segmenter, done, processes)
            return
        with scratch_lock(done):
            failures = _segment_share(segmenter, done, processes)
            if failures:
                raise UserError(
                    f"{len(failures)} of {len(source.videos)} sequences failed: {'; '.join(failures)}; expected masks "
                    "of all; fix and rerun, the others are kept"
                )
            with output_folder(masks) as folder:
                for video in source.videos:
                    shutil.copytree(done / video.name, folder / video.name)
            if submission is not None:
                _pack(source, config.split, masks, submission)
            shutil.rmtree(done)
    log(f"wrote masks of {len(source.videos)} sequences")


def _segment_share(segmenter: SetSegmenter, done: Path, processes: Processes) -> list[str]:
    """Segment this process' share of the remaining sequences; returns the failures of all processes."""
    videos = sorted(
        segmenter.source.videos, key=lambda video: -len(video.frames)
    )  # long ones first, so that all threads finish at about the same time
    left = set(processes.agree([video.name for video in videos if not (done / video.name).is_dir()]))
    if processes.first and len(left) < len(videos):
        log(f"{len(videos) - len(left)} of {len(videos)} sequences are already done")
    share = [video for video in videos if video.name in left][processes.rank :: processes.count]
    tally = _Tally(len(share), sum(len(video.frames) for video in share))
    with _sequence_threads(segmenter.device, segmenter.workers) as pool:
        futures = [pool.submit(_segment_one, segmenter, done, tally, video) for video in share]
        try:
            failures = [future.result() for future in as_completed(futures)]
        except BaseException:
            segmenter.stop.set()  # running sequences in other threads end at their next frame
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return processes.gather(sorted(filter(None, failures)))


def _segment_one(segmenter: SetSegmenter, done: Path, tally: _Tally, video: Video) -> str | None:
    """Segment a sequence into its folder; returns what went wrong instead of raising, so that the others continue."""
    start = time.monotonic()
    try:
        with output_folder(done / video.name) as folder:
            segmenter.write(video, folder)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise  # the others would fail in the same way
        if not isinstance(error, UserError):
            log(traceback.format_exc())
        tally.add(video, None)
        return f"{video.name} ({' '.join(str(error).split())[:300] or type(error).__name__})"
    tally.add(video, time.monotonic() - start)
    return None


def _pack(source: VideoSource, split: Split, masks: Path, submission: Path) -> None:
    """Write the archive for the split's server, or nothing for a split that is scored here."""
    with output_folder(submission) as folder:
        if split in SUBMITTED:
            server: Server = "youtubevos" if split == "youtubevos-valid" else "davis"
            write_submission(source, Results(masks), folder / f"{split}.zip", server)
        else:
            say_why_empty(folder, f"The split {split} is scored by the score stage, so nothing is submitted.")


class _Tally:
    """Counts sequences and frames over all threads, and prints one line per sequence."""

    def __init__(self, n_sequences: int, n_frames: int) -> None:
        self._sequences, self._frames = n_sequences, n_frames
        self._done = self._frames_done = 0
        self._start = time.monotonic()
        self._lock = threading.Lock()

    def add(self, video: Video, seconds: float | None) -> None:
        """Count a sequence that took some seconds, or failed (None)."""
        with self._lock:
            self._done += 1
            self._frames_done += len(video.frames)
            left = (self._frames - self._frames_done) * (time.monotonic() - self._start) / self._frames_done
            rate = "failed" if seconds is None else f"{len(video.frames) / seconds:.1f} frames/s"
            log(
                f"{self._done}/{self._sequences} {video.name}: {len(video.frames)} frames, {rate}, "
                f"about {left:.0f} s left"
            )


@contextmanager
def _sequence_threads(device: torch.device, workers: int) -> Iterator[ThreadPoolExecutor]:
    """Threads that each segment complete sequences: one on a GPU; several on a CPU, which share the cores.

    The operations on one frame are small, so two sequences on one core each are faster than one on two cores.
    """
    cores, threads = available_cores(), torch.get_num_threads()
    count = _at_a_time(device, workers)
    each = max(1, min(threads, cores // count))
    try:
        torch.set_num_threads(each)
        with ThreadPoolExecutor(count, "sequence", torch.set_num_threads, (each,)) as pool:
            yield pool
    finally:
        torch.set_num_threads(threads)


def _at_a_time(device: torch.device, workers: int) -> int:
    return min(workers, available_cores()) if device.type == "cpu" else 1


def _write_mask(path: Path, mask: NDArray[np.uint8]) -> None:
    write_bytes(path, encode_mask(mask))


def main() -> None:
    """Run the stage with params.yaml."""
    settings = load_settings()
    layout = Layout(Path.cwd(), settings.profile)
    dataset = dataset_of(settings.profile_params.infer.split)
    run(
        layout.raw(dataset),
        layout.depth(dataset),
        layout.model("dstm"),
        layout.masks,
        layout.scratch("infer"),
        settings.infer,
        settings.profile_params.infer,
        pick_device(settings.runtime.device),
        settings.runtime.workers,
        layout.submission,
    )


if __name__ == "__main__":
    raise SystemExit(run_main(main))
