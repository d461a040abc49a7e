"""Line charts as inline SVG, with their values beside them for hover and keyboard (script.js)."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from markupsafe import Markup

_WIDTH, _HEIGHT = 360, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 38, 8, 10, 30
_N_STYLES = 6  # colours and dash patterns of style.css: .s0 to .s5
_N_TICKS = 4

Place = Callable[[float, float], tuple[float, float]]  # a point's values -> its coordinates


@dataclass(frozen=True)
class Series:
    """One line.

    Attributes:
        label: for the legend and the tooltip.
        points: (x, y) in ascending x.
        style: number of its colour and dash pattern.
    """

    label: str
    points: Sequence[tuple[float, float]]
    style: int


def line_chart(
    title: str,
    series: Sequence[Series],
    x_label: str,
    y_range: tuple[float, float] | None = None,
    clip: str = "",
    mark: float | None = None,
) -> Markup:
    """A chart that scales with the page and can be focused; the arrow keys move its cursor.

    Args:
        title: for the heading above it and for screen readers.
        series: at least one, each with at least one point.
        x_label: what the horizontal axis shows.
        y_range: of the vertical axis; None: from 0 to the largest value.
        clip: id of the video whose position the cursor follows and sets; empty: none.
        mark: an x to mark with a line (the worst frame).
    """
    xs = [x for one in series for x, _ in one.points]
    low, high = y_range or (0.0, max((y for one in series for _, y in one.points), default=1.0) or 1.0)
    first, last = min(xs), max(xs)

    def place(x: float, y: float) -> tuple[float, float]:
        across = 0.5 if last == first else (x - first) / (last - first)
        up = min(max((y - low) / (high - low), 0.0), 1.0)
        return (
            round(_LEFT + across * (_WIDTH - _LEFT - _RIGHT), 1),
            round(_HEIGHT - _BOTTOM - up * (_HEIGHT - _TOP - _BOTTOM), 1),
        )

    parts = [*_grid(low, high, place, first), *_x_ticks(first, last, place, low)]
    parts.append(f'<text class="axis" x="{_WIDTH / 2}" y="{_HEIGHT - 3}" text-anchor="middle">{escape(x_label)}</text>')
    if mark is not None:
        x, _ = place(mark, low)
        parts.append(f'<line class="mark" x1="{x}" x2="{x}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}"/>')
    values = []
    for one in series:
        places = [place(x, y) for x, y in one.points]
        style = f"s{one.style % _N_STYLES}"
        if len(places) == 1:
            parts.append(f'<circle class="{style}" cx="{places[0][0]}" cy="{places[0][1]}" r="3"/>')
        path = "M" + "L".join(f"{x} {y}" for x, y in places)
        parts.append(f'<path class="line {style}" d="{path}"/>')
        rows = [[x, y, *at] for (x, y), at in zip(one.points, places)]
        values.append(
            {"label": one.label, "style": style, "points": [[round(value, 5) for value in row] for row in rows]}
        )
    data = escape(json.dumps(values, separators=(",", ":")), quote=True)
    summary = "; ".join(f"{one.label} from {one.points[0][1]:.3g} to {one.points[-1][1]:.3g}" for one in series)
    label = escape(f"{title}. {x_label} from {first:g} to {last:g}. {summary}. Arrow keys show the values.", quote=True)
    legend = "".join(
        f'<li><svg class="key" viewBox="0 0 24 8" aria-hidden="true"><path class="line s{one.style % _N_STYLES}" '
        f'd="M0 4L24 4"/></svg>{escape(one.label)}</li>'
        for one in series
    )
    return Markup(
        f'<figure class="chart" data-clip="{escape(clip, quote=True)}"><figcaption>{escape(title)}</figcaption>'
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" tabindex="0" aria-label="{label}" data-series="{data}" '
        f'data-top="{_TOP}" data-bottom="{_HEIGHT - _BOTTOM}">{"".join(parts)}</svg>'
        f'<ul class="legend">{legend}</ul></figure>'
    )  # fmt: skip


def _grid(low: float, high: float, place: Place, first: float) -> list[str]:
    parts = []
    for i in range(_N_TICKS + 1):
        value = low + (high - low) * i / _N_TICKS
        _, y = place(first, value)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text class="tick" x="{_LEFT - 4}" y="{y + 3}" text-anchor="end">{value:.3g}</text>')
    return parts


def _x_ticks(first: float, last: float, place: Place, low: float) -> list[str]:
    step = max(1, math.ceil((last - first) / _N_TICKS))
    ticks = [first + step * i for i in range(_N_TICKS + 1) if first + step * i <= last]
    parts = []
    for value in ticks:
        x, y = place(value, low)
        parts.append(f'<text class="tick" x="{x}" y="{y + 12}" text-anchor="middle">{value:g}</text>')
    return parts
