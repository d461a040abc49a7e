"""The stages of dvc.yaml with their templates filled in, and which of them a change of parameters runs again."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from pipeline.core.errors import UserError
from pipeline.core.runtime import digest

SCORES = "metrics/per_object.csv"  # what a row is run for


@dataclass(frozen=True)
class Stage:
    """One stage.

    Attributes:
        name: as DVC shows it (`depth@davis`).
        cmd: its command.
        deps: paths of files and folders.
        params: dotted keys of params.yaml.
        outs: paths of outputs, metrics and plots.
    """

    name: str
    cmd: str
    deps: tuple[str, ...]
    params: tuple[str, ...]
    outs: tuple[str, ...]


def expand(definition: Mapping[str, Any], profile: str) -> dict[str, Stage]:
    """Stage name -> stage, those of a `foreach` one by one.

    Args:
        definition: content of dvc.yaml.
        profile: name of the active profile.
    """
    variables = {"profile": profile}
    for entry in definition.get("vars", []):
        variables |= {key: str(value) for key, value in entry.items()}
    found = {}
    for name, stage in definition["stages"].items():
        items = stage.get("foreach")
        if items is None:
            found[name] = _stage(name, stage, variables)
            continue
        pairs = items.items() if isinstance(items, dict) else ((item, item) for item in items)
        for key, item in pairs:
            of_item = {"key": str(key), "item": str(item)}
            of_item |= {f"item.{field}": str(value) for field, value in item.items()} if isinstance(item, dict) else {}
            found[f"{name}@{key}"] = _stage(f"{name}@{key}", stage["do"], {**variables, **of_item})
    return found


def _stage(name: str, stage: Mapping[str, Any], variables: Mapping[str, str]) -> Stage:
    text = re.sub(r"\$\{([\w.]+)\}", lambda match: variables.get(match[1], match[0]), yaml.safe_dump(dict(stage)))
    filled = yaml.safe_load(text)

    def names(*sections: str) -> tuple[str, ...]:
        entries = [entry for section in sections for entry in filled.get(section) or []]
        return tuple(next(iter(entry)) if isinstance(entry, dict) else entry for entry in entries)

    return Stage(name, str(filled["cmd"]), names("deps"), names("params"), names("outs", "metrics", "plots"))


def needed(stages: Mapping[str, Stage], output: str = SCORES) -> dict[str, Stage]:
    """The stage that writes `output` and all that it depends on, each after those it depends on.

    Raises:
        UserError: no stage writes it.
    """
    if not any(output in stage.outs for stage in stages.values()):
        raise UserError(f"no stage of dvc.yaml writes {output}; expected one; restore dvc.yaml")
    ordered: dict[str, Stage] = {}

    def visit(stage: Stage) -> None:
        if stage.name not in ordered:
            for upstream in _upstream(stages, stage):
                visit(upstream)
            ordered[stage.name] = stage

    for stage in stages.values():
        if output in stage.outs:
            visit(stage)
    return ordered


def _upstream(stages: Mapping[str, Stage], stage: Stage) -> list[Stage]:
    return [
        other
        for other in stages.values()
        if other.name != stage.name and any(_inside(dep, out) for dep in stage.deps for out in other.outs)
    ]


def _inside(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder}/") or folder.startswith(f"{path}/")


def value_at(params: Mapping[str, Any], key: str) -> Any:
    """The value of a dotted key.

    Raises:
        UserError: there is no such key.
    """
    value: Any = params
    for part in key.split("."):
        if not isinstance(value, Mapping) or part not in value:
            raise UserError(f"{key} is not a parameter; expected a dotted key of params.yaml; correct it")
        value = value[part]
    return value


def stage_keys(stages: Mapping[str, Stage], params: Mapping[str, Any]) -> dict[str, str]:
    """Stage name -> digest of its command, its parameters and the stages it depends on.

    A stage with the same digest gives the same result with the same code, so DVC takes it from the run cache.

    Args:
        stages: from `needed`: each after those it depends on.
        params: content of params.yaml.
    """
    keys: dict[str, str] = {}
    for stage in stages.values():
        values = {key: value_at(params, key) for key in stage.params}
        upstream = [keys[other.name] for other in _upstream(stages, stage) if other.name in keys]
        keys[stage.name] = digest([stage.name, stage.cmd, values, upstream])
    return keys
