"""Strict conversion of YAML mappings to frozen dataclasses."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from pipeline.core.errors import UserError

T = TypeVar("T")

_MAX_INT, _MAX_FLOAT = 2**63 - 1, 1e15  # beyond these torch and numpy raise errors of their own


@dataclass(frozen=True)
class Range:
    """Accepted values of a number: `Annotated[int, Range(1, 100)]` as the type of a field.

    Attributes:
        low: smallest value.
        high: largest value.
        above: `low` itself is not accepted.
        below: `high` itself is not accepted.
    """

    low: float
    high: float
    above: bool = False
    below: bool = False

    def holds(self, value: float) -> bool:
        """Whether a value is accepted."""
        low = value > self.low if self.above else value >= self.low
        return low and (value < self.high if self.below else value <= self.high)

    def __str__(self) -> str:
        if not self.above and not self.below:
            return f"from {self.low:.12g} to {self.high:.12g}"
        low, high = "above" if self.above else "of at least", "below" if self.below else "at most"
        return f"{low} {self.low:.12g} and {high} {self.high:.12g}"


Count = Annotated[int, Range(1, 10**9)]
Natural = Annotated[int, Range(0, 10**9)]
Seed = Annotated[int, Range(0, 2**32 - 1)]
Share = Annotated[float, Range(0, 1)]
NonNegative = Annotated[float, Range(0, 10**9)]
Positive = Annotated[float, Range(0, 10**9, above=True)]


class Section(dict[str, Any]):
    """A mapping combined from several places of a file.

    Attributes:
        places: for each key, the dotted path of the mapping that holds it.
    """

    def __init__(self, values: Mapping[str, Any], places: Mapping[str, str]) -> None:
        super().__init__(values)
        self.places = dict(places)


def merge(parts: Mapping[str, Any]) -> Section:
    """Combine several mappings into one, so that a shared value is written only once.

    Args:
        parts: parsed YAML by its dotted path in the file, the most specific one last. A key may be in only one of
            them; mappings of the same key are merged.

    Raises:
        UserError: a part is not a mapping, or two parts give the same key.
    """
    for path, part in parts.items():
        if not isinstance(part, dict):
            raise UserError(f"{path} is {_show(part)}; expected a mapping; correct it in params.yaml")
    values: dict[str, Any] = {}
    places: dict[str, str] = {}
    for key in dict.fromkeys(key for part in parts.values() for key in part):
        holders = [path for path, part in parts.items() if key in part]
        found = {_join(path, key): parts[path][key] for path in holders}
        if len(found) > 1 and not all(isinstance(value, dict) for value in found.values()):
            raise UserError(f"{' and '.join(found)} are both given; expected the key in one place; remove one of them")
        values[key] = merge(found) if len(found) > 1 else next(iter(found.values()))
        places[key] = holders[-1]
    return Section(values, places)


def require(holds: bool, key: str, value: object, accepted: str) -> None:
    """Refuse a value that has the right type and is out of range.

    Args:
        holds: whether the value is accepted.
        key: its name, for the error.
        value: what it is.
        accepted: the values that are accepted, in words.

    Raises:
        UserError: it is not accepted.
    """
    if not holds:
        raise UserError(f"{key} is {value}; expected {accepted}; correct it in params.yaml")


def read_yaml(path: Path) -> Any:
    """The content of an existing YAML file.

    Raises:
        UserError: it is not YAML.
    """
    try:
        return yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not a YAML file ({' '.join(str(error).split())[:160]}); correct it") from None


def build(cls: type[T], mapping: Any, path: str) -> T:
    """Build the dataclass `cls` from a mapping that names exactly its fields.

    Args:
        cls: a dataclass whose fields are dataclasses, bool, int, float, str, Literal, tuple[X, ...], dict[str, X],
            X | None or bool | str.
        mapping: parsed YAML, or a `Section`.
        path: of the mapping in the file (`profiles.sample.train`), for errors.

    Raises:
        UserError: an unknown, missing or mistyped key, named with its path and the accepted values.
    """
    if not isinstance(mapping, dict):
        raise UserError(f"{path} is {_show(mapping)}; expected a mapping with the keys {', '.join(_names(cls))}")
    names = _names(cls)
    for key in mapping:
        if key not in names:
            where = _place(mapping, path, key)
            raise UserError(f"unknown key {where}; expected one of {', '.join(names)}; correct or remove it")
    for name in names:
        if name not in mapping:
            raise UserError(f"missing key {_join(path, name)}; expected {_describe(_hints(cls)[name])}; add it")
    hints = _hints(cls)
    return cls(**{name: convert(hints[name], mapping[name], _place(mapping, path, name)) for name in names})


def convert(kind: Any, value: Any, path: str) -> Any:
    """Convert one YAML value to the annotated type, refusing everything that is not exactly of that type."""
    if is_dataclass(kind) and isinstance(kind, type):
        return build(kind, value, path)
    origin = get_origin(kind)
    if origin is Annotated:
        base, limits = get_args(kind)
        number = convert(base, value, path)
        if not limits.holds(number):
            raise _mistyped(kind, value, path)
        return number
    if origin in (Union, types.UnionType):
        if type(value) in get_args(kind):  # nothing, or a value of one of several plain types
            return value
        inner, *others = [a for a in get_args(kind) if a is not type(None)]
        if others:
            raise _mistyped(kind, value, path)
        return convert(inner, value, path)
    if origin is Literal:
        if not any(value == a and type(value) is type(a) for a in get_args(kind)):
            raise _mistyped(kind, value, path)
        return value
    if origin is tuple:
        if not isinstance(value, list):
            raise _mistyped(kind, value, path)
        return tuple(convert(get_args(kind)[0], item, f"{path}[{i}]") for i, item in enumerate(value))
    if origin is dict:
        if not isinstance(value, dict):
            raise _mistyped(kind, value, path)
        return {str(key): convert(get_args(kind)[1], item, _join(path, str(key))) for key, item in value.items()}
    if kind is float:
        return _to_float(value, path)
    if kind in (bool, int, str) and type(value) is kind and not (kind is int and abs(value) > _MAX_INT):
        return value
    raise _mistyped(kind, value, path)


def _to_float(value: Any, path: str) -> float:
    """A number, also one that YAML 1.1 read as a string because it has no dot (`1e-05`)."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            raise _mistyped(float, value, path) from None
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= _MAX_FLOAT:
        raise _mistyped(float, value, path)
    return float(value)


