"""Fill the template: everything, with styles, script, pictures and clips, becomes one HTML file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

_FOLDER = Path(__file__).parent


def render(content: Mapping[str, Any], clips: Mapping[str, str]) -> str:
    """The page.

    Args:
        content: the variables of `page.html`.
        clips: id of a video -> base64 of its MP4. They are at the end of the file, so that the page shows before they
            are read.
    """
    environment = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"score": _score, "signed": _signed, "percent": _percent}
    return environment.get_template("page.html").render(
        **content,
        style=Markup((_FOLDER / "style.css").read_text()),  # our own files, not data
        script=Markup((_FOLDER / "script.js").read_text()),
        clips=Markup(json.dumps(dict(clips))),  # base64 contains no character that HTML knows
    )


def _score(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _signed(value: float | None) -> str:
    return "–" if value is None else f"{value:+.3f}"


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"
