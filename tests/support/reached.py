"""Which modules below `pipeline/` a module reaches through its imports."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@cache
def imported(module: str) -> frozenset[str]:
    """Files below `pipeline/` that a file imports, also inside functions, but not for its annotations alone.

    Args:
        module: the file, from the project's root: `pipeline/infer.py`.
    """
    return frozenset(_imported(ast.parse((ROOT / module).read_text())))


def reached(module: str, stop: frozenset[str] = frozenset()) -> set[str]:
    """The file and all files below `pipeline/` that it reaches; empty `__init__.py` are left out.

    Args:
        module: the file, from the project's root.
        stop: files whose own imports are not followed.
    """
    found, waiting = set(), [module]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting += [] if path in stop else imported(path)
    return {path for path in found if Path(path).name != "__init__.py"}


def _imported(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        return
    if isinstance(node, ast.Import):
        yield from (_file(alias.name) for alias in node.names if alias.name.startswith("pipeline."))
    if isinstance(node, ast.ImportFrom) and f"{node.module}.".startswith("pipeline."):
        yield from (_file(f"{node.module}.{alias.name}") for alias in node.names)
    for child in ast.iter_child_nodes(node):
        yield from _imported(child)


def _file(name: str) -> str:
    """The file of a dotted name, which may end with a name inside the module."""
    parts = name.split(".")
    while parts:
        for path in (Path(*parts).with_suffix(".py"), Path(*parts, "__init__.py")):
            if (ROOT / path).is_file():
                return path.as_posix()
        parts.pop()
    raise AssertionError(f"{name} is imported and has no file")
