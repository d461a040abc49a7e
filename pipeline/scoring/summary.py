"""Metrics of a data set: a dictionary for JSON, rows for CSV, a table for the terminal."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

import numpy as np

from pipeline.core.errors import UserError
from pipeline.scoring.sequence import ObjectScore
from pipeline.scoring.statistics import Statistics, mean_statistics

COLUMNS = (
    "sequence", "object", "kind",
    "J-mean", "J-recall", "J-decay", "F-mean", "F-recall", "F-decay", "J&F", "copy_first_J&F",
)  # fmt: skip


def summarise(scores: Sequence[ObjectScore]) -> dict[str, Any]:
    """Metrics of a data set: the mean of each over objects.

    Returns:
        `{"J&F", "J": {"mean", "recall", "decay"}, "F": {...}, "copy_first": {"J&F"}, "by_kind": {kind: J&F}}`;
        `copy_first` only if every object has it.

    Raises:
        UserError: there are no objects.
    """
    if not scores:
        raise UserError("there is no object to score; expected at least one annotated sequence; choose another split")
    j, f = mean_statistics([s.j for s in scores]), mean_statistics([s.f for s in scores])
    copied = [s.copy_first for s in scores if s.copy_first is not None]
    figures: dict[str, Any] = {"J&F": (j.mean + f.mean) / 2, "J": _as_dict(j), "F": _as_dict(f)}
    if len(copied) == len(scores):
        figures["copy_first"] = {"J&F": float(np.mean(copied))}
    kinds = [kind for kind in ("single", "multi", "lookalike") if any(s.kind == kind for s in scores)]
    figures["by_kind"] = {kind: _mean_jf(s for s in scores if s.kind == kind) for kind in kinds}
    return figures


def by_sequence(scores: Sequence[ObjectScore]) -> dict[str, dict[str, float]]:
    """Sequence -> means over its objects of J, F and J&F, in the order given (a sequence's objects are adjacent)."""
    return {
        name: {
            "J&F": _mean_jf(group),
            "J": float(np.mean([s.j.mean for s in group])),
            "F": float(np.mean([s.f.mean for s in group])),
        }
        for name, group in ((name, list(items)) for name, items in groupby(scores, lambda s: s.sequence))
    }


def per_object_csv(scores: Sequence[ObjectScore]) -> str:
    """One row per object under `COLUMNS`; values at full precision, unknown ones empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for s in scores:
        figures = (s.j.mean, s.j.recall, s.j.decay, s.f.mean, s.f.recall, s.f.decay, s.jf)
        copied = "" if s.copy_first is None else s.copy_first
        writer.writerow((s.sequence, s.object_id, s.kind, *figures, copied))
    return text.getvalue()


def table(scores: Sequence[ObjectScore]) -> str:
    """A table for the terminal: one line per object, one per sequence of several objects, and the means last."""
    names = [f"{s.sequence} {s.object_id}" for s in scores]
    width = max(len("sequence, object"), *(len(name) for name in names))
    head = f"{'sequence, object':<{width}}   J&F     J  J-rec  J-dec     F  F-rec  F-dec"
    lines = [head, "-" * len(head)]
    for name, group in ((name, list(items)) for name, items in groupby(scores, lambda s: s.sequence)):
        lines += [_line(f"{name} {s.object_id}", width, s.j, s.f) for s in group]
        if len(group) > 1:
            lines.append(_line(name, width, *_means(group)))
    sequences = len({s.sequence for s in scores})
    lines += ["-" * len(head), _line("mean over objects", width, *_means(scores))]
    lines.append(f"{len(scores)} objects in {sequences} sequences; values in percent")
    return "\n".join(lines)


def _line(name: str, width: int, j: Statistics, f: Statistics) -> str:
    figures = [100 * value for value in ((j.mean + f.mean) / 2, j.mean, j.recall, j.decay, f.mean, f.recall, f.decay)]
    widths = (5, 5, 6, 6, 5, 6, 6)
    return f"{name:<{width}} " + " ".join(f"{value:{w}.1f}" for value, w in zip(figures, widths, strict=True))


def _means(scores: Sequence[ObjectScore]) -> tuple[Statistics, Statistics]:
    return mean_statistics([s.j for s in scores]), mean_statistics([s.f for s in scores])


def _mean_jf(scores: Iterable[ObjectScore]) -> float:
    return float(np.mean([s.jf for s in scores]))


def _as_dict(figures: Statistics) -> dict[str, float]:
    return {"mean": figures.mean, "recall": figures.recall, "decay": figures.decay}
