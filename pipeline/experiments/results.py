"""Find the results of a row and a seed: those of a DVC experiment, or those of a run of benchmarks/seeds.py."""

from __future__ import annotations

import copy
import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pipeline.core.errors import UserError
from pipeline.experiments.git import Repository, Saved
from pipeline.experiments.rows import Experiment
from pipeline.experiments.stages import SCORES, Stage, expand, needed, stage_keys, value_at

CODE = ["pipeline", "params.yaml", "dvc.yaml", ".dvc/python"]  # what must be committed before rows are run
_COLUMNS = ("sequence", "object", "kind", "J&F")


@dataclass(frozen=True)
class Scores:
    """Scores of every object of one run.

    Attributes:
        values: (sequence, object) -> J&F in [0, 1].
        kinds: (sequence, object) -> kind of video.
    """

    values: Mapping[tuple[str, str], float]
    kinds: Mapping[tuple[str, str], str]


def read_scores(text: str, name: str) -> Scores:
    """Parse `metrics/per_object.csv`.

    Args:
        text: its content.
        name: for the error.

    Raises:
        UserError: a column is missing, a value is not a number, or there are no rows.
    """
    reader = csv.DictReader(io.StringIO(text))
    for column in _COLUMNS:
        if column not in (reader.fieldnames or ()):
            raise UserError(f"{name} has no column {column}; expected {', '.join(_COLUMNS)}; run the row again")
    values, kinds = {}, {}
    for row in reader:
        key = (row["sequence"], row["object"])
        try:
            values[key] = float(row["J&F"])
        except ValueError:
            raise UserError(
                f"{name}: J&F of {key[0]} is {row['J&F']!r}; expected a number; run the row again"
            ) from None
        kinds[key] = row["kind"]
    if not values:
        raise UserError(f"{name} has no rows; expected one per object; choose a split whose masks are published")
    return Scores(values, kinds)


