"""Speed and memory of reading many small files at random places: zip, tar, shards and folder.

    python -m benchmarks.readers --files 20000 --folder /tmp/readers

Writes made-up files of `--bytes` each in the four forms, then for each form measures opening it for the first time,
opening it again (with the index in the store), and reading `--reads` files in random order in one thread. Times are CPU
milliseconds for opening and microseconds for a file. The memory is that of the opened archive: names and positions.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import tarfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np

from pipeline.core import archive_index
from pipeline.core.archives import Archive, ShardWriter, ZipWriter, open_archive, open_shards


def main() -> None:
    """Measure all forms and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.readers", description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--bytes", type=int, default=4_000)
    parser.add_argument("--reads", type=int, default=5_000)
    parser.add_argument("--folder", type=Path, required=True, help="for the made-up files; it is removed at the end")
    options = parser.parse_args()
    os.environ["DSTM_STORE"] = str(options.folder / "store")
    archive_index._FROM_BYTES = 1  # so that the index of a small archive is kept too
    names = [f"JPEGImages/{i // 30:06d}/{i % 30:05d}.jpg" for i in range(options.files)]
    data = np.random.default_rng(0).bytes(options.bytes)
    print("form     open ms   again ms   read us/file   index kB")
    try:
        for form, opener in write(options.folder, names, data).items():
            row = measure(opener, names, options.reads)
            print(f"{form:<8} {row[0]:7.1f} {row[1]:10.1f} {row[2]:14.1f} {row[3]:10.0f}", flush=True)
    finally:
        shutil.rmtree(options.folder)


def measure(opener: Callable[[], Archive], names: list[str], reads: int) -> tuple[float, float, float, float]:
    """CPU ms of the first and second opening, CPU microseconds of a read, and kB of the opened archive."""
    times = []
    for _ in range(2):
        begin = time.process_time()
        archive = opener()
        times.append(1000 * (time.process_time() - begin))
    tracemalloc.start()
    archive = opener()
    memory = tracemalloc.get_traced_memory()[0] / 1000
    tracemalloc.stop()
    chosen = np.random.default_rng(1).integers(0, len(names), reads)
    begin = time.process_time()
    for i in chosen:
        archive.read(names[i])
    spent = time.process_time() - begin
    return times[0], times[1], 1e6 * spent / reads, memory


def write(folder: Path, names: list[str], data: bytes) -> dict[str, Callable[[], Archive]]:
    """The same files as a zip, a tar, shards and a folder."""
    folder.mkdir(parents=True)
    with ZipWriter(folder / "a.zip") as archive:
        for name in names:
            archive.write(name, data)
    with tarfile.open(folder / "a.tar", "w") as tar:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    with ShardWriter(folder / "shards", len(data) * max(1, len(names) // 20)) as shards:
        for name in names:
            shards.write_group([(name, data)])
    for name in names:
        path = folder / "files" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return {
        "zip": lambda: open_archive(folder / "a.zip"),
        "tar": lambda: open_archive(folder / "a.tar"),
        "shards": lambda: open_shards(folder / "shards"),
        "folder": lambda: open_archive(folder / "files"),
    }


if __name__ == "__main__":
    main()
