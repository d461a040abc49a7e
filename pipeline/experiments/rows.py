"""Rows of an ablation: named sets of parameter changes, read from ablations.yaml."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import yaml

from pipeline.core.errors import UserError
from pipeline.core.params import read_yaml
from pipeline.core.runtime import digest

COMPARE = ("previous", "first")
_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_SCALARS = (bool, int, float, str)


@dataclass(frozen=True)
class Row:
    """One configuration.

    Attributes:
        name: unique in the file; the experiments are called `<name>-s<seed>`.
        title: for the table.
        changes: dotted key of params.yaml -> value; `${profile}` in a key is the profile's name.
        paper: J&F that the paper reports, in [0, 1]; None if it has no such row.
    """

    name: str
    title: str
    changes: Mapping[str, Any]
    paper: float | None


@dataclass(frozen=True)
class RowSet:
    """Rows of one table.

    Attributes:
        name: of the set.
        title: for the table.
        compare: each row is compared with the `previous` one or with the `first`.
        rows: in the order of the table.
    """

    name: str
    title: str
    compare: str
    rows: tuple[Row, ...]

    def reference(self, row: Row) -> Row | None:
        """The row that `row` is compared with; None for the first one."""
        index = self.rows.index(row)
        if index == 0:
            return None
        return self.rows[0] if self.compare == "first" else self.rows[index - 1]


@dataclass(frozen=True)
class Experiment:
    """A row with a seed.

    Attributes:
        row: the row.
        seed: of the depth network, of the initial weights and of the training clips.
        name: of the DVC experiment.
        overrides: dotted key -> value, for `dvc exp run -S`.
    """

    row: Row
    seed: int
    name: str
    overrides: Mapping[str, Any]


def read_sets(path: Path) -> dict[str, RowSet]:
    """Read and check the sets of rows.

    Args:
        path: a YAML file: set -> `title`, `compare`, `rows`: row -> `title`, `set` and optionally `paper`.

    Raises:
        UserError: the file is missing, or an entry is not of this form.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist; expected the rows of the ablations; run from the project's root")
    content = read_yaml(path)
    sets = {}
    for name, entry in _mapping(content, str(path), f"{path}").items():
        place = f"{path}: {name}"
        _check_keys(entry, place, ("title", "compare", "rows"), ())
        if entry["compare"] not in COMPARE:
            raise UserError(f"{place}.compare is {entry['compare']!r}; expected {' or '.join(COMPARE)}; correct it")
        rows = _mapping(entry["rows"], f"{place}.rows", f"{path}")
        sets[name] = RowSet(
            name, str(entry["title"]), entry["compare"], tuple(_row(key, row, place) for key, row in rows.items())
        )
    _check_names(path, sets)
    return sets


def _row(name: str, entry: Any, place: str) -> Row:
    place = f"{place}.rows.{name}"
    _check_keys(entry, place, ("title", "set"), ("paper",))
    changes = entry["set"] or {}
    if not isinstance(changes, dict):
        raise UserError(f"{place}.set is {changes!r}; expected KEY: VALUE, or {{}} for no change; correct it")
    for key, value in changes.items():
        listed = isinstance(value, list) and all(isinstance(item, _SCALARS) for item in value)
        if not isinstance(value, _SCALARS) and not listed:
            raise UserError(f"{place}.set.{key} is {value!r}; expected a value or a list of values; correct it")
    paper = entry.get("paper")
    if paper is not None and not (isinstance(paper, float) and 0 <= paper <= 1):
        raise UserError(f"{place}.paper is {paper!r}; expected J&F from 0.0 to 1.0; correct it")
    return Row(name, str(entry["title"]), changes, paper)


def _mapping(value: Any, place: str, path: str) -> dict[str, Any]:
    if not isinstance(value, dict) or not value:
        raise UserError(f"{place} is {value!r}; expected a mapping with at least one entry; correct {path}")
    return value


