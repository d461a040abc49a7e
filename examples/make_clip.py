"""Render the example again: clip.mp4, 24 frames of three moving objects, and mask.png, their ids in the first frame.

python -m examples.make_clip
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pipeline.core.files import write_bytes
from pipeline.core.images import encode_mask
from pipeline.footage.video_writer import Coding, VideoWriter
from pipeline.sample.actors import Request
from pipeline.sample.footage import film
from pipeline.settings import load_settings

FOLDER = Path(__file__).parent
FRAMES, HEIGHT, WIDTH, RATE = 24, 256, 448, 12
SCENE = 3  # its number; no scene of the sample has its seed, since that derives from the name of the data set too
_CODING = Coding(
    container="mp4",
    codec="libx264",
    pix_fmt="yuv420p",
    options={"crf": "23", "preset": "slow"},
    container_options={"movflags": "+faststart"},
)


def make(folder: Path, frames: int = FRAMES, height: int = HEIGHT, width: int = WIDTH) -> None:
    """Render the clip and its first mask.

    Args:
        folder: where clip.mp4 and mask.png are written.
        frames: number of frames.
        height: of a frame, even.
        width: of a frame, even.
    """
    world = replace(load_settings().world, frame_height=height, frame_width=width)
    request = Request("multi", 3, duration=float(frames))
    pictures = film(world, request, "example", "train", SCENE, [float(t) for t in range(frames)]).pictures
    folder.mkdir(parents=True, exist_ok=True)
    with VideoWriter(folder / "clip.mp4", _CODING) as video:
        for t, picture in enumerate(pictures):
            video.write(picture.rgb, t / RATE)
    write_bytes(folder / "mask.png", encode_mask(pictures[0].ids))


if __name__ == "__main__":
    make(FOLDER)
