"""The code that a stage depends on in `dvc.yaml` is the code that it imports, directly or not, no more and no less."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.reached import ROOT, imported, reached

# What a stage reaches and need not list, since it cannot change what the stage writes.
NEUTRAL = {
    "pipeline/settings.py": "parameters reach a stage through its params",
    "pipeline/launch.py": "starts the stage in one process or several, which give the same result",
    "pipeline/core/errors.py": "the type of an error that is shown as one line",
    "pipeline/core/params.py": "checks parameters, whose values are among the stage's params",
    "pipeline/core/layout.py": "paths, which dvc.yaml names too",
    "pipeline/core/files.py": "writes the bytes it is given",
    "pipeline/core/archives.py": "stores members and gives them back as they are",
    "pipeline/core/archive_index.py": "keeps the positions of an archive's members",
    "pipeline/core/manifest.py": "says which files a data set has; they are dependencies themselves",
    "pipeline/core/members.py": "finds the members of an archive by position",
    "pipeline/core/plain_names.py": "hides an operating system's own files; the data keeps its names",
    "pipeline/core/references.py": "finds a file that is read in place, and checks that it is still the same",
    "pipeline/core/checkpoint.py": "stores weights and gives them back as they are",
    "pipeline/core/processes.py": "distributes work over processes, which give the same result for any number",
    "pipeline/core/resume.py": "stores the state of a training and gives it back as it was",
    "pipeline/core/signals.py": "stops a run, whose state is saved",
    "pipeline/core/runtime.py": "logs, devices, locks and the names of resume states",
    "pipeline/core/usage.py": "records time and memory beside the resume states",
    "pipeline/core/threads.py": "reads ahead and writes behind, in order",
    "pipeline/sources": "fetches a file as it is and checks its digest",
}
# Parameters reach a stage through its params, so the dataclasses that settings.py imports are not code of every stage.
STOP = frozenset({"pipeline/settings.py"})


def instances() -> dict[str, dict[str, Any]]:
    """Every stage of dvc.yaml, those of a foreach one by one with their templates filled in."""
    found = {}
    for name, stage in yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"].items():
        items = stage.get("foreach", {"": ""})
        pairs = items.items() if isinstance(items, dict) else ((item, item) for item in items)
        for key, item in pairs:
            text = yaml.safe_dump(stage.get("do", stage)).replace("${key}", str(key))
            if isinstance(item, dict):
                for field, value in item.items():
                    text = text.replace(f"${{item.{field}}}", str(value))
            found[f"{name}@{key}" if key else name] = yaml.safe_load(text.replace("${item}", str(item)))
    return found


STAGES = instances()


def files(entries: list[str] | dict[str, str]) -> set[str]:
    """The modules among paths and, of folders, in them; empty `__init__.py` are left out."""
    found = set()
    for entry in entries:
        path = ROOT / entry
        found |= {p for p in ([path] if path.is_file() else path.rglob("*.py")) if p.name != "__init__.py"}
    return {path.relative_to(ROOT).as_posix() for path in found}


def listed(stage: dict[str, Any]) -> list[str]:
    return [dep for dep in stage["deps"] if dep.startswith("pipeline")]


def run_by(stage: dict[str, Any]) -> set[str]:
    """What the modules that the command names reach."""
    modules = [f"pipeline/{name}.py" for name in re.findall(r"\bpipeline\.(\w+)", stage["cmd"])]
    return set().union(*(reached(module, STOP) for module in modules))


def group(name: str) -> str:
    return name.partition("@")[0]


@pytest.mark.parametrize("name", sorted({group(name) for name in STAGES}))
def test_a_stage_lists_what_it_reaches(name: str) -> None:
    """Of a foreach stage: what its module reaches is listed by one at least, and each lists nothing else."""
    stages = [stage for stage_name, stage in STAGES.items() if group(stage_name) == name]
    wanted = set().union(*map(run_by, stages))
    given = set().union(*(files(listed(stage)) for stage in stages))
    missing, too_many = wanted - given - files(NEUTRAL), given - wanted
    assert not missing, f"dvc.yaml: {name} reaches and does not list {', '.join(sorted(missing))}"
    assert not too_many, f"dvc.yaml: {name} lists and does not reach {', '.join(sorted(too_many))}"


@pytest.mark.parametrize("name", sorted(STAGES))
def test_a_stage_lists_each_path_once(name: str) -> None:
    deps = listed(STAGES[name])
    assert len(set(deps)) == len(deps)
    for dep in deps:
        assert not any(dep.startswith(f"{other}/") for other in deps), f"{name}: {dep} is in a folder that is listed"


def test_neutral_modules_exist_and_reach_only_neutral_ones() -> None:
    """A neutral module that used another one would hide it."""
    for path in NEUTRAL:
        assert (ROOT / path).exists(), path
    for module in files(NEUTRAL) - STOP - {"pipeline/launch.py"}:
        others = {path for path in imported(module) if Path(path).name != "__init__.py"}
        assert others <= files(NEUTRAL), module


def test_imports_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole modules, names in modules, imports inside functions; not those of annotations, nor other packages."""
    monkeypatch.setattr("tests.support.reached.ROOT", tmp_path)
    for name, text in {
        "a.py": "import os\nfrom pipeline.b import x\ndef f():\n    import pipeline.rooms.c\n",
        "b.py": "if TYPE_CHECKING:\n    from pipeline.rooms.d import Y\n",
        "rooms/__init__.py": "",
        "rooms/c.py": "from pipeline.rooms import e\n",
        "rooms/d.py": "",
        "rooms/e.py": "import pipeline.a\n",
    }.items():
        path = tmp_path / "pipeline" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    imported.cache_clear()
    found = reached("pipeline/a.py")
    stopped = reached("pipeline/a.py", frozenset({"pipeline/b.py", "pipeline/rooms/c.py"}))
    imported.cache_clear()
    assert found == {f"pipeline/{name}.py" for name in ("a", "b", "rooms/c", "rooms/e")}
    assert stopped == {f"pipeline/{name}.py" for name in ("a", "b", "rooms/c")}