def _check_keys(entry: Any, place: str, needed: Sequence[str], optional: Sequence[str]) -> None:
    accepted = ", ".join((*needed, *optional))
    if not isinstance(entry, dict):
        raise UserError(f"{place} is {entry!r}; expected a mapping with the keys {accepted}; correct it")
    for key in needed:
        if key not in entry:
            raise UserError(f"{place} has no key {key}; expected {accepted}; add it")
    for key in entry:
        if key not in (*needed, *optional):
            raise UserError(f"{place} has the unknown key {key}; expected {accepted}; correct it")


def _check_names(path: Path, sets: Mapping[str, RowSet]) -> None:
    seen: dict[str, str] = {}
    for group in sets.values():
        for row in group.rows:
            if not _NAME.fullmatch(row.name):
                raise UserError(
                    f"{path}: a row is called {row.name!r}; expected lower-case letters and digits, separated by "
                    "single hyphens; rename it"
                )
            if row.name in seen:
                raise UserError(
                    f"{path}: the row {row.name} is in {seen[row.name]} and in {group.name}; expected each name "
                    "once, because it names the experiments; rename one of them"
                )
            seen[row.name] = group.name


def choose(sets: Mapping[str, RowSet], names: Sequence[str], patterns: Sequence[str]) -> list[RowSet]:
    """The sets with these names, and of these the rows that match a pattern.

    Args:
        sets: all sets.
        names: of the sets.
        patterns: shell patterns of row names (`t2-*`); empty: all rows.

    Raises:
        UserError: no such set, or a pattern matches no row.
    """
    for name in names:
        if name not in sets:
            raise UserError(f"there is no set {name!r}; expected {', '.join(sets)}; correct --set")
    chosen = [sets[name] for name in dict.fromkeys(names)]
    present = [row.name for group in chosen for row in group.rows]
    for pattern in patterns:
        if not any(fnmatch(name, pattern) for name in present):
            raise UserError(f"--rows {pattern} matches no row; expected {', '.join(present)}; correct it")
    if not patterns:
        return chosen
    kept = [[row for row in group.rows if any(fnmatch(row.name, p) for p in patterns)] for group in chosen]
    return [RowSet(g.name, g.title, g.compare, tuple(rows)) for g, rows in zip(chosen, kept) if rows]


def experiment(row: Row, seed: int, profile: str, default_profile: str, extra: Mapping[str, Any]) -> Experiment:
    """The experiment of a row and a seed.

    Args:
        row: the row.
        seed: of both trainings.
        profile: to run.
        default_profile: the one that params.yaml names; another one becomes part of the experiment's name.
        extra: further changes to every row; they become part of the name as a digest.
    """
    overrides: dict[str, Any] = {} if profile == default_profile else {"profile": profile}
    overrides |= {"seed": seed, f"profiles.{profile}.train_depth.seed": seed}
    overrides |= {key.replace("${profile}", profile): value for key, value in {**row.changes, **extra}.items()}
    parts = [row.name, *([] if profile == default_profile else [profile])]
    parts += [f"x{digest(dict(extra))[:6]}"] if extra else []
    return Experiment(row, seed, "-".join([*parts, f"s{seed}"]), overrides)


def parse_changes(changes: Sequence[str]) -> dict[str, Any]:
    """`KEY=VALUE` as on the command line of `dvc exp run -S`; the value is YAML.

    Raises:
        UserError: a change is not of this form.
    """
    found = {}
    for change in changes:
        key, sign, value = change.partition("=")
        if not sign or not key:
            raise UserError(f"-S is given {change!r}; expected KEY=VALUE; correct it")
        found[key] = yaml.safe_load(value)
    return found


def as_argument(value: Any) -> str:
    """A value as `dvc exp run -S KEY=VALUE` reads it (YAML would read 1e-05 as text, so floats keep a point)."""
    if isinstance(value, list):
        return f"[{','.join(as_argument(item) for item in value)}]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        text = repr(value)
        return text.replace("e", ".0e") if "e" in text and "." not in text else text
    return str(value)
