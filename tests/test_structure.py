"""Imports point down only: packages of one level, and stages, do not import each other."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted(path.relative_to(ROOT) for path in (ROOT / "pipeline").rglob("*.py"))
STAGES = "stages and commands"  # the modules in pipeline/ itself
LEVELS = (
    ("core",),
    (
        *("datasets", "dstm", "experiments", "footage", "hourglass", "live", "reporting"),
        *("sample", "scoring", "sources", "synthesis", "tracing"),
    ),
    ("depth_maps", "depth_training", "diagnosis", "inference", "pretrained", "training", "web_report"),
    (STAGES,),
)


def package(parts: tuple[str, ...]) -> str:
    """The package of a dotted name below `pipeline`, or the top level."""
    return parts[0] if (ROOT / "pipeline" / parts[0]).is_dir() else STAGES


def level(name: str) -> int:
    found = [number for number, names in enumerate(LEVELS) if name in names]
    assert len(found) == 1, f"the package {name} is on {len(found)} levels; place it on one of them in LEVELS"
    return found[0]


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
        here, there = package(own), package(target)
        if here == there == STAGES:
            assert target[0] == "settings", (
                f"{path} imports pipeline.{target[0]}: stages share packages, not each other"
            )
        elif here != there:
            assert level(there) < level(here), f"{path} imports pipeline.{'.'.join(target)}, which is not below it"


def test_the_levels_name_packages() -> None:
    present = {path.parts[1] for path in MODULES if len(path.parts) > 2}
    assert present == {name for names in LEVELS for name in names} - {STAGES}


def test_kernels_know_nothing_of_the_pipeline() -> None:
    """Arithmetic alone, so that a stage that uses one of them depends on no other module through it."""
    for path in MODULES:
        if path.parts[1:3] == ("core", "kernels"):
            assert all(target[:2] == ("core", "kernels") for target in imported(path)), path


def test_only_light_modules_below_settings() -> None:
    for target in imported(Path("pipeline/settings.py")):
        assert package(target) == "core" or "config" in target, f"settings imports pipeline.{'.'.join(target)}"


def test_stages_do_not_import_dvc() -> None:
    for path in MODULES:
        for node in ast.walk(ast.parse((ROOT / path).read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(name.split(".")[0] in ("dvc", "dvclive") for name in names), f"{path} imports DVC"


def test_packages_have_a_docstring() -> None:
    for folder in sorted((ROOT / "pipeline").rglob("*")):
        if folder.is_dir() and any(folder.glob("*.py")):
            assert ast.get_docstring(ast.parse((folder / "__init__.py").read_text())), f"{folder.name}/__init__.py"