def _hints(cls: type[Any]) -> dict[str, Any]:
    return get_type_hints(cls, include_extras=True)


def _names(cls: type[Any]) -> list[str]:
    return [f.name for f in fields(cls)]


def _place(mapping: dict[str, Any], path: str, key: str) -> str:
    """The path of a key of the mapping in the file."""
    return _join(mapping.places[key] if isinstance(mapping, Section) else path, key)


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else str(key)


def _show(value: Any) -> str:
    return f"{value!r} ({'nothing' if value is None else type(value).__name__})"


def _mistyped(kind: Any, value: Any, path: str) -> UserError:
    return UserError(f"{path} is {_show(value)}; expected {_describe(kind)}; correct it in params.yaml")


def _describe(kind: Any) -> str:
    origin = get_origin(kind)
    if origin is Annotated:
        base, limits = get_args(kind)
        return f"{_describe(base)} {limits}"
    if is_dataclass(kind) and isinstance(kind, type):
        return f"a mapping with the keys {', '.join(_names(kind))}"
    if origin is Literal:
        return "one of " + ", ".join(str(a) for a in get_args(kind))
    if origin in (Union, types.UnionType):
        return " or ".join("null" if a is type(None) else _describe(a) for a in get_args(kind))
    if origin is tuple:
        return f"a list, each item {_describe(get_args(kind)[0])}"
    if origin is dict:
        return f"a mapping, each value {_describe(get_args(kind)[1])}"
    return {bool: "true or false", int: "an integer", float: "a number", str: "a string"}.get(kind, str(kind))
