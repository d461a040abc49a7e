"""What re-runs when: DVC itself is asked, on the project's own dvc.yaml with commands that only hash what they read."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
PARAMS = (ROOT / "params.yaml").read_text()  # once: the file may be edited while the tests run
STILLS = ("msra10k", "coco", "voc")
DATASETS = ("davis", "youtubevos", *STILLS, "mannequin", "challenge")
DEPTHS = {f"depth@{name}" for name in ("davis", "youtubevos", *STILLS, "challenge")}
SCORED = {"infer", "score", "report", "card"}
TRAINED = {"pretrain", "train", *SCORED}
ALL = {
    "render", "train_depth", *(f"download@{d}" for d in DATASETS), *(f"synthesize@{s}" for s in STILLS),
    *DEPTHS, *TRAINED,
}  # fmt: skip

HASHER = """
import hashlib, pathlib, sys, yaml
outs, deps, params = (part.split() for part in " ".join(sys.argv[1:]).split(" -- "))
state = hashlib.sha256()
for dep in deps:
    for path in sorted(p for p in [pathlib.Path(dep), *pathlib.Path(dep).rglob("*")] if p.is_file()):
        state.update(path.read_bytes())
for key in params:
    value = yaml.safe_load(open("params.yaml"))
    for part in key.split("."):
        value = value[part]
    state.update(repr(value).encode())
for out in outs:
    path = pathlib.Path(out)
    if path.suffix == "":
        subs = SUBFOLDERS if path.name == "embedded" else [""]
        for sub in subs:
            (path / sub).mkdir(parents=True, exist_ok=True)
            (path / sub / "file").write_text(state.hexdigest() + sub)
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"a\\n{state.hexdigest()}" if path.suffix == ".csv" else '{"a": "%s"}' % state.hexdigest())
""".replace("SUBFOLDERS", repr(list(DATASETS)))


def names(entries: list[Any]) -> list[str]:
    return [next(iter(entry)) if isinstance(entry, dict) else entry for entry in entries]


def hashing(stage: dict[str, Any]) -> dict[str, Any]:
    """The stage with a command that hashes its dependencies and parameters into its outputs."""
    outs = [name for key in ("outs", "metrics", "plots") for name in names(stage.get(key, []))]
    command = [outs, names(stage["deps"]), names(stage.get("params", []))]
    return {**stage, "cmd": f"{sys.executable} hasher.py " + " -- ".join(" ".join(part) for part in command)}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the pipeline's definition with hashing commands, reproduced once."""
    root = tmp_path_factory.mktemp("project")
    definition = yaml.safe_load((ROOT / "dvc.yaml").read_text())
    for name, stage in definition["stages"].items():
        if "do" in stage:
            stage["do"] = hashing(stage["do"])
        else:
            definition["stages"][name] = hashing(stage)
    (root / "dvc.yaml").write_text(yaml.safe_dump(definition, sort_keys=False))
    (root / "hasher.py").write_text(HASHER)
    (root / "params.yaml").write_text(PARAMS)
    shutil.copytree(ROOT / "pipeline", root / "pipeline", ignore=shutil.ignore_patterns("__pycache__"))
    run(root, "git", "init", "-q")
    run(root, *DVC, "init", "-q")
    assert reproduced(root) == ALL
    run(root, "git", "add", "-A")
    run(root, "git", "-c", "user.name=toy", "-c", "user.email=toy@example.org", "commit", "-qm", "reproduced")
    return root


DVC = (sys.executable, "-m", "dvc")


def run(root: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def reproduced(root: Path) -> set[str]:
    """Stages that `dvc repro` runs."""
    return set(re.findall(r"Running stage '([^']+)'", run(root, *DVC, "repro")))


def override(root: Path, **values: Any) -> None:
    """Set dotted keys (with __ for the dots) of params.yaml, from the committed values on."""
    params = yaml.safe_load(PARAMS)
    for dotted, value in values.items():
        *parents, last = dotted.split("__")
        place = params
        for key in parents:
            place = place[key]
        assert last in place and place[last] != value, f"{dotted} changes nothing"
        place[last] = value
    (root / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))


