"""Scores of sequences and of kinds of video, from the score of every object."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from pipeline.core.errors import UserError
from pipeline.core.kinds import KINDS

_COLUMNS = ("sequence", "kind", "J-mean", "F-mean", "copy_first_J&F")


@dataclass(frozen=True)
class ObjectRow:
    """One row of `per_object.csv`; scores in [0, 1].

    Attributes:
        sequence: the object's sequence.
        kind: of video: single, multi or lookalike.
        j: mean region similarity J.
        f: mean boundary accuracy F.
        copy_first: J&F of copying the first mask to every frame; None if it was not scored.
    """

    sequence: str
    kind: str
    j: float
    f: float
    copy_first: float | None


@dataclass(frozen=True)
class SequenceScore:
    """A sequence and the mean of J&F over its objects, in [0, 1]."""

    name: str
    kind: str
    j_and_f: float


def read_per_object(path: Path) -> list[ObjectRow]:
    """Read `per_object.csv`.

    Returns:
        Its rows in order; empty for a split whose annotations are not published.

    Raises:
        UserError: the file is missing, lacks a column, or has a value that is not a number.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist; expected the scores of every object; run the score stage")
    reader = csv.DictReader(io.StringIO(path.read_text()))
    lacking = [name for name in _COLUMNS if name not in (reader.fieldnames or ())]
    if lacking:
        raise UserError(f"{path} has no column {lacking[0]}; expected {', '.join(_COLUMNS)}; rerun the score stage")
    try:
        return [
            ObjectRow(
                sequence=row["sequence"],
                kind=row["kind"],
                j=float(row["J-mean"]),
                f=float(row["F-mean"]),
                copy_first=float(row["copy_first_J&F"]) if row["copy_first_J&F"] else None,
            )
            for row in reader
        ]
    except (TypeError, ValueError) as error:
        raise UserError(f"{path}, line {reader.line_num}: {error}; expected numbers; rerun the score stage") from None


def score_sequences(objects: Iterable[ObjectRow]) -> list[SequenceScore]:
    """Means over the objects of each sequence, in the order in which the sequences first appear."""
    groups: dict[str, list[ObjectRow]] = {}
    for score in objects:
        groups.setdefault(score.sequence, []).append(score)
    return [SequenceScore(name, group[0].kind, _j_and_f(group)) for name, group in groups.items()]


def tabulate_kinds(objects: Sequence[ObjectRow]) -> list[dict[str, str]]:
    """Scores of the whole data set and of each kind of video: means over objects, as in DAVIS.

    Returns:
        One row for "all" and one for every kind that occurs: kind, sequences, objects, J&F, J, F and copy_first (empty
        if not every object has it), with four decimals. No rows if nothing was scored.
    """
    rows = []
    for kind in ("all", *KINDS):
        group = [score for score in objects if kind in ("all", score.kind)]
        if group:
            copied = [score.copy_first for score in group if score.copy_first is not None]
            rows.append(
                {
                    "kind": kind,
                    "sequences": str(len({score.sequence for score in group})),
                    "objects": str(len(group)),
                    "J&F": f"{_j_and_f(group):.4f}",
                    "J": f"{fmean(score.j for score in group):.4f}",
                    "F": f"{fmean(score.f for score in group):.4f}",
                    "copy_first": f"{fmean(copied):.4f}" if len(copied) == len(group) else "",
                }
            )
    return rows


def to_csv(rows: Sequence[dict[str, str]]) -> str:
    """Rows of `tabulate_kinds` as CSV, with a header line even if there are no rows."""
    text = io.StringIO()
    names = ("kind", "sequences", "objects", "J&F", "J", "F", "copy_first")
    writer = csv.DictWriter(text, fieldnames=names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _j_and_f(group: Sequence[ObjectRow]) -> float:
    return fmean((score.j + score.f) / 2 for score in group)
