"""The sequences that the report shows, and a strip of time steps for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.core.images import overlay
from pipeline.reporting.tables import SequenceScore

_TILE_WIDTH, _GAP, _TITLE_HEIGHT = 256, 4, 36
_PAPER, _INK = 255, (20, 20, 20)


@dataclass(frozen=True)
class Moment:
    """One time step of a sequence.

    Attributes:
        frame_id: the frame's id ("00012").
        frame: uint8 H,W,3 RGB.
        result: uint8 H,W ids, as predicted.
        truth: uint8 H,W ids, as annotated; None if the frame has no annotation.
        depth: float32 of any height and width in [0, 1], 1 near; it is resized to the frame.
        given: whether the result is the mask that the network was given.
    """

    frame_id: str
    frame: NDArray[np.uint8]
    result: NDArray[np.uint8]
    truth: NDArray[np.uint8] | None
    depth: NDArray[np.float32]
    given: bool


def choose_sequences(scores: Sequence[SequenceScore]) -> dict[str, SequenceScore]:
    """Choose the sequences to show by a fixed rule, so that nobody picks the best-looking ones.

    The best, the median and the worst sequence by J&F, and for each kind of video the median of those not chosen yet.
    Ties are broken by name; a sequence is shown only once.

    Returns:
        Reason for the choice ("best", "median", "worst", or a kind) -> the sequence; about six.
    """
    ranked = sorted(scores, key=lambda score: (-score.j_and_f, score.name))
    chosen: dict[str, SequenceScore] = {}
    if ranked:
        for role, score in (("best", ranked[0]), ("worst", ranked[-1]), ("median", ranked[len(ranked) // 2])):
            if score not in chosen.values():
                chosen[role] = score
    for kind in sorted({score.kind for score in ranked}):
        of_kind = [score for score in ranked if score.kind == kind and score not in chosen.values()]
        if of_kind:
            chosen[kind] = of_kind[len(of_kind) // 2]
    return chosen


def choose_times(n_frames: int, n_times: int) -> list[int]:
    """Indices of about `n_times` evenly spread frames, including the first and the last; ascending, no duplicates."""
    return sorted({int(i) for i in np.linspace(0, n_frames - 1, n_times).round()})


def draw_strip(title: str, moments: Sequence[Moment]) -> NDArray[np.uint8]:
    """Draw a sequence: one column per time step; from the top: result, depth map, ground truth if any.

    Args:
        title: written at the top of the picture (ASCII).
        moments: the time steps, at least one, all with the same frame size.

    Returns:
        uint8 H,W,3 RGB; every tile is 256 pixels wide.
    """
    truths = any(moment.truth is not None for moment in moments)
    columns = [_draw_column(moment, truths) for moment in moments]
    gap = np.full((columns[0].shape[0], _GAP, 3), _PAPER, np.uint8)
    body = np.concatenate([part for column in columns for part in (gap, column)] + [gap], axis=1)
    bar = np.full((_TITLE_HEIGHT, body.shape[1], 3), _PAPER, np.uint8)
    cv2.putText(bar, title, (_GAP, 25), cv2.FONT_HERSHEY_SIMPLEX, 0.7, _INK, 1, cv2.LINE_AA)
    return np.concatenate([bar, body], axis=0)


def _draw_column(moment: Moment, truths: bool) -> NDArray[np.uint8]:
    height = max(1, round(moment.frame.shape[0] * _TILE_WIDTH / moment.frame.shape[1]))
    frame = _fit(moment.frame, height, cv2.INTER_AREA)
    result = overlay(frame, _fit(moment.result, height, cv2.INTER_NEAREST))
    grey = np.rint(255 * np.clip(_fit(moment.depth, height, cv2.INTER_LINEAR), 0, 1)).astype(np.uint8)
    depth = cv2.cvtColor(cv2.applyColorMap(grey, cv2.COLORMAP_MAGMA), cv2.COLOR_BGR2RGB)
    tiles = [(f"{'given' if moment.given else 'result'} {moment.frame_id}", result), ("depth", depth)]
    if moment.truth is not None:
        tiles.append(("truth", overlay(frame, _fit(moment.truth, height, cv2.INTER_NEAREST))))
    elif truths:
        tiles.append(("no truth", frame.copy()))
    gap = np.full((_GAP, _TILE_WIDTH, 3), _PAPER, np.uint8)
    return np.concatenate([part for text, tile in tiles for part in (_labelled(tile, text), gap)], axis=0)


def _fit(image: NDArray[Any], height: int, interpolation: int) -> NDArray[Any]:
    """The image at tile size; the dtype stays."""
    return cv2.resize(image, (_TILE_WIDTH, height), interpolation=interpolation)


def _labelled(tile: NDArray[np.uint8], text: str) -> NDArray[np.uint8]:
    """The tile with `text` in its upper left corner, white with a black outline."""
    tile = np.ascontiguousarray(tile)
    for colour, thickness in (((0, 0, 0), 3), ((255, 255, 255), 1)):
        cv2.putText(tile, text, (5, 15), cv2.FONT_HERSHEY_SIMPLEX, 0.42, colour, thickness, cv2.LINE_AA)
    return tile
