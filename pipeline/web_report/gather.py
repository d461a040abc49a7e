"""What the page shows of files: scores beside earlier ones, curves, differences between experiments, parameters."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml

from pipeline.core.errors import UserError
from pipeline.core.kinds import KINDS
from pipeline.experiments.git import Repository
from pipeline.experiments.results import Scores, common_objects, read_scores
from pipeline.experiments.stages import SCORES
from pipeline.experiments.statistics import means

LABELS = {"all": "all", "single": "single", "multi": "multi", "lookalike": "look-alike"}
DEPTH_PAIRS = (("t2-3-lovasz", "t2-4-depth"), ("depth-none", "depth-estimated"))  # rows without and with depth


@dataclass(frozen=True)
class ScoreRow:
    """J&F of one kind of video, in [0, 1]; None if unknown.

    Attributes:
        kind: for the table.
        n_objects: of the kind.
        ours: of the run.
        copy_first: of copying the first mask.
        earlier: of the earlier run.
    """

    kind: str
    n_objects: int
    ours: float
    copy_first: float | None
    earlier: float | None


@dataclass(frozen=True)
class Curve:
    """A CSV of training.

    Attributes:
        name: of the file.
        losses: column -> (step, value).
        validation: (step, J&F) of the epochs that were validated.
    """

    name: str
    losses: Mapping[str, Sequence[tuple[float, float]]]
    validation: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Change:
    """What an object gains between two experiments: its sequence, its id, J&F of both (means over seeds)."""

    sequence: str
    object_id: str
    kind: str
    before: float
    after: float

    @property
    def gain(self) -> float:
        """`after` minus `before`."""
        return self.after - self.before


def score_rows(per_object: str, earlier: Mapping[str, Any] | None) -> list[ScoreRow]:
    """The result by kind of video.

    Args:
        per_object: content of `per_object.csv`.
        earlier: content of the earlier run's `scores.json`.
    """
    scores = read_scores(per_object, SCORES)
    copied: dict[tuple[str, str], float] = {}
    for row in csv.DictReader(io.StringIO(per_object)):
        if row.get("copy_first_J&F"):
            copied[row["sequence"], row["object"]] = float(row["copy_first_J&F"])
    before = {"all": earlier.get("J&F"), **(earlier.get("by_kind") or {})} if earlier else {}
    rows = []
    for kind, ours in means(scores).items():
        keys = [key for key in scores.values if kind in ("all", scores.kinds[key])]
        known = [copied[key] for key in keys if key in copied]
        rows.append(
            ScoreRow(LABELS[kind], len(keys), ours, fmean(known) if len(known) == len(keys) else None, before.get(kind))
        )
    return rows


def read_curve(path: Path) -> Curve | None:
    """A training's curves; None if there is no such file or it has no rows.

    Raises:
        UserError: a value is not a number, or there is no column `step`.
    """
    if not path.is_file():
        return None
    rows = list(csv.DictReader(io.StringIO(path.read_text())))
    if not rows:
        return None
    if "step" not in rows[0]:
        raise UserError(f"{path} has no column step; expected the curves of a training; rerun its stage")
    try:
        columns = {
            name: [(float(row["step"]), float(row[name])) for row in rows if row[name]]
            for name in rows[0]
            if name not in ("epoch", "step", "lr", "max_skip")
        }
    except (TypeError, ValueError) as error:
        raise UserError(f"{path}: {error}; expected numbers; rerun its stage") from None
    validation = [point for name in columns if name.startswith("validation") for point in columns[name]]
    losses = {name: points for name, points in columns.items() if points and not name.startswith("validation")}
    return Curve(path.name, losses, validation)


def read_earlier(repository: Repository, name: str) -> tuple[str, dict[str, Any]] | None:
    """The scores of an earlier run.

    Args:
        repository: of the project.
        name: an experiment or a commit; empty: the experiment `baseline`, or else the last commit.

    Returns:
        A label for the run and the content of its `scores.json`; None if nothing is named and there is none.

    Raises:
        UserError: no such experiment or commit, or it has no scores.
    """
    tried = [name] if name else ["baseline", "HEAD"]
    for one in tried:
        commit = repository.resolve(one)
        text = None if commit is None else repository.read(commit, "metrics/scores.json")
        if text is not None:
            return ("the last commit" if one == "HEAD" else one), json.loads(text)
    if name:
        raise UserError(
            f"--earlier {name} is not an experiment or commit with metrics/scores.json; expected one of dvc exp list, "
            "or a commit; correct it"
        )
    return None


def find_depth_pair(
    repository: Repository, compare: Sequence[str]
) -> tuple[str, str, list[tuple[Scores, Scores]]] | None:
    """Scores without and with depth, one pair for each seed of the ablation.

    Args:
        repository: of the project.
        compare: two experiments, the one without depth first; empty: rows of the ablation that have been run.

    Returns:
        Names of both sides and the pairs; None if nothing is named and no row has been run.

    Raises:
        UserError: a named experiment does not exist or has no scores.
    """
    if compare:
        sides = [_scores_of(repository, name) for name in compare]
        return compare[0], compare[1], [(sides[0], sides[1])]
    saved = {one.name for one in repository.experiments()}
    for without, with_depth in DEPTH_PAIRS:
        seeds = [name.removeprefix(f"{without}-s") for name in sorted(saved) if name.startswith(f"{without}-s")]
        seeds = [seed for seed in seeds if f"{with_depth}-s{seed}" in saved]
        if seeds:
            pairs = [
                (_scores_of(repository, f"{without}-s{seed}"), _scores_of(repository, f"{with_depth}-s{seed}"))
                for seed in seeds
            ]
            return without, with_depth, pairs
    return None


def _scores_of(repository: Repository, name: str) -> Scores:
    commit = repository.resolve(name)
    text = None if commit is None else repository.read(commit, SCORES)
    if text is None:
        raise UserError(
            f"{name} is not an experiment or commit with {SCORES}; expected one of dvc exp list, or a commit; correct "
            "--compare"
        )
    return read_scores(text, f"{name}:{SCORES}")


def changes(pairs: Sequence[tuple[Scores, Scores]]) -> list[Change]:
    """The objects by what they gain, the largest gain first.

    Args:
        pairs: scores before and after, one pair per seed.
    """
    first = pairs[0][0]
    found = []
    for key in common_objects([one for pair in pairs for one in pair]):
        before, after = (fmean(pair[side].values[key] for pair in pairs) for side in (0, 1))
        found.append(Change(key[0], key[1], LABELS[first.kinds[key]], before, after))
    return sorted(found, key=lambda one: (-one.gain, one.sequence, one.object_id))


def by_kind(found: Sequence[Change]) -> dict[str, float]:
    """Kind of video -> mean gain of its objects."""
    groups = {LABELS[kind]: [one.gain for one in found if one.kind == LABELS[kind]] for kind in KINDS}
    return {kind: fmean(gains) for kind, gains in groups.items() if gains}


def parameter_changes(repository: Repository, params: Path) -> list[tuple[str, Any, Any]]:
    """Parameters that differ from params.yaml of the last commit: dotted key, committed value, present value.

    A key that is only on one side has "none" on the other.
    """
    committed = _flat(yaml.safe_load(repository.read("HEAD", params.name) or "{}"))
    present = _flat(yaml.safe_load(params.read_text()))
    keys = [*present, *(key for key in committed if key not in present)]
    return [
        (key, committed.get(key, "none"), present.get(key, "none"))
        for key in keys
        if committed.get(key, "none") != present.get(key, "none")
    ]


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix: value}
    found: dict[str, Any] = {}
    for key, item in value.items():
        found |= _flat(item, f"{prefix}.{key}" if prefix else str(key))
    return found