class Project:
    """Parameters, stages and experiments of the current commit.

    Args:
        root: the project's folder.

    Raises:
        UserError: it is not a git checkout, or lacks params.yaml or dvc.yaml.
    """

    def __init__(self, root: Path) -> None:
        self.root, self.repository = root, Repository(root)
        self.params, self.definition = (self._yaml(name) for name in ("params.yaml", "dvc.yaml"))
        self._saved = self.repository.experiments()
        self._relevant_of: dict[str, dict[str, Any]] = {}  # by commit: parsing takes a while

    def _yaml(self, name: str) -> dict[str, Any]:
        text = self.repository.read("HEAD", name)
        if text is None:
            raise UserError(f"the last commit has no {name}; expected it; commit it, or run from the project's root")
        content: dict[str, Any] = yaml.safe_load(text)
        return content

    def check_committed(self) -> None:
        """Refuse to run rows with uncommitted code or parameters: the table could not be traced back to them.

        Raises:
            UserError: there are such changes.
        """
        changed = self.repository.changed(CODE)
        if changed:
            more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
            raise UserError(
                f"{changed[0]}{more} differ{'s' if not more else ''} from the last commit; expected committed code and "
                "parameters, so that each row says what made it; commit or undo the changes (git checkout), or give "
                "parameters with -S"
            )

    def params_of(self, experiment: Experiment) -> dict[str, Any]:
        """Content of params.yaml with the changes of an experiment.

        Raises:
            UserError: it changes a parameter that does not exist.
        """
        content = copy.deepcopy(self.params)
        for key, value in experiment.overrides.items():
            try:
                value_at(content, key)
            except UserError:
                raise UserError(
                    f"the row {experiment.row.name} changes {key}, which is not in params.yaml; expected a dotted key "
                    "of it; correct ablations.yaml or -S"
                ) from None
            *parents, last = key.split(".")
            section = value_at(content, ".".join(parents)) if parents else content
            section[last] = value
        return content

    def stages(self, profile: str) -> dict[str, Stage]:
        """The stages that lead to the scores, each after those it depends on."""
        return needed(expand(self.definition, profile))

    def find(self, experiment: Experiment) -> Saved | None:
        """The saved experiment with this name whose parameters and code are the current ones; None if there is none."""
        wanted = self._relevant(self.params_of(experiment))
        code = self._code(self.stages(wanted["profile"]))
        here = self.repository.listing("HEAD", code)
        for saved in self._saved:
            if saved.name != experiment.name:
                continue
            same = self._params_at(saved.commit) == wanted
            if same and self.repository.listing(saved.commit, code) == here:
                return saved
        return None

    def _params_at(self, commit: str) -> dict[str, Any]:
        if commit not in self._relevant_of:
            params = yaml.safe_load(self.repository.read(commit, "params.yaml") or "{}")
            self._relevant_of[commit] = self._relevant(params)
        return self._relevant_of[commit]

    def outdated(self, experiment: Experiment) -> bool:
        """Whether an experiment of the current commit has this name and other parameters or code."""
        named = any(saved.name == experiment.name for saved in self._at_head())
        return named and self.find(experiment) is None

    def _at_head(self) -> list[Saved]:
        return [saved for saved in self._saved if saved.baseline == self.repository.head]

    def reload(self) -> None:
        """Read the list of saved experiments again."""
        self._saved = self.repository.experiments()

    def scores(self, saved: Saved) -> Scores:
        """The scores of a saved experiment.

        Raises:
            UserError: it has none.
        """
        text = self.repository.read(saved.commit, SCORES)
        if text is None:
            raise UserError(
                f"the experiment {saved.name} has no {SCORES}; expected the scores; remove it (dvc exp remove "
                f"{saved.name}) and run the row again"
            )
        return read_scores(text, f"{saved.name}:{SCORES}")

    def keys(self, experiment: Experiment) -> dict[str, str]:
        """Stage name -> digest of what decides its result, for the stages that lead to the scores."""
        params = self.params_of(experiment)
        return stage_keys(self.stages(params["profile"]), params)

    def _code(self, stages: Mapping[str, Stage]) -> list[str]:
        return sorted({dep for stage in stages.values() for dep in stage.deps if dep.startswith("pipeline")})

    @staticmethod
    def _relevant(params: Mapping[str, Any]) -> dict[str, Any]:
        """Parameters that can change a row's result, in a form that does not depend on how YAML writes a number."""
        kept = {key: value for key, value in params.items() if key not in ("runtime", "profiles")}
        active = params.get("profile")
        kept["profiles"] = {active: (params.get("profiles") or {}).get(active)}
        plain: dict[str, Any] = _plain(kept)
        return plain


def _plain(value: Any) -> Any:
    """Numbers as floats, also those that YAML reads as text (1e-05)."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value if isinstance(value, bool) or value is None else float(value)


def find_benchmark_run(folder: Path, params: Mapping[str, Any]) -> Path | None:
    """The scores of a run of `benchmarks/seeds.py` with these parameters.

    The code of such a run is not recorded. Parameters that the run's file lacks, because its code had none such, are
    ignored.

    Args:
        folder: `--out` of the benchmark.
        params: content of params.yaml.

    Returns:
        The run's `per_object.csv`, the first by name; None if there is none.
    """
    wanted = Project._relevant(params)
    for path in sorted((folder / "runs").glob("*/params.yaml")):
        scores = path.parent / SCORES
        if scores.is_file() and _contains(wanted, Project._relevant(yaml.safe_load(path.read_text()))):
            return scores
    return None


def _contains(whole: Any, part: Any) -> bool:
    if isinstance(whole, dict) and isinstance(part, dict):
        return all(key in whole and _contains(whole[key], value) for key, value in part.items())
    return bool(whole == part)


def common_objects(runs: Sequence[Scores]) -> list[tuple[str, str]]:
    """The objects that all runs have scored, in the order of the first run."""
    return [key for key in runs[0].values if all(key in run.values for run in runs)] if runs else []
