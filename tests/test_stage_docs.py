"""The block that opens a stage's module says what `dvc.yaml` says, compared as text, templates and all."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
DVC_YAML = ROOT / "dvc.yaml"
LINE = re.compile(r"^(Reads|Writes|Params|Run):[ ]*(.*(?:\n[ ]+\S.*)*)", re.MULTILINE)


def stages() -> dict[str, dict[str, Any]]:
    """Stage name -> its definition (the `do` part of a foreach or matrix stage)."""
    found = yaml.safe_load(DVC_YAML.read_text())["stages"]
    return {name: {**stage, **stage.get("do", {})} for name, stage in found.items()}


def module_of(stage: dict[str, Any]) -> str:
    """The stage's module file: the last module its command names that is also among its dependencies."""
    names = [f"pipeline/{name}.py" for name in re.findall(r"\bpipeline\.(\w+)", stage["cmd"])]
    return next(name for name in reversed(names) if name in keys(stage, "deps"))


def keys(stage: dict[str, Any], *sections: str) -> set[str]:
    """Entries of list sections; an entry with options (`path: {cache: false}`) counts by its key."""
    entries = [entry for section in sections for entry in stage.get(section, [])]
    return {name for entry in entries for name in (entry if isinstance(entry, dict) else [entry])}


def listed(text: str) -> set[str]:
    entries = {entry.strip() for entry in re.split(r",\s+", text.replace("\n", " ")) if entry.strip()}
    return entries - {"none", "nothing"}


def block_of(module: str) -> dict[str, str]:
    docstring = ast.get_docstring(ast.parse((ROOT / module).read_text())) or ""
    return {key: re.sub(r"\s*\n\s*", " ", text).strip() for key, text in LINE.findall(docstring)}


def modules() -> dict[str, list[str]]:
    """Module file -> the stages that run it."""
    found: dict[str, list[str]] = {}
    for name, stage in stages().items():
        found.setdefault(module_of(stage), []).append(name)
    return found


MODULES = modules()


@pytest.mark.parametrize("module", MODULES)
def test_block_matches_dvc_yaml(module: str) -> None:
    block = block_of(module)
    assert set(block) == {"Reads", "Writes", "Params", "Run"}, f"{module}: the docstring's block is incomplete"
    run_by = [stages()[name] for name in MODULES[module]]
    reads = {dep for stage in run_by for dep in keys(stage, "deps") if not dep.startswith("pipeline")}
    assert listed(block["Reads"]) == reads
    assert listed(block["Writes"]) == {out for stage in run_by for out in keys(stage, "outs", "metrics", "plots")}
    assert listed(block["Params"]) == {key for stage in run_by for key in keys(stage, "params")}
    for stage in run_by:  # the block may show one item of a foreach stage
        command = re.escape(stage["cmd"].strip().replace("${python}", "python"))
        for name in ("${item}", "${key}"):
            command = command.replace(re.escape(name), r"\S+")
        assert any(re.fullmatch(command, shown) for shown in listed(block["Run"])), f"{stage['cmd']}: not in {block}"


def test_every_code_dependency_exists() -> None:
    for name, stage in stages().items():
        for dep in keys(stage, "deps"):
            if dep.startswith("pipeline") and "${" not in dep:
                assert (ROOT / dep).exists(), f"{name} depends on {dep}"


def test_every_stage_has_a_summary() -> None:
    for module in MODULES:
        tree = ast.parse((ROOT / module).read_text())
        summary = (ast.get_docstring(tree) or "").splitlines()[0]
        assert summary.endswith("."), f"{module}: the first line says in one sentence what the stage does"
        assert {node.name for node in tree.body if isinstance(node, ast.FunctionDef)} >= {"run", "main"}, module
