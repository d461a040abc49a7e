"""The table of an ablation, as a dictionary for JSON and as Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.experiments.results import Scores
from pipeline.experiments.rows import Row, RowSet
from pipeline.experiments.statistics import GROUPS, LEVEL, RESAMPLES, differences, means, spreads

LABELS = {"all": "all", "single": "single", "multi": "multi", "lookalike": "look-alike"}
_DASH = "-"


@dataclass(frozen=True)
class Outcome:
    """What is known of a row with a seed.

    Attributes:
        scores: of every object; None if the row did not finish.
        note: where the scores come from (`experiment`, `benchmarks/seeds.py`), or why there are none.
    """

    scores: Scores | None
    note: str


Outcomes = Mapping[str, Mapping[int, Outcome]]


def tabulate(group: RowSet, outcomes: Outcomes) -> dict[str, Any]:
    """One set as plain values.

    Args:
        group: the set.
        outcomes: row name -> seed -> what is known.

    Returns:
        `{"title", "compare", "rows": [...]}`. A row: `name`, `title`, `set`, `paper`, `seeds` (seed -> J&F by group, or
        `unfinished` with the reason), `mean` and `sd` by group, and `difference` to its reference row: `to`, `seeds`,
        `paper` and, by group, `mean`, `low`, `high`. All values are rounded to six decimals.
    """
    finished = {
        row.name: {seed: one.scores for seed, one in outcomes[row.name].items() if one.scores} for row in group.rows
    }
    rows = []
    for row in group.rows:
        of_seeds = spreads(list(finished[row.name].values())) if finished[row.name] else {}
        rows.append(
            {
                "name": row.name,
                "title": row.title,
                "set": dict(row.changes),
                "paper": row.paper,
                "seeds": {str(seed): _seed(one) for seed, one in outcomes[row.name].items()},
                "mean": {name: round(spread.mean, 6) for name, spread in of_seeds.items()},
                "sd": {name: _rounded(spread.sd) for name, spread in of_seeds.items()},
                "difference": _difference(row, group.reference(row), finished),
            }
        )
    return {"title": group.title, "compare": group.compare, "rows": rows}


def _seed(outcome: Outcome) -> dict[str, Any]:
    if outcome.scores is None:
        return {"unfinished": outcome.note}
    return {"from": outcome.note, **{name: round(value, 6) for name, value in means(outcome.scores).items()}}


def _difference(row: Row, to: Row | None, finished: Mapping[str, Mapping[int, Scores]]) -> dict[str, Any] | None:
    if to is None:
        return None
    found = differences(finished[to.name], finished[row.name])
    return {
        "to": to.name,
        "paper": None if row.paper is None or to.paper is None else round(row.paper - to.paper, 6),
        "seeds": sorted(set(finished[to.name]) & set(finished[row.name])),
        **{
            name: {"mean": round(one.mean, 6), "low": round(one.low, 6), "high": round(one.high, 6)}
            for name, one in found.items()
        },
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


def to_markdown(content: Mapping[str, Any]) -> str:
    """All sets of `metrics/ablation.json` as Markdown.

    Args:
        content: `{"profile", "overrides", "sets": {name: tabulate(...)}}`.
    """
    lines = [
        "# Ablations",
        "",
        f"Profile `{content['profile']}`{_changes(content['overrides'])}.",
        "Run by `python -m pipeline.ablation` from the rows in `ablations.yaml`.",
        "Scores are J&F, mean ± standard deviation over seeds. A difference is paired by seed and object; in brackets",
        f"its {LEVEL:.0%} interval from {RESAMPLES:,} bootstrap resamples of objects and seeds. **Bold**: the interval "
        "excludes 0.",
        "The paper's scores are on DAVIS-2017 val: compare its differences with ours, not its scores.",
    ]
    for name, group in content["sets"].items():
        lines += ["", f"## {group['title']} (`{name}`)", "", *_scores(group), "", *_differences(group)]
        unfinished = _unfinished(group)
        if unfinished:
            lines += ["", "Not finished:", "", *unfinished]
    return "\n".join(lines) + "\n"


def _changes(overrides: Mapping[str, Any]) -> str:
    return f" with {', '.join(f'`{key}={value}`' for key, value in overrides.items())}" if overrides else ""


def _scores(group: Mapping[str, Any]) -> list[str]:
    names = _groups(group)
    header = ["row", "paper", *(LABELS[name] for name in names), "seeds"]
    lines = [_line(header), _line(["---"] * len(header))]
    for row in group["rows"]:
        n_finished = sum("unfinished" not in seed for seed in row["seeds"].values())
        cells = [_spread(row["mean"].get(name), row["sd"].get(name)) for name in names]
        paper = _DASH if row["paper"] is None else f"{row['paper']:.3f}"
        lines.append(_line([row["title"], paper, *cells, f"{n_finished} of {len(row['seeds'])}"]))
    return lines


def _differences(group: Mapping[str, Any]) -> list[str]:
    names = _groups(group)
    header = ["difference", "paper", *(LABELS[name] for name in names), "seeds"]
    lines = [_line(header), _line(["---"] * len(header))]
    titles = {row["name"]: row["title"] for row in group["rows"]}
    for row in group["rows"]:
        difference = row["difference"]
        if difference is not None:
            paper = _DASH if difference["paper"] is None else f"{difference['paper']:+.3f}"
            cells = [_interval(difference.get(name)) for name in names]
            label = f"{row['title']}, compared with {titles[difference['to']]}"
            lines.append(_line([label, paper, *cells, str(len(difference["seeds"]))]))
    return lines


def _groups(group: Mapping[str, Any]) -> list[str]:
    return [name for name in GROUPS if any(name in row["mean"] for row in group["rows"])] or ["all"]


def _spread(mean: float | None, sd: float | None) -> str:
    if mean is None:
        return _DASH
    return f"{mean:.3f}" if sd is None else f"{mean:.3f} ± {sd:.3f}"


def _interval(difference: Mapping[str, float] | None) -> str:
    if difference is None:
        return _DASH
    text = f"{difference['mean']:+.3f} [{difference['low']:+.3f}, {difference['high']:+.3f}]"
    return f"**{text}**" if difference["low"] > 0 or difference["high"] < 0 else text


def _unfinished(group: Mapping[str, Any]) -> list[str]:
    return [
        f"- {row['title']}, seed {seed}: {one['unfinished']}"
        for row in group["rows"]
        for seed, one in row["seeds"].items()
        if "unfinished" in one
    ]


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