CASES: list[tuple[dict[str, Any], set[str]]] = [
    ({"model__resnest": False}, TRAINED),
    ({"model__depth": False}, TRAINED),
    ({"model__aspp": False}, TRAINED),
    ({"model__depth_input": "constant"}, TRAINED),
    ({"loss__lovasz": False}, TRAINED),
    ({"infer__tta": False}, SCORED),
    ({"profiles__sample__infer__memory_every": 7}, SCORED),
    ({"shared__infer__flip": False}, SCORED),
    ({"profiles__sample__train__lr": 1.0}, TRAINED - {"pretrain"}),
    ({"profiles__sample__training__clip_norm": 1.0}, TRAINED),
    ({"shared__training__beta1": 0.8}, TRAINED),
    (
        {"shared__synthesis__rotation": 1.0},
        {f"{stage}@{s}" for stage in ("synthesize", "depth") for s in STILLS} | TRAINED,
    ),
    ({"shared__live__blur": 0.5}, TRAINED),
    ({"shared__depth__percentile_low": 1.0}, DEPTHS | TRAINED),
    ({"profiles__sample__train_depth__epochs": 13}, {"train_depth"} | DEPTHS | TRAINED),
    ({"profiles__sample__data__davis": "x"}, {"download@davis", "depth@davis", "train", *SCORED}),
    ({"profiles__sample__data__challenge": "x"}, {"download@challenge", "depth@challenge", *SCORED}),
    ({"runtime__processes": 2}, set()),
    ({"runtime__workers": 5}, set()),
    ({"world__seed": 21}, ALL),
    ({"profiles__paper__train__lr": 1.0, "profiles__paper__infer__memory_every": 7}, set()),
]


@pytest.mark.slow
@pytest.mark.parametrize("values,expected", CASES, ids=[next(iter(values)) for values, _ in CASES])
def test_an_override_runs_what_depends_on_it(project: Path, values: dict[str, Any], expected: set[str]) -> None:
    override(project, **values)
    assert reproduced(project) == expected
    assert reproduced(project) == set()  # a second time nothing
    (project / "params.yaml").write_text(PARAMS)
    assert reproduced(project) == set()  # back again: the run cache has it


@pytest.mark.slow
def test_a_mistyped_switch_is_refused(project: Path) -> None:
    done = subprocess.run(
        [*DVC, "exp", "run", "--dry", "-S", "model.asp=false"], cwd=project, capture_output=True, text=True
    )
    assert done.returncode != 0 and "asp" in done.stdout + done.stderr


def test_every_parameter_reaches_a_stage_or_is_runtime() -> None:
    """A section that no stage lists could change a result without re-running anything.

    A stage that is set by a section of the profile is also set by the shared section of that name, if there is one.
    """
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    definition = yaml.safe_load((ROOT / "dvc.yaml").read_text())
    listed = set()
    for name, stage in definition["stages"].items():
        keys = {key.removesuffix(".${item}") for key in names(stage.get("do", stage).get("params", []))}
        listed |= keys
        sections = {key.removeprefix("profiles.${profile}.") for key in keys if key.startswith("profiles.")}
        shared = {key.removeprefix("shared.") for key in keys if key.startswith("shared.")}
        assert shared == sections & set(params["shared"]), f"{name} is set by shared {shared} and profile {sections}"
    free = {"profile", "runtime", "profiles", "shared"}
    sample, *others = params["profiles"].values()
    sections = set(params) - free | {f"shared.{name}" for name in params["shared"]}
    sections |= {f"profiles.${{profile}}.{name}" for name in sample}
    assert sections <= listed, sections - listed
    assert all(set(sample) == set(other) for other in others), "DVC wants every section in every profile"


def test_names_that_dvc_drops_from_its_hashes_are_not_used() -> None:
    """A key named size or nfiles inside a mapping is left out of the run cache's key (treeverse/dvc#10296)."""

    def keys(value: Any) -> set[str]:
        return set(value) | {k for v in value.values() for k in keys(v)} if isinstance(value, dict) else set()

    assert not keys(yaml.safe_load((ROOT / "params.yaml").read_text())) & {"size", "nfiles"}
