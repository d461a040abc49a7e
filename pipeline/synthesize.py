"""Simulate short videos from the segmented stills of one data set.

Several processes make shards. A shard depends only on its number, so neither the number of processes nor an
interruption changes the result. Next to the shards are `clips.csv` (name, image, n_objects, and order: the ids from the
farthest object to the nearest) and `skipped.csv` (image, reason, n), which says what was left out and why.

Reads: data/${profile}/raw/${item}
Writes: data/${profile}/simulated/${item}
Params: shared.synthesis, profiles.${profile}.synthesis, profiles.${profile}.live.use
Run: python -m pipeline.synthesize msra10k
"""

from __future__ import annotations

import csv
import io
import json
import multiprocessing
import os
import shutil
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from pathlib import Path

import cv2

from pipeline import synthesis
from pipeline.core.archives import ZipWriter
from pipeline.core.errors import UserError
from pipeline.core.files import output_folder, write_json, write_text
from pipeline.core.images import encode_jpeg, encode_mask
from pipeline.core.layout import Layout
from pipeline.core.runtime import digest, file_digest, log, progress, run_main, scratch_lock
from pipeline.core.stills import StillSource
from pipeline.datasets.coco import open_coco
from pipeline.datasets.msra10k import open_msra10k
from pipeline.datasets.voc import open_voc
from pipeline.settings import load_settings
from pipeline.synthesis.config import SynthesisConfig
from pipeline.synthesis.simulate import TINY, Clip, Skipped, count_clips, simulate

READERS: dict[str, Callable[[Path], StillSource]] = {"msra10k": open_msra10k, "coco": open_coco, "voc": open_voc}


