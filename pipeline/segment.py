"""Segment the objects of a first mask through a video of your own.

    python -m pipeline.segment VIDEO --mask MASK.png --out DIR
    python -m pipeline.segment clip.mp4 --mask first.png --mask 40:late.png --out masks --tta --overlay
    python -m pipeline.segment "frames/*.jpg" --mask mask.png --out masks --weights models/paper/dstm.pt

VIDEO is a video file, a folder of images or a glob. A mask is a PNG of the frame's size whose values are object ids;
`40:` gives one for frame 40, counted from 0, where new objects appear. Depth is estimated on the way. DIR gets an
indexed PNG for each frame and, with --overlay, overlay.mp4. After Ctrl-C it holds whole files. More: docs/segment.md.

In Python:

    segmenter = open_segmenter("models/sample/dstm.pt", "models/sample/depth.pt")
    for mask in segmenter.propagate(frames, first_mask):
        ...
"""

from __future__ import annotations

import argparse
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import UserError
from pipeline.core.files import write_bytes
from pipeline.core.images import encode_mask
from pipeline.core.layout import Layout
from pipeline.core.runtime import log, pick_device, progress, run_main
from pipeline.dstm.checkpoint import load_dstm
from pipeline.footage.footage import Footage, Shot, open_footage
from pipeline.footage.input_checks import OVERLAY, check_masks, check_output, make_folder
from pipeline.footage.mask_files import read_masks
from pipeline.footage.overlay import OverlayVideo
from pipeline.footage.readable_part import ReadablePart
from pipeline.hourglass.checkpoint import load_hourglass
from pipeline.hourglass.estimator import DepthEstimator
from pipeline.inference.config import InferSwitches
from pipeline.inference.segmenter import FrameDepth, Segmenter
from pipeline.inference.threads import WriteBehind, prefetch
from pipeline.settings import Settings, load_settings

T = TypeVar("T")

_RANGE_FRAMES = 48  # frames, spread over the video, from which the range of its depth is taken
_WAITING_BYTES = 128 << 20  # frames read ahead; of 4K they are five


def open_segmenter(
    weights: Path | str,
    depth_weights: Path | str | None = None,
    tta: bool = False,
    settings: Settings | None = None,
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
    network = load_dstm(Path(weights), device)
    depth = None
    if network.switches.depth:
        estimator = None
        if network.switches.depth_input == "estimated" and depth_weights is not None:
            if not Path(depth_weights).is_file():
                raise UserError(
                    f"{weights} takes depth, but {depth_weights} does not exist; expected the weights of the depth "
                    "network; make them (make repro) or give others (--depth-weights)"
                )
            estimator = DepthEstimator(load_hourglass(Path(depth_weights)), device, params.depth.precision)
        low, high = params.depth.percentile_low, params.depth.percentile_high
        depth = FrameDepth(network.switches.depth_input, estimator, low, high, params.depth.steady)
    return Segmenter(network, depth, InferSwitches(tta), params.infer, device)


def run(
    segmenter: Segmenter, footage: Footage, masks: Mapping[int, NDArray[np.uint8]], out: Path, with_overlay: bool
) -> None:
    """Segment a video into a folder. Other files of the folder stay as they are.

    Args:
        segmenter: the networks.
        footage: the video.
        masks: frame index -> uint8 H,W ids.
        out: folder for `<frame>.png` and `overlay.mp4`.
        with_overlay: write the latter.

    Raises:
        UserError: masks or frames do not fit each other, a frame cannot be read, or the video breaks off; the masks and
            the overlay of the frames before that are whole.
        KeyboardInterrupt: it was interrupted; its text says what there is.
    """
    height, width = check_masks(footage, masks)
    max_waiting = max(2, min(8, _WAITING_BYTES // (3 * height * width)))
    depth_range = None if segmenter.depth is None else segmenter.depth.range_of(_spread(footage))
    readable, waiting = ReadablePart(footage), deque[Shot]()
    count = 0

    def frames() -> Iterator[NDArray[np.uint8]]:
        with closing(_generator(prefetch(readable.shots(), max_waiting))) as shots:
            for shot in shots:
                waiting.append(shot)
                yield shot.rgb

    if footage.broken_off is not None:
        log(f"the video breaks off before its end ({footage.broken_off}): the frames that are there get their masks")
    make_folder(out)
    others = {path.name for path in out.glob("*.png")}
    try:
        with ExitStack() as stack:
            video = stack.enter_context(OverlayVideo(out / OVERLAY)) if with_overlay else None
            writer = stack.enter_context(
                WriteBehind(max_waiting, threads=1)
            )  # ends first: all frames are in the video then
            source = stack.enter_context(closing(_generator(frames())))
            found = stack.enter_context(closing(segmenter.propagate(source, masks, depth_range)))
            shown = progress(found, footage.length, "frames", every_s=5.0)
            for mask in stack.enter_context(closing(_generator(shown))):
                shot = waiting.popleft()
                others.discard(f"{shot.name}.png")
                show = None if video is None else partial(video.add, shot.rgb, mask, shot.seconds)
                writer.put(partial(_write, out / f"{shot.name}.png", mask, show))
                count += 1
    except KeyboardInterrupt:
        of = "" if footage.length is None else f" of {footage.length}"
        raise KeyboardInterrupt(
            f"the masks of the first {count}{of} frames are whole and in {out}; a new run begins at the first frame"
        ) from None
    except UserError as error:
        raise readable.fault(count) or error from None
    if fault := readable.fault(count):
        raise fault
    if footage.length is not None and count != footage.length:
        log(f"the video says it has {footage.length} frames; {count} could be decoded, and each has its mask")
    if others:
        log(f"{out} held {len(others)} other PNG files before; they are as they were")


def _spread(footage: Footage) -> Iterator[NDArray[np.uint8]]:
    log("the range of depth is taken from frames all over the video")
    yield from footage.spread(_RANGE_FRAMES)


def _generator(items: Iterator[T]) -> Generator[T, None, None]:
    return cast("Generator[T, None, None]", items)  # what a function with yield returns can be closed


def _write(path: Path, mask: NDArray[np.uint8], show: Callable[[], None] | None) -> None:
    write_bytes(path, encode_mask(mask))
    if show is not None:
        show()


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
        help="ids of the objects in frame 0, or in frame INDEX, or a folder of masks named like the frames; may be "
        "given several times",
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
    weights, depth_weights = options.weights or layout.model("dstm"), options.depth_weights or layout.model("depth")
    if not weights.is_file():
        how = "make them (make repro) or give others (--weights)" if options.weights is None else "correct the path"
        raise UserError(f"{weights} does not exist; expected the weights of a trained D-STM; {how}")
    # what can be wrong with the inputs is found before the networks are loaded
    footage = open_footage(options.video)
    masks = read_masks(options.mask, footage)
    check_masks(footage, masks.ids)
    check_output(footage, masks.files, options.out)
    if options.weights is None and settings.profile == "sample":
        log("these weights were trained on the rendered sample for minutes; expect little of them on real video")
    segmenter = open_segmenter(weights, depth_weights, options.tta, settings)
    try:
        run(segmenter, footage, masks.ids, options.out, options.overlay)
    except KeyboardInterrupt as interruption:
        sys.stderr.write(f"interrupted; {str(interruption) or 'nothing was written'}\n")
        raise SystemExit(130) from None
    log(f"masks are in {options.out}" + (f", {OVERLAY} beside them" if options.overlay else ""))


if __name__ == "__main__":
    raise SystemExit(run_main(main))
