"""Segment the objects of a first mask through a video of your own.

    python -m pipeline.segment VIDEO --mask MASK.png --out DIR
    python -m pipeline.segment clip.mp4 --mask first.png --mask 40:late.png --out masks --tta --overlay
    python -m pipeline.segment "frames/*.jpg" --mask mask.png --out masks --weights models/paper/dstm.pt

VIDEO is a video file, a folder of images or a glob. A mask is an indexed or grey PNG of the frame's size whose values
are object ids; `40:` gives one for frame 40, counted from 0, where new objects appear. Depth is estimated on the way.
DIR gets an indexed PNG for each frame and, with --overlay, overlay.mp4. After Ctrl-C it holds whole files.

In Python:

    segmenter = open_segmenter(Path("models/sample/dstm.pt"), Path("models/sample/depth.pt"))
    for mask in segmenter.propagate(frames, {0: first_mask}):
        ...
"""

from __future__ import annotations

import argparse
import re
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import UserError
from pipeline.core.files import write_bytes
from pipeline.core.images import VOID, decode_mask, encode_mask
from pipeline.core.layout import Layout
from pipeline.core.runtime import log, pick_device, progress, run_main
from pipeline.datasets.video import object_ids
from pipeline.dstm.checkpoint import load_dstm
from pipeline.hourglass.checkpoint import load_hourglass
from pipeline.hourglass.estimator import DepthEstimator
from pipeline.hourglass.normalise import DepthRange
from pipeline.inference.ahead import WriteBehind, prefetch
from pipeline.inference.config import InferSwitches
from pipeline.inference.footage import Footage, Shot, open_footage
from pipeline.inference.overlay import OverlayVideo
from pipeline.inference.segmenter import FrameDepth, Segmenter
from pipeline.settings import Settings, load_settings

_MOST_OBJECTS = 100  # more ids than this are a picture or a smoothed mask, not objects
_RANGE_FRAMES = 48  # frames, spread over the video, from which the range of its depth is taken


def open_segmenter(
    weights: Path, depth_weights: Path | None, tta: bool = False, settings: Settings | None = None
) -> Segmenter:
    """A segmenter from files.

    Args:
        weights: a D-STM checkpoint.
        depth_weights: the depth network's; not read where the weights take no estimated depth.
        tta: average over the scales and flips of params.yaml.
        settings: where memory, precision, scales and device come from; params.yaml of the working directory if None.

    Raises:
        UserError: unfit files.
    """
    settings = settings or load_settings()
    params, device = settings.profile_params, pick_device(settings.runtime.device)
    network = load_dstm(weights, device)
    depth = None
    if network.switches.depth:
        estimator = None
        if network.switches.depth_input == "estimated" and depth_weights is not None:
            estimator = DepthEstimator(load_hourglass(depth_weights), device, params.depth.precision)
        kind, low, high = network.switches.depth_input, params.depth.percentile_low, params.depth.percentile_high
        depth = FrameDepth(kind, estimator, low, high)
    return Segmenter(network, depth, InferSwitches(tta), params.infer, device)


def read_masks(arguments: Sequence[str]) -> dict[int, NDArray[np.uint8]]:
    """The masks of the command line, `MASK.png` (frame 0) or `INDEX:MASK.png`.

    Returns:
        Frame index -> uint8 H,W ids.

    Raises:
        UserError: a missing or unreadable file, a colour image, no object, or more ids than objects can have.
    """
    masks: dict[int, NDArray[np.uint8]] = {}
    for argument in arguments:
        indexed = re.fullmatch(r"(\d+):(.+)", argument)
        index, path = (int(indexed[1]), Path(indexed[2])) if indexed else (0, Path(argument))
        if not path.is_file():
            raise UserError(f"{path} does not exist; expected a mask, MASK.png or INDEX:MASK.png; correct the path")
        if index in masks:
            raise UserError(f"two masks are given for frame {index}; expected one; give the others as INDEX:MASK.png")
        mask = decode_mask(path.read_bytes(), str(path))
        ids = object_ids(mask)
        if not ids and (mask == VOID).any():
            log(f"{path} is black and white: its white part is taken as object 1")
            mask = (mask == VOID).astype(np.uint8)
        elif not ids:
            raise UserError(f"{path} holds no object; expected ids from 1 where objects are; draw them")
        elif len(ids) > _MOST_OBJECTS:
            raise UserError(
                f"{path} holds {len(ids)} different values; expected object ids, at most {_MOST_OBJECTS}; draw it "
                "without smoothing and save it indexed"
            )
        masks[index] = mask
    return masks


