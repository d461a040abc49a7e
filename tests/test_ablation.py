"""Which experiments count as results, what would run, and (slow) an ablation that is killed, through DVC itself."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.ablation import Ablation, Request
from pipeline.core.errors import UserError
from pipeline.experiments.results import Project, find_benchmark_run
from pipeline.experiments.stages import expand, needed, stage_keys
from tests.support.commands import DVC, run
from tests.support.toy_ablation import PARAMS, ROOT, ablation, commit, make_project

SCORES = "sequence,object,kind,J&F\na,1,single,{}\n"


def request(**changes: Any) -> Request:
    values: dict[str, Any] = {
        "sets": ("toy",), "rows": (), "seeds": (0,), "profile": "", "extra": {}, "runs": None, **changes
    }  # fmt: skip
    return Request(**values)


def save(project: Path, name: str, params: dict[str, Any], value: float, **files: str) -> None:
    """An experiment as DVC saves it: a commit that refs/exps names by its baseline."""
    baseline = run(project, "git", "rev-parse", "HEAD").strip()
    (project / "params.yaml").write_text(yaml.safe_dump(params))
    (project / "metrics").mkdir(exist_ok=True)
    (project / "metrics" / "per_object.csv").write_text(SCORES.format(value))
    for path, text in files.items():
        (project / path.replace("__", "/")).write_text(text)
    done = commit(project, name)
    run(project, "git", "update-ref", f"refs/exps/{baseline[:2]}/{baseline[2:]}/{name}", done)
    run(project, "git", "reset", "-q", "--hard", baseline)


def changed(**values: Any) -> dict[str, Any]:
    params: dict[str, Any] = yaml.safe_load(PARAMS)
    params["profiles"]["sample"]["train_depth"]["seed"] = params["seed"] = values.pop("seed", 0)
    for key, value in values.items():
        section, name = key.split("__")
        params[section][name] = value
    return params


@pytest.fixture(scope="module")
def committed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy project, committed, with three experiments, one of them with other parameters."""
    project = make_project(tmp_path_factory.mktemp("toy") / "project", dvc=False)
    save(project, "toy-base-s0", changed(model__depth=False), 0.5)
    save(project, "toy-depth-s0", changed(model__aspp=False), 0.6)  # other parameters under this name
    save(project, "toy-no-tta-s0", changed(infer__tta=False), 0.7, pipeline__other="text")  # a file of no stage
    (project / ".scratch").mkdir()
    return project


def test_an_experiment_counts_by_its_parameters_and_code(committed: Path) -> None:
    found = Ablation(committed, request())
    notes = {one.name: found.outcome(one) for one in found.experiments(found._chosen)}
    assert {name: outcome.note for name, outcome in notes.items()} == {
        "toy-base-s0": "experiment",
        "toy-depth-s0": "older parameters or code",
        "toy-no-tta-s0": "experiment",
    }
    scores = notes["toy-base-s0"].scores
    assert scores is not None and scores.values == {("a", "1"): 0.5}
    assert [one.name for one in found.to_run()] == ["toy-depth-s0"]


