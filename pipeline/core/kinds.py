"""The kinds of video: how many objects, and whether they look alike."""

from __future__ import annotations

from typing import Literal

Kind = Literal["single", "multi", "lookalike"]
KINDS: tuple[Kind, ...] = ("single", "multi", "lookalike")
