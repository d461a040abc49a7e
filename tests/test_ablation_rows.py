"""Rows of ablations.yaml: reading, choosing, names of experiments, values on DVC's command line."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.core.errors import UserError
from pipeline.experiments.rows import Row, as_argument, choose, experiment, parse_changes, read_sets
from pipeline.settings import settings_of
from tests.support.commands import set_key

ROOT = Path(__file__).resolve().parents[1]
SETS = read_sets(ROOT / "ablations.yaml")
PARAMS = yaml.safe_load((ROOT / "params.yaml").read_text())
TABLE2 = {  # the paper's Table 2: ResNeSt, Lovász, Depth, ASPP, TTA and J&F
    "t2-1-stm": ((False, False, False, False, False), 0.783),
    "t2-2-resnest": ((True, False, False, False, False), 0.799),
    "t2-3-lovasz": ((True, True, False, False, False), 0.805),
    "t2-4-depth": ((True, True, True, False, False), 0.813),
    "t2-5-aspp": ((True, True, True, True, False), 0.820),
    "t2-6-tta": ((True, True, True, True, True), 0.835),
}
SWITCHES = ("model.resnest", "loss.lovasz", "model.depth", "model.aspp", "infer.tta")


def test_table_2_is_the_papers() -> None:
    found = {row.name: (tuple(row.changes[key] for key in SWITCHES), row.paper) for row in SETS["table2"].rows}
    assert found == TABLE2
    assert SETS["table2"].compare == "previous"


def test_the_committed_sets() -> None:
    assert list(SETS) == ["table2", "depth-controls", "tta-scales", "data-mixtures"]
    inputs = [row.changes.get("model.depth_input") for row in SETS["depth-controls"].rows]
    assert inputs == ["estimated", None, "constant", "shuffled", "luminance", "other_video"]


@pytest.mark.parametrize("name", SETS)
def test_every_row_is_accepted_by_the_settings(name: str) -> None:
    for row in SETS[name].rows:
        content = copy.deepcopy(PARAMS)
        for key, value in experiment(row, 1, "sample", "sample", {}).overrides.items():
            set_key(content, key, value)
        assert settings_of(content).seed == 1


def test_what_a_row_is_compared_with() -> None:
    table2, controls = SETS["table2"], SETS["depth-controls"]
    assert table2.reference(table2.rows[0]) is None
    assert table2.reference(table2.rows[3]) == table2.rows[2]
    assert controls.reference(controls.rows[3]) == controls.rows[0]


def test_choose() -> None:
    chosen = choose(SETS, ["table2", "tta-scales"], ["t2-[56]*", "*-off"])
    assert [(group.name, [row.name for row in group.rows]) for group in chosen] == [
        ("table2", ["t2-5-aspp", "t2-6-tta"]),
        ("tta-scales", ["tta-off"]),
    ]
    assert choose(SETS, ["table2"], []) == [SETS["table2"]]
    with pytest.raises(UserError, match=r"no set 'table3'; expected table2, .*; correct --set"):
        choose(SETS, ["table3"], [])
    with pytest.raises(UserError, match=r"--rows t3-\* matches no row; expected t2-1-stm, "):
        choose(SETS, ["table2"], ["t3-*"])


def test_names_and_overrides() -> None:
    row = Row("tta", "TTA", {"infer.tta": True, "profiles.${profile}.infer.scales": [1.0, 1.3]}, None)
    one = experiment(row, 2, "sample", "sample", {})
    assert one.name == "tta-s2"
    assert one.overrides == {
        "seed": 2,
        "profiles.sample.train_depth.seed": 2,
        "infer.tta": True,
        "profiles.sample.infer.scales": [1.0, 1.3],
    }
    other = experiment(row, 2, "lite", "sample", {"infer.tta": False})
    assert other.name.startswith("tta-lite-x") and other.name.endswith("-s2")
    assert other.overrides["profile"] == "lite" and other.overrides["infer.tta"] is False
    assert experiment(row, 2, "lite", "sample", {"infer.tta": True}).name != other.name


@pytest.mark.parametrize(
    "value", [True, False, 3, 0.5, 1e-05, 2.5e-07, 1e20, "none", "data/x.zip", [1.0, 1.15], [1e-05]]
)
def test_values_survive_the_command_line(value: Any) -> None:
    """DVC parses the value and YAML reads back what DVC writes."""
    assert yaml.safe_load(as_argument(value)) == value or float(as_argument(value)) == value


def test_changes_of_the_command_line() -> None:
    found = parse_changes(["model.depth=false", "profiles.sample.train.lr=1.0e-4", "a=[1, 2]"])
    assert found == {"model.depth": False, "profiles.sample.train.lr": 1e-4, "a": [1, 2]}
    with pytest.raises(UserError, match=r"-S is given 'x'; expected KEY=VALUE"):
        parse_changes(["x"])


GOOD = {"s": {"title": "S", "compare": "first", "rows": {"a-1": {"title": "A", "set": {"seed": 1}, "paper": 0.5}}}}


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ((), "text", "expected a mapping"),
        (("s",), 3, "expected a mapping with the keys title, compare, rows"),
        (("s", "compare"), "next", "s.compare is 'next'; expected previous or first"),
        (("s", "rows"), {}, "s.rows is {}; expected a mapping with at least one entry"),
        (("s", "rows", "A b"), {"title": "A", "set": {}}, "a row is called 'A b'; expected lower-case letters"),
        (("s", "rows", "b"), {"title": "A"}, "s.rows.b has no key set"),
        (("s", "rows", "b"), {"title": "A", "set": {}, "papre": 1}, "has the unknown key papre"),
        (("s", "rows", "a-1", "set"), ["seed"], "expected KEY: VALUE"),
        (("s", "rows", "a-1", "set"), {"model": {"depth": False}}, "set.model is {'depth': False}; expected a value"),
        (("s", "rows", "a-1", "paper"), 83.5, "paper is 83.5; expected J&F from 0.0 to 1.0"),
        (("t",), GOOD["s"], "the row a-1 is in s and in t; expected each name once"),
    ],
)
def test_mistakes_in_the_file(tmp_path: Path, path: tuple[str, ...], value: Any, message: str) -> None:
    content: Any = yaml.safe_load(yaml.safe_dump(GOOD))
    section = content
    for key in path[:-1]:
        section = section[key]
    if path:
        section[path[-1]] = value
    else:
        content = value
    (tmp_path / "ablations.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(UserError) as error:
        read_sets(tmp_path / "ablations.yaml")
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_missing_or_broken_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist; expected the rows"):
        read_sets(tmp_path / "ablations.yaml")
    (tmp_path / "ablations.yaml").write_text("a: [")
    with pytest.raises(UserError, match="is not a YAML file"):
        read_sets(tmp_path / "ablations.yaml")
