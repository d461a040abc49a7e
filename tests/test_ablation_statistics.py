"""Means, paired differences and their intervals, compared with plain loops and with known distributions; the table."""

from __future__ import annotations

from statistics import fmean, stdev

import numpy as np
import pytest

from pipeline.core.errors import UserError
from pipeline.experiments.results import Scores, read_scores
from pipeline.experiments.rows import Row, RowSet
from pipeline.experiments.statistics import bootstrap, differences, means, spreads
from pipeline.experiments.table import Outcome, tabulate, to_markdown

KINDS = {("s", "1"): "single", ("m", "1"): "multi", ("m", "2"): "multi"}


def scores(*values: float) -> Scores:
    return Scores(dict(zip(KINDS, values, strict=True)), KINDS)


def test_means_by_hand() -> None:
    assert means(scores(0.9, 0.5, 0.7)) == pytest.approx({"all": 0.7, "single": 0.9, "multi": 0.6})


def test_spread_over_seeds() -> None:
    found = spreads([scores(0.9, 0.5, 0.7), scores(0.6, 0.4, 0.2)])
    assert found["all"].mean == pytest.approx(fmean([0.7, 0.4])) and found["all"].sd == pytest.approx(stdev([0.7, 0.4]))
    assert found["single"].sd == pytest.approx(stdev([0.9, 0.6])) and "lookalike" not in found
    assert spreads([scores(0.9, 0.5, 0.7)])["all"].sd is None


def test_differences_are_paired_by_seed_and_object() -> None:
    before = {0: scores(0.9, 0.5, 0.7), 1: scores(0.6, 0.4, 0.2), 5: scores(0, 0, 0)}
    after = {1: scores(0.7, 0.4, 0.5), 0: scores(0.9, 0.7, 0.7), 6: scores(1, 1, 1)}
    found = differences(before, after)
    assert found["all"].mean == pytest.approx((0 + 0.2 + 0 + 0.1 + 0 + 0.3) / 6)  # seeds 5 and 6 have no partner
    assert found["single"].mean == pytest.approx((0 + 0.1) / 2)
    assert found["multi"].mean == pytest.approx((0.2 + 0 + 0 + 0.3) / 4)
    assert differences({0: before[0]}, {1: after[1]}) == {}


def test_an_object_of_one_side_is_left_out() -> None:
    fewer = Scores({("s", "1"): 0.5}, {("s", "1"): "single"})
    assert differences({0: fewer}, {0: scores(0.9, 0.1, 0.1)})["all"].mean == pytest.approx(0.4)
    with pytest.raises(UserError, match="no object in common"):
        differences({0: fewer}, {0: Scores({("x", "1"): 0.5}, {("x", "1"): "single"})})


def test_bootstrap_equals_a_plain_loop() -> None:
    """Another generator and explicit indices: the ends of the interval agree within the noise of resampling."""
    table = np.random.default_rng(3).normal(0.02, 0.1, (3, 46))
    generator = np.random.default_rng(4)
    resampled = []
    for _ in range(4000):
        seeds, objects = generator.integers(3, size=3), generator.integers(46, size=46)
        resampled.append(table[seeds][:, objects].mean())
    found = bootstrap(table)
    assert found.mean == pytest.approx(table.mean())
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(resampled, [0.025, 0.975])), abs=0.003)


def test_bootstrap_of_a_constant_and_of_noise() -> None:
    constant = bootstrap(np.full((3, 10), 0.25))
    assert (constant.mean, constant.low, constant.high) == pytest.approx((0.25, 0.25, 0.25)) and constant.resolved
    noise = bootstrap(np.random.default_rng(0).normal(0, 1, (3, 20)))
    assert noise.low < 0 < noise.high and not noise.resolved
    assert bootstrap(np.full((1, 1), -0.1)).resolved


def test_bootstrap_sees_the_spread_of_seeds() -> None:
    """Seeds that disagree about every object widen the interval; the same values without that pattern do not."""
    apart = np.array([[0.1], [0.0], [-0.1]]).repeat(30, axis=1)
    mixed = np.random.default_rng(1).permutation(apart.ravel()).reshape(3, 30)
    width = {name: bootstrap(table).high - bootstrap(table).low for name, table in (("a", apart), ("m", mixed))}
    assert width["a"] > 2 * width["m"]


def test_reading_scores() -> None:
    text = "sequence,object,kind,J-mean,J&F\ns,1,single,0.4,0.5\nm,2,multi,0.1,0.25\n"
    found = read_scores(text, "x")
    assert found.values == {("s", "1"): 0.5, ("m", "2"): 0.25} and found.kinds[("m", "2")] == "multi"
    for broken, message in (
        ("sequence,object,kind\n", "no column J&F"),
        ("sequence,object,kind,J&F\n", "has no rows"),
        ("sequence,object,kind,J&F\ns,1,single,high\n", "is 'high'; expected a number"),
    ):
        with pytest.raises(UserError, match=message):
            read_scores(broken, "x")


def test_table_and_markdown() -> None:
    rows = tuple(Row(name, name.upper(), {}, paper) for name, paper in (("a", 0.7), ("b", 0.75), ("c", None)))
    outcomes = {
        "a": {0: Outcome(scores(0.5, 0.5, 0.5), "experiment"), 1: Outcome(scores(0.6, 0.6, 0.6), "experiment")},
        "b": {0: Outcome(scores(0.7, 0.7, 0.7), "experiment"), 1: Outcome(None, "failed: no space")},
        "c": {0: Outcome(None, "not run"), 1: Outcome(None, "not run")},
    }
    found = tabulate(RowSet("toy", "Toy", "previous", rows), outcomes)
    first, second, third = found["rows"]
    assert first["mean"]["all"] == 0.55 and first["sd"]["all"] == pytest.approx(stdev([0.5, 0.6]), abs=1e-6)
    assert first["difference"] is None
    assert second["difference"]["paper"] == 0.05 and second["difference"]["seeds"] == [0]
    assert second["difference"]["all"] == {"mean": 0.2, "low": 0.2, "high": 0.2}
    assert second["seeds"]["1"] == {"unfinished": "failed: no space"} and third["mean"] == {}
    text = to_markdown({"profile": "sample", "overrides": {}, "sets": {"toy": found}})
    assert "| A | 0.700 | 0.550 ± 0.071 | 0.550 ± 0.071 | 0.550 ± 0.071 | 2 of 2 |" in text
    assert "| B, compared with A | +0.050 | **+0.200 [+0.200, +0.200]** |" in text
    assert "| C, compared with B | - | - | - | - | 0 |" in text
    assert "- B, seed 1: failed: no space" in text and "- C, seed 0: not run" in text
