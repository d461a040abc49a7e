"""Imports point down only; rooms on one floor, and stages, do not import each other."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted(path.relative_to(ROOT) for path in (ROOT / "pipeline").rglob("*.py"))
UPPER, STAGES = ("training", "inference", "pretrained"), "stages and commands"


def room(parts: tuple[str, ...]) -> str:
    """The room of a dotted name below `pipeline`: its package, or the top floor."""
    return parts[0] if (ROOT / "pipeline" / parts[0]).is_dir() else STAGES


def floor(name: str) -> int:
    return {"core": 0, STAGES: 3}.get(name, 2 if name in UPPER else 1)


def imported(path: Path) -> Iterator[tuple[str, ...]]:
    """Dotted names below `pipeline` that a module imports, also inside functions."""
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import; write the whole name"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        yield from (tuple(name.split(".")[1:]) for name in names if name.startswith("pipeline."))


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_imports_point_down(path: Path) -> None:
    own = path.with_suffix("").parts[1:]
    for target in imported(path):
        here, there = room(own), room(target)
        if here == there == STAGES:
            assert target[0] == "settings", f"{path} imports pipeline.{target[0]}: stages share rooms, not each other"
        elif here != there:
            assert floor(there) < floor(here), f"{path} imports pipeline.{'.'.join(target)}, which is not below it"


def test_only_light_modules_below_settings() -> None:
    for target in imported(Path("pipeline/settings.py")):
        assert room(target) == "core" or "config" in target, f"settings imports pipeline.{'.'.join(target)}"


def test_stages_do_not_know_dvc() -> None:
    for path in MODULES:
        for node in ast.walk(ast.parse((ROOT / path).read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(name.split(".")[0] in ("dvc", "dvclive") for name in names), f"{path} imports DVC"


def test_rooms_are_packages_with_a_docstring() -> None:
    for folder in sorted((ROOT / "pipeline").rglob("*")):
        if folder.is_dir() and any(folder.glob("*.py")):
            assert ast.get_docstring(ast.parse((folder / "__init__.py").read_text())), f"{folder.name}/__init__.py"