def run(dataset: str, config: SynthesisConfig, raw: Path, output: Path, scratch: Path, workers: int) -> None:
    """Simulate the clips of one data set.

    Args:
        dataset: `msra10k`, `coco` or `voc`.
        config: section `synthesis` of the profile.
        raw: folder of the archives and their manifest; with an empty manifest there are no clips.
        output: folder to write.
        scratch: folder for finished shards of an interrupted run; kept under a digest of settings, data and code.
        workers: number of processes.

    Raises:
        UserError: no such data set, unreadable data, or another run is working on the same data set.
    """
    if dataset not in READERS:
        raise UserError(
            f"there is no data set of stills {dataset!r}; expected one of {', '.join(READERS)}; correct the command"
        )
    files = _read_manifest(raw / "manifest.json")
    if not files:
        write_nothing(output)
        log(f"{dataset}: no source, no clips")
        return
    code = [file_digest(p) for p in sorted(Path(str(synthesis.__file__)).parent.glob("*.py"))]
    key = digest({"dataset": dataset, "config": asdict(config), "files": files, "code": code})
    shards = scratch / dataset / key
    with scratch_lock(shards):
        stills = READERS[dataset](raw)
        n_shards = -(-count_clips(stills, config) // config.clips_per_shard)
        todo = [n for n in range(n_shards) if not (_record(shards, n).exists() and _archive(shards, n).exists())]
        if len(todo) < n_shards:
            log(f"{dataset}: {n_shards - len(todo)} of {n_shards} shards are kept from an interrupted run")
        done = _make_shards(stills, config, shards, todo, workers)
        for _ in progress(done, len(todo), f"{dataset} shards"):
            pass
        _collect(dataset, stills, shards, n_shards, output)
    shutil.rmtree(shards, ignore_errors=True)


def write_nothing(output: Path) -> None:
    """Write the output of a data set without clips.

    Args:
        output: folder to write.
    """
    with output_folder(output) as folder:
        _write_tables(folder, [], [])


def _read_manifest(path: Path) -> list[dict[str, object]]:
    if not path.exists():
        raise UserError(f"{path} does not exist; expected the data set from the download stage; run that first")
    files: list[dict[str, object]] = json.loads(path.read_text())["files"]
    return files


def _archive(folder: Path, number: int) -> Path:
    return folder / f"shard-{number:05d}.zip"


def _record(folder: Path, number: int) -> Path:
    """The record of a shard; written after it, so that it also shows that the shard is complete."""
    return folder / f"shard-{number:05d}.json"


def _make_shards(
    stills: StillSource, config: SynthesisConfig, folder: Path, todo: Sequence[int], workers: int
) -> Iterator[int]:
    """Make shards, in this process or in several; yields the number of each when it is complete."""
    if workers <= 1 or len(todo) <= 1:
        for number in todo:
            yield _make_shard(stills, config, folder, number)
        return
    # forked, so that all share the index of the data set, which takes gigabytes for COCO
    context = multiprocessing.get_context("fork")
    setting = (stills, config, folder, os.getpid())
    pool = ProcessPoolExecutor(min(workers, len(todo)), context, _start_worker, setting)
    try:
        for future in as_completed([pool.submit(_make_in_worker, number) for number in todo]):
            yield future.result()
    except BrokenProcessPool:
        raise UserError(
            "a process that simulates clips was killed, perhaps because memory ran out; expected it to finish; "
            "lower runtime.workers and rerun, finished shards are kept"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


_worker: tuple[StillSource, SynthesisConfig, Path] | None = None  # set once in each forked process


def _start_worker(stills: StillSource, config: SynthesisConfig, folder: Path, parent: int) -> None:
    global _worker
    _worker = (stills, config, folder)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C reaches all processes; only the parent reports it
    cv2.setNumThreads(0)  # one process per core is enough, and OpenCV's threads do not survive a fork
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """End this process if its parent is gone; an orphan would keep the lock of the scratch folder."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


def _make_in_worker(number: int) -> int:
    assert _worker is not None
    return _make_shard(*_worker, number)


def _make_shard(stills: StillSource, config: SynthesisConfig, folder: Path, number: int) -> int:
    """Simulate and write the clips of one shard."""
    begin = number * config.clips_per_shard
    clips, skipped = [], []
    with ZipWriter(_archive(folder, number)) as archive:
        for index in range(begin, min(begin + config.clips_per_shard, count_clips(stills, config))):
            clip, left_out = simulate(stills, index, config)
            skipped += left_out
            if clip is not None:
                name = f"{stills.name}-{index:06d}"
                clips.append((name, clip.image, clip.n_objects, " ".join(map(str, clip.order))))
                _write_clip(archive, name, clip, config.jpeg_quality)
    write_json(_record(folder, number), {"clips": clips, "skipped": skipped})
    return number


def _write_clip(archive: ZipWriter, name: str, clip: Clip, quality: int) -> None:
    for t, (frame, mask) in enumerate(zip(clip.frames, clip.masks)):
        archive.write(f"JPEGImages/{name}/{t:05d}.jpg", encode_jpeg(frame, quality))
        archive.write(f"Annotations/{name}/{t:05d}.png", encode_mask(mask))


def _collect(dataset: str, stills: StillSource, shards: Path, n_shards: int, output: Path) -> None:
    """Move the shards that have clips into the output and log what was left out."""
    clips: list[tuple[str, str, int, str]] = []
    skipped: list[Skipped] = []
    n_kept = 0
    with output_folder(output) as folder:
        for number in range(n_shards):
            record = json.loads(_record(shards, number).read_text())
            clips += [(name, image, n, order) for name, image, n, order in record["clips"]]
            skipped += [Skipped(*entry) for entry in record["skipped"]]
            if record["clips"]:
                shutil.move(_archive(shards, number), _archive(folder, n_kept))
                n_kept += 1
        if not clips:
            raise UserError(
                f"{dataset}: none of {len(stills.images)} images gave a clip ({_summary(skipped)}); expected objects "
                "of at least min_area; lower it or use other data"
            )
        rows = _merge(skipped)
        _write_tables(folder, clips, rows)
    log(f"{dataset}: read {', '.join(f'{n} {what}' for what, n in stills.counts.items())}")
    log(f"{dataset}: {len(clips)} clips in {n_kept} shards; left out: {_summary(rows)}")


def _merge(skipped: Sequence[Skipped]) -> list[Skipped]:
    """One row for each image and reason: clips are added up; small instances of an image are counted once."""
    merged: dict[tuple[str, str], int] = {}
    for image, reason, n in skipped:
        before = merged.get((image, reason), 0)
        merged[image, reason] = max(before, n) if reason == TINY else before + n
    return [Skipped(image, reason, n) for (image, reason), n in sorted(merged.items())]


def _summary(skipped: Sequence[Skipped]) -> str:
    totals: Counter[str] = Counter()
    for row in skipped:
        totals[row.reason] += row.n
    return ", ".join(f"{n} {reason}" for reason, n in sorted(totals.items())) or "nothing"


def _write_tables(folder: Path, clips: Sequence[tuple[str, str, int, str]], skipped: Sequence[Skipped]) -> None:
    for name, header, rows in (
        ("clips.csv", ("name", "image", "n_objects", "order"), clips),
        ("skipped.csv", Skipped._fields, skipped),
    ):
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
        write_text(folder / name, text.getvalue())


def main() -> None:
    """Simulate clips of the data set named on the command line, with the settings of params.yaml."""
    if len(sys.argv) != 2:
        raise UserError(f"{len(sys.argv) - 1} arguments given; expected one data set: {', '.join(READERS)}")
    dataset = sys.argv[1]
    settings = load_settings()
    layout = Layout(Path.cwd(), settings.profile)
    if settings.profile_params.live.use:
        write_nothing(layout.simulated(dataset))
        log(f"{dataset}: training draws new clips each time (live.use), so none are stored")
        return
    run(
        dataset,
        settings.profile_params.synthesis,
        layout.raw(dataset),
        layout.simulated(dataset),
        layout.scratch("synthesize"),
        settings.runtime.workers,
    )


if __name__ == "__main__":
    raise SystemExit(run_main(main))
