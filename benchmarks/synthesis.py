"""Speed of the simulated videos, compared with decoding and encoding the same images, and what they take on disk.

    python -m benchmarks.synthesis --msra10k MSRA10K_Imgs_GT.zip --clips 40
    python -m benchmarks.synthesis --voc VOCtrainval_11-May-2012.tar --clips 40

The settings are those of the profile `paper`, or of another one (`--profile`). CPU milliseconds for a frame in one
thread: the floor is decoding a still and its mask for each clip, and encoding each frame and mask; the rest is warping
and pasting.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import cv2

from pipeline.core.images import encode_jpeg, encode_mask
from pipeline.datasets.msra10k import open_msra10k
from pipeline.datasets.voc import open_voc
from pipeline.settings import load_settings
from pipeline.synthesis.simulate import Clip, simulate


def main() -> None:
    """Measure and print one row of the table in docs/scale.md."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.synthesis", description=__doc__.splitlines()[0])
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--msra10k", type=Path)
    source.add_argument("--voc", type=Path)
    parser.add_argument("--clips", type=int, default=40)
    parser.add_argument("--profile", default="paper")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    stills = open_msra10k(options.msra10k) if options.msra10k else open_voc(options.voc)
    config = load_settings().profiles[options.profile].synthesis

    begin = time.process_time()
    clips = [clip for i in range(options.clips) if (clip := simulate(stills, i, config)[0])]
    simulated = time.process_time() - begin
    begin = time.process_time()
    n_bytes = [write(clip, config.jpeg_quality) for clip in clips]
    encoded = time.process_time() - begin
    begin = time.process_time()
    for clip in clips:
        stills.image(clip.image)
        stills.instances(clip.image)
    decoded = time.process_time() - begin

    n_frames = sum(len(clip.frames) for clip in clips)
    floor, whole = 1000 * (decoded + encoded) / n_frames, 1000 * (simulated + encoded) / n_frames
    print(f"{n_frames} frames of {len(clips)} clips, short side {config.short_side}")
    print(f"CPU ms per frame: {whole:.1f}; floor {floor:.1f}, of which decoding {1000 * decoded / n_frames:.1f}")
    print(f"ratio {whole / floor:.1f}")
    jpeg, mask = (sum(sizes) / n_frames / 1000 for sizes in zip(*n_bytes, strict=True))
    print(f"kB per frame: JPEG {jpeg:.1f}, mask {mask:.1f}")


def write(clip: Clip, quality: int) -> tuple[int, int]:
    """Encode a clip; bytes of its frames and masks."""
    return sum(len(encode_jpeg(f, quality)) for f in clip.frames), sum(len(encode_mask(m)) for m in clip.masks)


if __name__ == "__main__":
    main()
