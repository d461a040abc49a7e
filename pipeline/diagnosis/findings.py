"""Findings about a data set, counted by kind, and the table that shows them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

Level = Literal["error", "warning"]


@dataclass
class Finding:
    """One kind of fault.

    Attributes:
        level: `error`: stages will refuse the data; `warning`: they work, perhaps not as meant.
        what: the kind, in a few words.
        n: how often it was found.
        example: the first place.
    """

    level: Level
    what: str
    n: int
    example: str


@dataclass
class Diagnosis:
    """What was found in a data set.

    Attributes:
        dataset: its name.
        counts: how many of what it has, and how many of them were looked at.
        findings: the faults, by kind.
    """

    dataset: str
    counts: dict[str, int] = field(default_factory=dict)
    findings: dict[str, Finding] = field(default_factory=dict)

    def add(self, level: Level, what: str, example: str) -> None:
        """Count a fault."""
        found = self.findings.setdefault(what, Finding(level, what, 0, example))
        found.n += 1

    def count(self, what: str, n: int = 1) -> None:
        """Add to a count."""
        self.counts[what] = self.counts.get(what, 0) + n

    def expect(self, what: str, n: int) -> None:
        """Compare a count with the published one; a difference is a warning, because a part may be what is meant."""
        if self.counts.get(what, 0) != n:
            found = f"{self.counts.get(what, 0):,} {what}; the published set has {n:,}"
            self.add("warning", "not as many as published", found)

    def number(self, level: Level) -> int:
        """Number of faults of a level."""
        return sum(f.n for f in self.findings.values() if f.level == level)

    def as_metrics(self) -> dict[str, int]:
        """The counts, and the numbers of errors and warnings."""
        return {**self.counts, "errors": self.number("error"), "warnings": self.number("warning")}


def table(diagnoses: Sequence[Diagnosis]) -> list[str]:
    """Lines of a table: for each data set its counts, then one row for each kind of fault."""
    lines = []
    for diagnosis in diagnoses:
        counts = ", ".join(f"{n:,} {what}" for what, n in diagnosis.counts.items()) or "no data (none)"
        lines.append(f"{diagnosis.dataset:<11} {counts}")
        for found in sorted(diagnosis.findings.values(), key=lambda f: (f.level, f.what)):
            lines.append(f"  {found.level:<8} {found.n:>7,} x {found.what}: {found.example}")
    return lines
