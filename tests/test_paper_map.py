"""The page that leads from the paper to the code names what exists, and the paper profile's values as they are."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest

from pipeline.settings import load_settings

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "paper_map.md").read_text()
SETTINGS = load_settings(ROOT / "params.yaml")
SYMBOLS = sorted(set(re.findall(r"`([\w/]+\.py):([\w.]+)`", PAGE)))
TOP = {f"{section}.{key}" for section in ("model", "loss") for key in vars(getattr(SETTINGS, section))}
TOP.add("infer.tta")
KEYS = sorted(set(re.findall(r"`([a-z_]+(?:\.[a-z_]+)+)`", PAGE)))


def lookup(key: str, profile: str) -> Any:
    """A parameter by its dotted key, of the complete profile unless it is one of the five switches."""
    value: Any = SETTINGS if key in TOP else SETTINGS.profiles[profile]
    for part in key.split("."):
        value = getattr(value, part)
    return value


def names(body: list[ast.stmt]) -> set[str]:
    """Names that a module defines, methods as Class.method."""
    found: set[str] = set()
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{name}" for name in names(node.body)}
    return found


@pytest.mark.parametrize(("file", "symbol"), SYMBOLS)
def test_symbol_exists(file: str, symbol: str) -> None:
    assert symbol in names(ast.parse((ROOT / "pipeline" / file).read_text()).body)


@pytest.mark.parametrize("key", [key for key in KEYS if not key.endswith((".py", ".yaml"))])
def test_key_exists_in_every_profile(key: str) -> None:
    for profile in SETTINGS.profiles:
        lookup(key, profile)


@pytest.mark.parametrize(("key", "value"), re.findall(r"^\| `([\w.]+)` \| `([^`]+)` \|", PAGE, re.MULTILINE))
def test_departure_is_off_in_the_paper_profile(key: str, value: str) -> None:
    assert str(lookup(key, "paper")) == value


def test_every_equation_is_mapped() -> None:
    for number in range(1, 9):
        assert f"({number})" in PAGE