def run(
    segmenter: Segmenter, footage: Footage, masks: dict[int, NDArray[np.uint8]], out: Path, with_overlay: bool
) -> None:
    """Segment a video into a folder.

    Args:
        segmenter: the networks.
        footage: the video.
        masks: frame index -> uint8 H,W ids.
        out: folder for `<frame>.png` and `overlay.mp4`.
        with_overlay: write the latter.

    Raises:
        UserError: masks or frames do not fit each other, or a frame cannot be read; what was written before is whole.
    """
    sizes = {mask.shape for mask in masks.values()}
    if len(sizes) > 1:
        raise UserError(f"the masks have {len(sizes)} different sizes; expected that of the frames; redraw them")
    if footage.length is not None and max(masks) >= footage.length:
        raise UserError(
            f"a mask is given for frame {max(masks)}, but the video has {footage.length} frames (0 to "
            f"{footage.length - 1}); correct its index"
        )
    depth_range = None if segmenter.depth is None else _depth_range(segmenter.depth, footage)
    waiting: deque[Shot] = deque()
    count = 0

    def frames() -> Iterator[NDArray[np.uint8]]:
        for shot in prefetch(footage.shots(), count=8):
            waiting.append(shot)
            yield shot.rgb

    with ExitStack() as stack:
        writer = stack.enter_context(WriteBehind(8, threads=1))
        out.mkdir(parents=True, exist_ok=True)
        video = stack.enter_context(OverlayVideo(out / "overlay.mp4")) if with_overlay else None
        found = segmenter.propagate(frames(), masks, depth_range)
        for mask in progress(found, footage.length, "frames", every_s=5.0):
            shot = waiting.popleft()
            count += 1
            writer.put(partial(_write_mask, out / f"{shot.name}.png", mask))
            if video is not None:
                video.add(shot.rgb, mask, shot.seconds)
    if footage.length is not None and count != footage.length:
        log(f"the video says it has {footage.length} frames; {count} could be decoded, and each has its mask")


def _depth_range(depth: FrameDepth, footage: Footage) -> DepthRange | None:
    """One range for the video, from frames spread over all of it; a file that hides its length gives its first ones."""
    step = max(1, (footage.length or 0) // _RANGE_FRAMES)
    last = step * _RANGE_FRAMES
    return depth.range_of(shot.rgb for i, shot in zip(range(last), footage.shots()) if i % step == 0)


def _write_mask(path: Path, mask: NDArray[np.uint8]) -> None:
    write_bytes(path, encode_mask(mask))


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; a wrong one ends the program with its usage."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.segment", description="Segment the objects of a first mask through a video."
    )
    parser.add_argument("video", metavar="VIDEO", help="a video file, a folder of images or a glob")
    parser.add_argument(
        "--mask",
        action="append",
        required=True,
        metavar="[INDEX:]MASK.png",
        help="ids of the objects in frame 0, or in frame INDEX; may be given several times",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the masks")
    parser.add_argument("--weights", type=Path, help="D-STM (default: that of the active profile)")
    parser.add_argument("--depth-weights", type=Path, help="depth network (default: that of the active profile)")
    parser.add_argument("--tta", action="store_true", help="average over scales and flips (slower)")
    parser.add_argument("--overlay", action="store_true", help="write overlay.mp4 too")
    return parser.parse_args(argv)


def main() -> None:
    """Segment the video of the command line."""
    options = parse_arguments()
    settings = load_settings()
    layout = Layout(Path.cwd(), settings.profile)
    if options.weights is None and settings.profile == "sample":
        log("these weights were trained on the rendered sample for minutes; expect little of them on real video")
    masks = read_masks(options.mask)
    footage = open_footage(options.video)
    weights, depth_weights = options.weights or layout.model("dstm"), options.depth_weights or layout.model("depth")
    segmenter = open_segmenter(weights, depth_weights, options.tta, settings)
    run(segmenter, footage, masks, options.out, options.overlay)
    log(f"masks are in {options.out}" + (", overlay.mp4 beside them" if options.overlay else ""))


if __name__ == "__main__":
    raise SystemExit(run_main(main))
