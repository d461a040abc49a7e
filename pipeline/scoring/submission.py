"""Check results as a challenge server would, and pack the archive that it accepts.

DAVIS' servers expect `<sequence>/<frame>.png` at the top of the zip, YouTube-VOS' `Annotations/<video>/<frame>.png`.
Both expect indexed PNGs at the frames' size, one for every frame, with the ids of the first masks.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from pipeline.core.archives import ZipWriter
from pipeline.core.errors import UserError
from pipeline.core.images import VOID
from pipeline.core.runtime import log, progress
from pipeline.scoring.indexed_png import colour_type, decode_indexed
from pipeline.scoring.results import Results

if TYPE_CHECKING:
    from pipeline.scoring.sequence import AnnotatedVideo, Annotations

Server = Literal["davis", "youtubevos"]

_EVERY = 5  # YouTube-VOS is scored at every fifth frame, also if the data has all frames
_MODES = {0: "grey (L)", 2: "RGB", 4: "grey with alpha (LA)", 6: "RGBA"}


@dataclass(frozen=True)
class Wanted:
    """What a server expects of one sequence.

    Attributes:
        name: name of the sequence.
        required: frames that must have a mask.
        optional: frames that may have a mask.
        height: rows of every mask.
        width: columns of every mask.
        ids: object ids that a mask may contain, in addition to 0.
    """

    name: str
    required: tuple[str, ...]
    optional: tuple[str, ...]
    height: int
    width: int
    ids: frozenset[int]


@dataclass(frozen=True)
class Fault:
    """One problem for which a server would refuse the results."""

    path: str
    what: str

    def __str__(self) -> str:
        return f"{self.path}: {self.what}"


def wanted_masks(source: Annotations, server: Server) -> list[Wanted]:
    """What a server expects for a split, from its frames and first masks.

    Args:
        source: the split.
        server: DAVIS: every frame. YouTube-VOS: every fifth one from the first mask on; all others are optional.
    """
    return [_want(source, video, server) for video in progress(source.videos, len(source.videos), "first masks")]


def _want(source: Annotations, video: AnnotatedVideo, server: Server) -> Wanted:
    ids: set[int] = set()
    shape = (0, 0)
    firsts = sorted(set(video.first_seen.values()), key=video.frames.index)
    if not firsts:
        raise UserError(
            f"{source.name}: video {video.name} has no object; expected at least one with a first mask; leave it out"
        )
    for frame_id in firsts:
        mask = source.mask(video, frame_id)
        ids |= set(np.unique(mask).tolist()) - {0, VOID}
        shape = mask.shape
    if server == "davis":
        return Wanted(video.name, video.frames, (), *shape, frozenset(ids))
    begun = set(video.frames[video.frames.index(firsts[0]) :])
    required = tuple(frame_id for frame_id in _judged(video.frames) if frame_id in begun)
    optional = tuple(frame_id for frame_id in video.frames if frame_id not in required)
    return Wanted(video.name, required, optional, *shape, frozenset(ids))


def _judged(frames: tuple[str, ...]) -> tuple[str, ...]:
    """The frames that YouTube-VOS' server scores: all of the usual release, every fifth if the data has all frames."""
    if not all(frame_id.isdigit() for frame_id in frames):
        return frames
    numbers = [int(frame_id) for frame_id in frames]
    released_whole = any(b - a == 1 for a, b in pairwise(numbers))
    return tuple(f for f, number in zip(frames, numbers, strict=True) if not released_whole or number % _EVERY == 0)


def check(wanted: Iterable[Wanted], results: Results) -> list[Fault]:
    """Compare results with what a server expects.

    Returns:
        Every fault: missing sequences and frames, unexpected files and folders, unreadable files, modes other than P,
        wrong sizes, unknown ids. Empty if the results can be submitted.
    """
    sequences = list(wanted)
    present = set(results.names())
    faults = _strays(sequences, results, present)
    for sequence in progress(sequences, len(sequences), "checking masks"):
        found = {name for name in present if name.startswith(f"{sequence.name}/")}
        if not found:
            what = f"missing; expected a folder of {len(sequence.required)} masks"
            faults.append(Fault(f"{results.path}/{sequence.name}", what))
            continue
        for frame_id in (*sequence.optional, *sequence.required):
            fault = None
            if f"{sequence.name}/{frame_id}.png" in found:
                fault = _check_mask(sequence, results, frame_id)
            elif frame_id in sequence.required:
                fault = "missing; expected a mask for this frame"
            if fault:
                faults.append(Fault(results.label(sequence.name, frame_id), fault))
    return faults


def _strays(sequences: list[Wanted], results: Results, present: set[str]) -> list[Fault]:
    """Files and folders that no server expects."""
    expected = {f"{s.name}/{frame_id}.png" for s in sequences for frame_id in (*s.required, *s.optional)}
    folders = results.extra_folders(s.name for s in sequences)
    faults = [
        Fault(f"{results.path}/{folder}", "not expected; no sequence of the split has this name") for folder in folders
    ]
    known = {f"{folder}/" for folder in folders}
    for name in sorted(present - expected):
        top, slash, _ = name.partition("/")
        if top + slash not in known:
            faults.append(Fault(f"{results.path}/{name}", "not expected; expected only <sequence>/<frame>.png"))
    return faults


def _check_mask(sequence: Wanted, results: Results, frame_id: str) -> str | None:
    """The first thing wrong with one mask."""
    try:
        data = results.data(sequence.name, frame_id)
        colour = colour_type(data)
        if colour in _MODES:
            return f"mode {_MODES[colour]}; expected an indexed PNG (P)"
        ids = decode_indexed(data, "the file")
    except UserError as error:
        return str(error)
    if colour is None:
        return "not a PNG file; expected an indexed PNG (P)"
    if ids.shape != (sequence.height, sequence.width):
        return f"{ids.shape[1]}x{ids.shape[0]}; expected {sequence.width}x{sequence.height} as the first mask"
    unknown = sorted(set(np.flatnonzero(np.bincount(ids.reshape(-1))).tolist()) - sequence.ids - {0})
    if unknown:
        listed, allowed = (", ".join(map(str, sorted(ids))) for ids in (unknown, sequence.ids))
        return f"contains the ids {listed}; expected those of the first masks, {allowed}"
    return None


def write_submission(source: Annotations, results: Results, out: Path, server: Server) -> None:
    """Check results and pack them for a server.

    Args:
        source: the split they were made for.
        results: the masks.
        out: the zip to write.
        server: whose layout.

    Raises:
        UserError: there are faults; all of them are printed first, and nothing is written.
    """
    wanted = wanted_masks(source, server)
    refuse_faults(check(wanted, results), results)
    top = "Annotations/" if server == "youtubevos" else ""
    with ZipWriter(out) as archive:
        for sequence in progress(wanted, len(wanted), f"writing {out.name}"):
            for frame_id in sequence.required:
                name = f"{top}{sequence.name}/{frame_id}.png"
                archive.write(name, results.data(sequence.name, frame_id))
    masks = sum(len(sequence.required) for sequence in wanted)
    log(f"{out.name}: {masks} masks of {len(wanted)} sequences")


def refuse_faults(faults: list[Fault], results: Results) -> None:
    """Print every fault.

    Raises:
        UserError: there are faults.
    """
    for fault in faults:
        log(str(fault))
    if faults:
        raise UserError(f"{results.path} has {len(faults)} faults, listed above; expected none; fix them and rerun")
