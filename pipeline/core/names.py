"""Natural order of file names: frame 2 comes before frame 10, padded with zeros or not."""

from __future__ import annotations

import re

_NUMBER = re.compile(r"([0-9]+)")

NaturalKey = tuple[tuple[tuple[int, str], ...], str]


def natural_key(name: str) -> NaturalKey:
    """A key for `sorted` that compares the numbers in names by value and the text between them as text.

    Names that differ in nothing but leading zeros ("1" and "01") are ordered as text. Names that are all padded to one
    length keep the order that they have as text.

    Args:
        name: a frame id ("00010", "frame_9"), or any other name without its suffix.
    """
    parts = _NUMBER.split(name)  # text and numbers take turns, text first
    return tuple((int(part), "") if i % 2 else (0, part) for i, part in enumerate(parts)), name
