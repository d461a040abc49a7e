"""Strict parameters: every refusal names the key's path and what is accepted."""

from __future__ import annotations

import re
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.core.errors import UserError
from pipeline.core.params import Count, Range, build
from pipeline.settings import load_settings, settings_of

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Inner:
    rate: float
    steps: int


@dataclass(frozen=True)
class Outer:
    name: str
    on: bool
    kind: Literal["a", "b"]
    sides: tuple[int, ...]
    limit: float | None
    inner: Inner


GOOD = {"name": "x", "on": True, "kind": "a", "sides": [1, 2], "limit": None, "inner": {"rate": 1.5, "steps": 3}}


def test_builds_nested() -> None:
    assert build(Outer, GOOD, "root") == Outer("x", True, "a", (1, 2), None, Inner(1.5, 3))


@pytest.mark.parametrize("value,wanted", [("1e-05", 1e-5), ("1e-5", 1e-5), (2, 2.0), (0.5, 0.5)])
def test_numbers_as_yaml_gives_them(value: Any, wanted: float) -> None:
    got = build(Inner, {"rate": value, "steps": 1}, "").rate
    assert got == wanted and type(got) is float


@pytest.mark.parametrize(
    "path,value,message",
    [
        ("on", 1, "root.on is 1 (int); expected true or false"),
        ("on", "true", "root.on is 'true' (str); expected true or false"),
        ("kind", "c", "root.kind is 'c' (str); expected one of a, b"),
        ("sides", 3, "root.sides is 3 (int); expected a list, each item an integer"),
        ("sides", [1, 2.5], "root.sides[1] is 2.5 (float); expected an integer"),
        ("limit", "much", "root.limit is 'much' (str); expected a number"),
        ("inner", 4, "root.inner is 4 (int); expected a mapping with the keys rate, steps"),
        ("inner.rate", True, "root.inner.rate is True (bool); expected a number"),
        ("inner.rate", "fast", "root.inner.rate is 'fast' (str); expected a number"),
        ("inner.rate", float("nan"), "expected a number"),
        ("inner.steps", 1.0, "root.inner.steps is 1.0 (float); expected an integer"),
        ("inner.steps", True, "root.inner.steps is True (bool); expected an integer"),
        ("inner.step", 1, "unknown key root.inner.step; expected one of rate, steps"),
        ("name", None, "root.name is None (nothing); expected a string"),
    ],
)
def test_refusals(path: str, value: Any, message: str) -> None:
    mapping = deepcopy(GOOD)
    place: Any = mapping
    *parents, last = path.split(".")
    for key in parents:
        place = place[key]
    place[last] = value
    with pytest.raises(UserError) as caught:
        build(Outer, mapping, "root")
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_missing_key() -> None:
    with pytest.raises(UserError, match=r"missing key root\.inner\.steps; expected an integer"):
        build(Outer, {**GOOD, "inner": {"rate": 1.0}}, "root")


def test_the_projects_own_file_is_accepted_whole() -> None:
    settings = load_settings(ROOT / "params.yaml")
    assert settings.profiles["paper"].train.lr == 1e-5 and settings.profiles["paper"].train.epochs == 150


@pytest.mark.parametrize(
    "dotted",
    [
        "profiles.paper.train.lr",
        "profiles.paper.training.batch",
        "shared.synthesis.shear",
        "shared.training.beta1",
        "profiles.sample.training.clips.augment.crop",
        "model.aspp",
        "profiles.sample.network.norm",
        "seed",
    ],
)
def test_the_inactive_profile_is_checked_too(dotted: str, tmp_path: Path) -> None:
    content = yaml.safe_load((ROOT / "params.yaml").read_text())
    *parents, last = dotted.split(".")
    place = content
    for key in parents:
        place = place[key]
    place[last] = "wrong"
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(UserError, match=dotted.replace(".", r"\.")):
        load_settings(tmp_path / "params.yaml")