def test_after_a_commit_that_changes_no_stage_results_still_count(committed: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    run(committed.parent, "git", "clone", "-q", "--mirror", str(committed), str(copy / ".git"))
    run(copy, "git", "config", "--bool", "core.bare", "false")
    run(copy, "git", "reset", "-q", "--hard")
    for key, value in (("user.name", "toy"), ("user.email", "toy@example.org")):
        run(copy, "git", "config", key, value)
    (copy / "README.md").write_text("text\n")
    commit(copy, "documentation")
    project = Project(copy)
    ablated = Ablation(copy, request(rows=("toy-base",)))
    (one,) = ablated.experiments(ablated._chosen)
    assert project.find(one) is not None and not ablated.to_run()
    (copy / "pipeline" / "stage.py").write_text("print()\n")
    commit(copy, "code")
    assert [one.name for one in Ablation(copy, request(rows=("toy-base",))).to_run()] == ["toy-base-s0"]


def test_uncommitted_code_is_refused(committed: Path) -> None:
    path = committed / "params.yaml"
    path.write_text(PARAMS + "\n")
    try:
        with pytest.raises(UserError, match=r"params.yaml differs from the last commit; expected committed code"):
            Ablation(committed, request()).run(1)
    finally:
        path.write_text(PARAMS)


def test_mistakes_are_found_before_anything_runs(committed: Path) -> None:
    with pytest.raises(UserError, match=r"toy-base changes model\.asp, which is not in params\.yaml"):
        Ablation(committed, request(extra={"model.asp": False}))
    with pytest.raises(UserError, match=r"model\.depth_input is 'luck'"):
        Ablation(committed, request(extra={"model.depth_input": "luck"}))
    with pytest.raises(UserError, match="is not a git checkout with a commit"):
        Project(committed.parent)


def test_the_plan_names_the_stages_that_are_not_cached(committed: Path) -> None:
    plan = {one.name: stages for one, _, stages in Ablation(committed, request(seeds=(0, 1))).plan()}
    assert plan["toy-base-s0"] == []  # finished
    assert plan["toy-depth-s0"] == ["score"]  # the training of toy-no-tta-s0
    assert plan["toy-base-s1"] == ["train", "score"]
    assert plan["toy-no-tta-s1"] == ["score"]  # the training of toy-depth-s1


def test_runs_of_the_seeds_benchmark_count(committed: Path, tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "default-native-2t-0"
    (folder / "metrics").mkdir(parents=True)
    params = changed()
    del params["profiles"]["sample"]["train"]["skip_end"]  # its code had no such parameter
    params["runtime"]["workers"] = 7
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    assert find_benchmark_run(tmp_path, changed()) is None, "not finished yet"
    (folder / "metrics" / "per_object.csv").write_text(SCORES.format(0.25))
    assert find_benchmark_run(tmp_path, changed()) == folder / "metrics" / "per_object.csv"
    assert find_benchmark_run(tmp_path, changed(seed=1)) is None
    assert find_benchmark_run(tmp_path, changed(model__depth=False)) is None
    found = Ablation(committed, request(runs=tmp_path, rows=("toy-depth",)))
    (one,) = found.experiments(found._chosen)
    assert found.outcome(one).note == "benchmarks/seeds.py"


def test_stages_of_this_project() -> None:
    definition = yaml.safe_load((ROOT / "dvc.yaml").read_text())
    params = yaml.safe_load(PARAMS)
    stages = needed(expand(definition, "sample"))
    assert list(stages)[-1] == "score" and "report" not in stages
    assert {"render", "download@davis", "synthesize@coco", "depth@voc", "train_depth", "infer"} <= set(stages)

    def changes(**values: Any) -> set[str]:
        before, after = stage_keys(stages, params), stage_keys(stages, {**params, **values})
        return {name.partition("@")[0] for name in stages if before[name] != after[name]}

    assert changes(infer={**params["infer"], "tta": False}) == {"infer", "score"}
    assert changes(model={**params["model"], "aspp": False}) == {"pretrain", "train", "infer", "score"}
    assert changes(runtime={}) == set()


def wait(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=900)
    return output


def inside(folder: Path) -> list[int]:
    """Processes that work in a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cwd"):
        try:
            if path.readlink().is_relative_to(folder):
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def kill_everything(folder: Path, process: subprocess.Popen[str]) -> None:
    for number in inside(folder):
        os.kill(number, signal.SIGKILL)


def kill_alone(folder: Path, process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)


def terminate(folder: Path, process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGTERM)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/cwd").exists(), reason="finds its processes through /proc")
def test_killed_three_times_ends_with_the_same_table(tmp_path: Path) -> None:
    """Everything at once, the command alone (DVC continues), and by a signal (the stages are stopped as well)."""
    arguments = ("--set", "toy", "--seeds", "0", "1", "--jobs", "2")
    whole = make_project(tmp_path / "whole", seconds=1.0)
    output = wait(ablation(whole, *arguments))
    table = (whole / "metrics" / "ablation.json").read_bytes()
    assert len(json.loads(table)["sets"]["toy"]["rows"]) == 3, output

    killed = make_project(tmp_path / "killed", seconds=1.0)
    generator = random.Random()
    ways: list[Callable[[Path, subprocess.Popen[str]], None]] = [kill_everything, kill_alone, terminate]
    for way in ways:
        process = ablation(killed, *arguments)
        seconds = generator.uniform(1, 20)
        print(f"{way.__name__} after {seconds:.1f} s")
        time.sleep(seconds)
        way(killed, process)
        wait(process)
    output = wait(ablation(killed, *arguments))
    assert (killed / "metrics" / "ablation.json").read_bytes() == table, output
    assert "not run" not in (killed / "metrics" / "ablation.md").read_text()
    assert not inside(killed), "nothing is left running"
    names = run(killed, *DVC, "exp", "list", "--name-only").split()
    assert sorted(names) == sorted(f"toy-{row}-s{seed}" for row in ("base", "depth", "no-tta") for seed in (0, 1))


@pytest.mark.slow
def test_a_row_that_fails_is_shown_as_such(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    process = ablation(project, "--set", "toy", "broken", "--rows", "toy-base", "broken-*", "--seeds", "0")
    output = wait(process)
    assert process.returncode == 1
    assert output.splitlines()[-1].startswith("error: 1 of 2 rows did not finish; expected all of them")
    seeds = json.loads((project / "metrics" / "ablation.json").read_text())["sets"]["broken"]["rows"][0]["seeds"]
    assert seeds == {"0": {"unfinished": "failed: there is no luminance today; expected it; wait for it"}}
    text = (project / "metrics" / "ablation.md").read_text()
    assert "- luminance, seed 0: failed: there is no luminance today" in text
    assert "toy-base-s0: finished (experiment)" in wait(ablation(project, "--seeds", "0", "--set", "toy", "--dry-run"))
