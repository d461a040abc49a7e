"""Segment the objects of a first mask through a video of your own.

    python -m pipeline.segment VIDEO --mask MASK.png --out DIR
    python -m pipeline.segment clip.mp4 --mask first.png --mask 40:late.png --gone 90:2 --out masks --overlay
    python -m pipeline.segment "frames/*.jpg" --mask mask.png --out masks --weights models/paper/dstm.pt

VIDEO is a video file, a folder of images or a glob. A mask is a PNG of the frame's size whose values are object ids;
`40:` gives one for frame 40, counted from 0, where objects appear or are corrected. DIR gets an indexed PNG for each
frame and the other requested results. After Ctrl-C its files are complete, and --resume continues. More:
docs/segment.md.

In Python:

    for mask in open_segmenter().propagate(frames, first_mask):
        ...
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import UserError
from pipeline.core.layout import Layout
from pipeline.core.runtime import log, pick_device, run_main
from pipeline.dstm.checkpoint import load_dstm
from pipeline.footage.departures import parse_gone
from pipeline.footage.drawings import DrawingOptions
from pipeline.footage.footage import Footage, open_footage
from pipeline.footage.input_checks import check_masks, check_output
from pipeline.footage.mask_files import read_masks
from pipeline.footage.matte import MATTE_FORMS, parse_objects
from pipeline.hourglass.checkpoint import load_hourglass
from pipeline.hourglass.estimator import DepthEstimator
from pipeline.inference.config import InferSwitches
from pipeline.inference.directions import Direction
from pipeline.inference.given import Given
from pipeline.inference.segmenter import FrameDepth, Segmenter
from pipeline.inference.video_job import VideoJob, Wanted
from pipeline.pretrained.shipped import SHIPPED
from pipeline.settings import Settings, load_settings

DEFAULT_SIZE = 480  # short side at which the network works: that of its training videos
_SHIPPED_PROFILE = "lite"  # its inference settings belong to the weights in the repository


def open_segmenter(
    weights: Path | str | None = None,
    depth_weights: Path | str | None = None,
    tta: bool = False,
    settings: Settings | None = None,
    size: int = DEFAULT_SIZE,
) -> Segmenter:
    """A segmenter from files.

    Args:
        weights: a D-STM checkpoint; `trained`: the active profile's; None: the weights in the repository, with the
            inference settings of the profile that trained them.
        depth_weights: the depth network's; not read if the weights take no estimated depth. If None, the active
            profile's, for weights that are not given by a path.
        tta: average over the scales and flips of params.yaml.
        settings: memory, precision, scales and device; params.yaml of the working directory if None.
        size: short side in pixels at which the network works; larger frames are reduced for it. 0: frames are not
            resized.

    Raises:
        UserError: the files are invalid.
    """
    settings = settings or load_settings()
    layout = Layout(Path.cwd(), settings.profile)
    if depth_weights is None and weights in (None, "trained"):
        depth_weights = layout.model("depth")
    weights = choose_weights(None if weights is None else str(weights), layout)
    params, device = settings.profile_params, pick_device(settings.runtime.device)
    of_weights = settings.profiles.get(_SHIPPED_PROFILE, params) if weights == SHIPPED else params
    config = replace(of_weights.infer, short_side=size)
    network = load_dstm(weights, device)
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
    return Segmenter(network, depth, InferSwitches(tta), config, device)


def run(
    segmenter: Segmenter,
    footage: Footage,
    masks: Mapping[int, NDArray[np.uint8]],
    out: Path,
    draw: DrawingOptions,
    wanted: Wanted | None = None,
) -> None:
    """Segment a video into a folder. Other files in the folder stay unchanged.

    Args:
        segmenter: the networks.
        footage: the video.
        masks: frame index -> uint8 H,W ids.
        out: folder for `<frame>.png` and what is drawn.
        draw: what is drawn in addition to the masks.
        wanted: what else to do; nothing if None.

    Raises:
        UserError: masks and frames do not fit each other, a frame cannot be read, or the video breaks off; the masks
            and the overlay of the frames before that are complete.
        KeyboardInterrupt: it was interrupted; its text says what was written.
    """
    VideoJob(segmenter, footage, masks, out, replace(wanted or Wanted(), draw=draw)).run()


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; wrong arguments end the program with its usage."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.segment", description="Segment the objects of a first mask through a video."
    )
    parser.add_argument("video", metavar="VIDEO", help="a video file, a folder of images or a glob")
    parser.add_argument(
        "--mask",
        action="append",
        required=True,
        metavar="[INDEX:]MASK.png",
        help="ids of the objects in frame 0, or in frame INDEX, or a folder of masks named like the frames; can be "
        "given several times",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the masks")
    parser.add_argument(
        "--gone",
        action="append",
        default=[],
        metavar="FRAME:ID[,ID]",
        help="objects that have left in frame FRAME; can be given several times",
    )
    directions = parser.add_mutually_exclusive_group()
    directions.add_argument(
        "--both-ways", action="store_true", help="propagate every mask forwards and backwards, not only the first one"
    )
    directions.add_argument("--forward-only", action="store_true", help="leave the frames before the first mask empty")
    parser.add_argument(
        "--weights",
        metavar="FILE",
        help="D-STM (default: the weights in the repository); 'trained': those that you trained in the active profile",
    )
    parser.add_argument("--depth-weights", type=Path, help="depth network (default: that of the active profile)")
    parser.add_argument("--tta", action="store_true", help="average over scales and flips (slower)")
    parser.add_argument(
        "--size",
        type=_pixels,
        default=DEFAULT_SIZE,
        metavar="N",
        help=f"short side at which the network works; larger frames are reduced (default: {DEFAULT_SIZE}); 0: never",
    )
    parser.add_argument("--overlay", action="store_true", help="also write overlay.mp4")
    parser.add_argument(
        "--matte",
        nargs="?",
        const="mov",
        choices=MATTE_FORMS,
        help="cut the objects out: matte.mov (ProRes 4444), matte.webm (VP9), both with alpha, or RGBA PNGs in matte/",
    )
    parser.add_argument("--matte-objects", metavar="IDS", help="cut out only these objects, such as 1,3 (default: all)")
    parser.add_argument(
        "--probabilities", action="store_true", help="also write probabilities/ID/FRAME.png and doubt.csv"
    )
    parser.add_argument("--doubt", action="store_true", help="also write doubt.csv: which frames to check")
    parser.add_argument("--resume", action="store_true", help="keep the masks of an interrupted run and continue")
    options = parser.parse_args(argv)
    if options.matte_objects and not options.matte:
        parser.error("--matte-objects needs --matte")
    return options


def _pixels(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text} is not a number of pixels; expected 0 or more")
    return int(text)


def choose_weights(named: str | None, layout: Layout) -> Path:
    """The weights to run.

    Args:
        named: a path; `trained`, for those of the active profile; None: the weights in the repository.
        layout: of the active profile.

    Raises:
        UserError: the file does not exist.
    """
    if named is None and SHIPPED.is_file():
        return SHIPPED
    if named in (None, "trained"):
        weights, how = layout.model("dstm"), "make them (make repro) or give others (--weights FILE)"
    else:
        weights, how = Path(named), "correct the path"
    if not weights.is_file():
        raise UserError(f"{weights} does not exist; expected the weights of a trained D-STM; {how}")
    return weights


def _log_weights(weights: Path, layout: Layout) -> None:
    log(f"weights: {weights}")
    if weights == layout.model("dstm") and layout.profile == "sample":
        log("these weights were trained for minutes on the rendered sample; expect poor results on real video")


def _segment(options: argparse.Namespace) -> None:
    settings = load_settings()
    layout = Layout(Path.cwd(), settings.profile)
    weights = choose_weights(options.weights, layout)
    # the inputs are checked before the networks are loaded
    direction: Direction = "both" if options.both_ways else "forward" if options.forward_only else "auto"
    gone = parse_gone(options.gone)
    footage = open_footage(options.video)
    masks = read_masks(options.mask, footage)
    check_masks(footage, masks.ids)
    Given(masks.ids, gone)
    check_output(footage, masks.files, options.out)
    objects = None if options.matte_objects is None else parse_objects(options.matte_objects, masks.ids)
    draw = DrawingOptions(options.overlay, options.matte, objects)
    _log_weights(weights, layout)
    segmenter = open_segmenter(
        weights, options.depth_weights or layout.model("depth"), options.tta, settings, options.size
    )
    wanted = Wanted(
        gone=gone,
        direction=direction,
        probabilities=options.probabilities,
        doubt=options.doubt,
        resume=options.resume,
    )
    run(segmenter, footage, masks.ids, options.out, draw, wanted)
    log(f"masks are in {options.out}" + (f", {' and '.join(draw.names)} next to them" if draw.names else ""))


def main() -> None:
    """Segment the video of the command line; SIGTERM ends it like Ctrl-C."""
    options = parse_arguments()
    terminated: list[object] = []

    def terminate(*_: object) -> None:
        terminated.append(True)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        _segment(options)
    except KeyboardInterrupt as interruption:
        sys.stderr.write(f"interrupted; {str(interruption) or 'nothing was written'}\n")
        raise SystemExit(143 if terminated else 130) from None
    finally:
        signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    raise SystemExit(run_main(main))