def test_no_file_and_no_yaml(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        load_settings(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text("a: [1\nb: }")
    with pytest.raises(UserError, match="is not a YAML file"):
        load_settings(tmp_path / "params.yaml")


def test_paper_profile_holds_the_papers_values() -> None:
    """Section 3.1 and Table 2's full row, and nothing that departs from the paper."""
    settings = load_settings(ROOT / "params.yaml")
    paper = settings.profiles["paper"]
    for stage in (paper.pretrain, paper.train):
        assert (stage.optimizer, stage.lr, stage.beta1, stage.beta2) == ("adam", 1e-5, 0.9, 0.999)
        assert (stage.epochs, stage.decay_epoch, stage.decay_factor, stage.batch) == (150, 100, 0.5, 12)
        assert (stage.clips.n_frames, stage.clips.augment.crop, stage.carried_weight) == (3, 384, 0.0)
    assert (paper.train.skip_start, paper.train.skip_end) == (0, 25)
    network = paper.network
    assert (network.resnest_backbone, network.resnet_backbone, network.stride) == ("resnest50d", "resnet50.tv_in1k", 16)
    assert (network.key_channels, network.value_channels, network.norm) == (128, 512, "frozen")
    assert not (network.value_mask or network.shared_start or network.key_std)
    assert settings.model.resnest and settings.model.depth and settings.model.aspp
    assert settings.loss.lovasz and settings.infer.tta


def changed(tmp_path: Path, **values: Any) -> Path:
    """A copy of params.yaml with dotted keys (with __ for the dots) set; None removes one."""
    content = yaml.safe_load((ROOT / "params.yaml").read_text())
    for dotted, value in values.items():
        *parents, last = dotted.split("__")
        place = content
        for key in parents:
            place = place[key]
        place[last] = value
        if value is None:
            del place[last]
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return tmp_path / "params.yaml"


def test_a_third_profile_needs_no_code(tmp_path: Path) -> None:
    sample = yaml.safe_load((ROOT / "params.yaml").read_text())["profiles"]["sample"]
    path = changed(tmp_path, profile="mine", profiles__mine=sample)
    settings = load_settings(path)
    assert settings.profile_params == settings.profiles["sample"] == load_settings(ROOT / "params.yaml").profile_params


def test_shared_and_common_values_reach_their_stages(tmp_path: Path) -> None:
    path = changed(tmp_path, shared__training__beta1=0.5, profiles__sample__training__batch=3)
    settings = load_settings(path)
    sample, paper = settings.profiles["sample"], settings.profiles["paper"]
    assert {c.beta1 for c in (sample.pretrain, sample.train, paper.pretrain, paper.train)} == {0.5}
    assert (sample.pretrain.batch, sample.train.batch, paper.train.batch) == (3, 3, 12)


@pytest.mark.parametrize(
    "values,message",
    [
        ({"profile": "smaple"}, "profile is 'smaple'; expected one of sample, paper"),
        ({"shared__world": {}}, "unknown key shared.world; expected one of synthesis"),
        ({"shared__synthesis__sheer": 1.0}, "unknown key shared.synthesis.sheer; expected one of seed"),
        (
            {"shared__synthesis__motion": "smooth"},
            "shared.synthesis.motion and profiles.sample.synthesis.motion are",
        ),
        ({"profiles__paper__train__batch": 4}, "profiles.paper.training.batch and profiles.paper.train.batch are both"),
        ({"profiles__paper__train__lr": None}, "missing key profiles.paper.train.lr; expected a number"),
        ({"profiles__paper__training": None}, "profiles.paper.training is None; expected a mapping"),
        ({"profiles__paper__infer": None}, "missing key profiles.paper.infer; expected a mapping with the keys split"),
        ({"profiles__paper__infer": 3}, "profiles.paper.infer is 3 (int); expected a mapping"),
        ({"profiles__paper": 3}, "profiles.paper is 3; expected a mapping of sections"),
        ({"profiles": None}, "profiles is None; expected a mapping of sections"),
        ({"profiles__a/b": {}}, "a profile is named 'a/b'; expected letters"),
    ],
)
def test_refusals_of_the_whole_file(values: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        load_settings(changed(tmp_path, **values))
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "device,message",
    [
        ("gpu", "runtime.device is 'gpu'; expected auto, cpu, cuda or cuda:N"),
        ("mps", "runtime.device is mps; Apple GPUs are not supported"),
        ("cuda:", "runtime.device is 'cuda:'; expected"),
        ("", "runtime.device is ''; expected"),
        ("CPU", "runtime.device is 'CPU'; expected"),
    ],
)
def test_other_devices_are_refused_at_once(device: str, message: str, tmp_path: Path) -> None:
    content = yaml.safe_load((ROOT / "params.yaml").read_text())
    content["runtime"]["device"] = device
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(UserError, match=re.escape(message)):
        load_settings(tmp_path / "params.yaml")


@pytest.mark.parametrize(
    "override,line",
    [
        ("profiles.sample.train.epochs=3", "      epochs: 3"),
        ("shared.synthesis.shear=4.5", "    shear: 4.5"),
        ("profiles.lite.infer.memory_frames=7", "      memory_frames: 7"),
    ],
)
def test_an_override_of_an_experiment_changes_one_line(override: str, line: str, tmp_path: Path) -> None:
    """DVC writes the file anew for `dvc exp run -S`, and drops blank lines and comments that follow a list."""
    from dvc.utils.hydra import apply_overrides

    path = changed(tmp_path)
    before = (ROOT / "params.yaml").read_text()
    path.write_text(before)
    apply_overrides(path, [override])
    differing = [pair for pair in zip(lines(before), lines(path.read_text()), strict=True) if pair[0] != pair[1]]
    assert [after.partition(" #")[0].rstrip() for _, after in differing] == [line]


def lines(text: str) -> list[str]:
    """The lines; an address that DVC folds, since it is longer than a line, is left out."""
    return re.sub(r"checkpoint:\s+https\S+\s+#.*", "", text).splitlines()


def test_ranges_name_the_accepted_values() -> None:
    @dataclass(frozen=True)
    class Limited:
        rate: Annotated[float, Range(0, 1, above=True, below=True)]
        n: Count

    assert build(Limited, {"rate": 0.5, "n": 1}, "") == Limited(0.5, 1)
    for mapping, message in (
        ({"rate": 0.0, "n": 1}, "x.rate is 0.0 (float); expected a number above 0 and below 1; correct it"),
        ({"rate": 1, "n": 1}, "x.rate is 1 (int); expected a number above 0 and below 1"),
        ({"rate": 0.5, "n": 0}, "x.n is 0 (int); expected an integer from 1 to 1000000000"),
        ({"rate": 0.5}, "missing key x.n; expected an integer from 1 to 1000000000"),
        ({"rate": 1e300, "n": 1}, "x.rate is 1e+300 (float); expected a number"),
    ):
        with pytest.raises(UserError, match=re.escape(message)):
            build(Limited, mapping, "x")


def leaves(content: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if isinstance(content, dict):
        for key, value in content.items():
            yield from leaves(value, (*path, key))
    else:
        yield path


CONTENT = yaml.safe_load((ROOT / "params.yaml").read_text())
VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=True), st.text(max_size=8), st.just([]), st.just({}),
    st.sampled_from([0, -1, 10**30, -(10**30), 1e300, -1e300, "none", [None], [[]], {"a": 1}, [0], [-1], ["x"]]),
)  # fmt: skip


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(sorted(leaves(CONTENT))), VALUES)
def test_any_value_of_any_key_is_taken_or_refused_in_one_line(path: tuple[str, ...], value: Any) -> None:
    content = deepcopy(CONTENT)
    place = content
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    try:
        settings_of(content)
    except UserError as error:
        assert "\n" not in str(error) and str(error)


