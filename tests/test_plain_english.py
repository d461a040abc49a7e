"""Phrases that readers stumbled over do not come back: documentation, docstrings, comments and messages."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SUFFIXES = (".md", ".py", ".yaml", ".yml", ".toml", ".cff", "Makefile")

INSTEAD = {
    r"\bheld? (\w+ ){0,3}against\b": "compared with",
    r"\bmend(s|ed|ing)?\b": "fix",
    r"(?<!there )\bis no (?!longer|more|less|larger|smaller|better|worse|need|such|slower|faster)\w": "is not a",
    r"\b(go|goes|going|went) on\b": "continue",
    r"\ba wish\b": "a request",
    r"\b(is|are) said\b": "log a warning",
    r"\bof none known\b": "unknown",
    r"\bsets? (\w+ )?(ones )?right\b": "corrects",
    r"\bfor want of\b": "because there is no",
    r"\bcarr(y|ies) over\b": "generalises",
    r"\bthe house\b": "the code base",
    r"\b(a|the|each|other|of) rooms?\b(?! (temperature|for))": "package",
    r"\bon one floor\b": "on one level",
    r"\ba (line|row|file) an? (epoch|video|frame|object|name|file|second|step|minute)\b": "one line per epoch",
    r"\b(frames|steps|clips|seconds) an? (second|frame|video|epoch|step)\b": "frames per second",
    r"\bin the order of time\b": "in temporal order",
    r"\bat hand\b": "available",
    r"\bNone where\b": "None if",
    r"\bto either side\b": "on both sides",
    r"\b(does|do) without\b": "does not need",
    r"\ball the same\b": "nevertheless",
    r"\blet it be\b": "ignore it",
}
"""Regular expression -> what to write."""

ALLOWED = {
    ("tests/test_plain_english.py", ""),  # this list
}
"""File, and a part of the line ("" for every line), in which a phrase is right."""


def tracked() -> list[str]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [name for name in listed.stdout.splitlines() if name.endswith(SUFFIXES) and (ROOT / name).is_file()]


@pytest.mark.parametrize(("phrase", "instead"), INSTEAD.items())
def test_phrase_is_not_used(phrase: str, instead: str) -> None:
    pattern = re.compile(phrase, re.IGNORECASE)
    found = []
    for name in tracked():
        for number, line in enumerate((ROOT / name).read_text(encoding="utf-8").splitlines(), 1):
            match = pattern.search(line)
            if match and not any(name == file and part in line for file, part in ALLOWED):
                found.append(f"{name}:{number}: {match[0]!r} (write, for example, {instead!r}): {line.strip()}")
    assert not found, "\n".join(found)