def test_workers_from_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    for cores, processes, expected in ((8, 1, 8), (8, 4, 2), (8, 16, 1), (256, 4, 16)):
        monkeypatch.setattr("pipeline.settings.available_cores", lambda cores=cores: cores)
        content = deepcopy(CONTENT)
        content["runtime"] |= {"workers": 0, "processes": processes}
        assert settings_of(content).runtime.workers == expected


@pytest.mark.parametrize(
    "path,value",
    [
        ("seed", -1),
        ("world.frame_height", 0),
        ("world.jpeg_quality", 101),
        ("world.gentle.noise", -1.0),
        ("world.davis.frames", 0),
        ("world.stills.coco", -1),
        ("shared.training.beta1", 1.0),
        ("shared.network.aspp_dilations", [0]),
        ("runtime.processes", 0),
        ("runtime.workers", 10**6),
        ("profiles.sample.network.width", 0.0),
        ("profiles.sample.network.key_channels", 0),
        ("profiles.sample.training.weight_decay", -1.0),
        ("profiles.sample.training.decay_factor", 0.0),
        ("profiles.sample.train_depth.seed", -1),
    ],
)
def test_values_out_of_range_are_refused_with_their_path(path: str, value: Any) -> None:
    content = deepcopy(CONTENT)
    *parents, last = path.split(".")
    place = content
    for key in parents:
        place = place[key]
    place[last] = value
    with pytest.raises(UserError, match=rf"{re.escape(last)}(\[0\])? is .*; expected "):
        settings_of(content)
