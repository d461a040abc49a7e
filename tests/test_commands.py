"""The commands in README and docs, as a reader would type them: each is known here and started in a fresh process."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from pipeline.core.images import encode_mask
from pipeline.settings import settings_of
from tests.support.tiny_archives import davis_files, make_toy, write_folder, youtubevos_files
from tests.support.tiny_footage import save_network
from tests.support.toy_inference import make_network

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "examples/README.md",
]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}

WITH_OPTIONS = (
    *("pipeline.ablation", "pipeline.convert", "pipeline.doctor", "pipeline.evaluate", "pipeline.export"),
    *("pipeline.report_page", "pipeline.segment"),
)
BENCHMARKS = tuple(
    f"benchmarks.{name}"
    for name in ("depth", "floor", "inference", "onnx_video", "readers", "scoring", "seeds", "synthesis", "training")
)
TESTED_ELSEWHERE = (
    "benchmarks.lite_gpu",
    "examples.make_clip",
    "examples.segment",
    "pipeline.launch",
    "pytest",
    "tests.fixtures.scoring.make",
)
DVC = (
    *("commit -f", "dag", "exp list", "exp pull", "exp push", "exp run", "exp show", "metrics diff", "metrics show"),
    *("params diff", "plots diff", "plots show", "pull", "push", "queue start", "remote add", "repro"),
)
OTHERS = ("source .venv/bin/activate", ".ci/run", "pip install", "git clone", "cd ", ".venv/bin/pre-commit install")


class Command(NamedTuple):
    """A command of a page, without environment variables and comments."""

    page: str
    words: tuple[str, ...]

    @property
    def line(self) -> str:
        return " ".join(self.words)


def commands() -> Iterator[Command]:
    """Lines of code blocks that call a program of this project, and the same between backticks."""
    for page in PAGES:
        if not page.exists():
            continue
        text = page.read_text().replace("\\\n", " ")
        quoted = re.findall(r"`((?:python -m|\.venv/bin/|dvc |make )[^`\n]*)`", text)
        indented = re.findall(r"^    (\S.*)$", text, re.MULTILINE)
        for line in (*indented, *quoted):
            line = re.sub(r"(^|\s)#.*", "", re.sub(r"^(\w+=\S+ +)+", "", line)).strip()
            if re.match(r"(\.venv/bin/)?(python3? -m|dvc|make|source|pip|\.ci/run|\.venv/bin/)\b", line):
                words = shlex.split(re.sub(r"^\.venv/bin/(python|dvc)\b", r"\1", line))
                yield Command(page.name, tuple(words))


COMMANDS = sorted(set(commands()))


def of_module(name: str) -> list[Command]:
    return [command for command in COMMANDS if command.words[:3] == ("python", "-m", name)]


def started(*arguments: str | Path) -> str:
    """Run a module in a process of its own; returns what it printed."""
    command = [sys.executable, "-m", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


def test_the_pages_have_commands() -> None:
    assert len(COMMANDS) > 30
    assert {command.page for command in COMMANDS} >= {
        "README.md",
        "scoring.md",
        "segment.md",
        "export.md",
        "results.md",
    }


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: f"{command.page}: {command.line}"[:90])
def test_every_command_is_known(command: Command) -> None:
    words = command.words
    if words[0] == "make":
        targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
        assert all(word in targets or "=" in word for word in words[1:]), f"no such target: {command.line}"
    elif words[0] == "dvc":
        assert any(command.line.startswith(f"dvc {known}") for known in DVC), f"not tried by any test: {command.line}"
    elif words[:2] == ("python", "-m"):
        known = {*WITH_OPTIONS, *BENCHMARKS, *TESTED_ELSEWHERE}
        assert words[2] in known, f"{words[2]} is started by no test: add it here"
    else:
        assert command.line.startswith(OTHERS), f"not known here: {command.line}"


def test_overrides_of_experiments_are_accepted() -> None:
    """`-S key=value`: the key exists, and the parameters with that value are accepted."""
    overrides = [
        (command, command.words[at + 1])
        for command in COMMANDS
        for at, word in enumerate(command.words)
        if word == "-S"
    ]
    assert len(overrides) >= 8
    content = yaml.safe_load((ROOT / "params.yaml").read_text())
    for command, override in overrides:
        dotted, value = override.split("=", 1)
        changed = deepcopy(content)
        *parents, last = dotted.split(".")
        place = changed
        for key in parents:
            assert key in place, f"{command.line}: no key {dotted}"
            place = place[key]
        assert last in place, f"{command.line}: no key {dotted}"
        place[last] = yaml.safe_load(value)
        settings_of(changed)


@pytest.mark.parametrize(
    "module", [*WITH_OPTIONS, *(pytest.param(name, marks=pytest.mark.slow) for name in BENCHMARKS)]
)
def test_help_names_the_options_of_the_pages(module: str) -> None:
    known = set(re.findall(r"--[a-z][a-z0-9-]*", started(module, "--help")))
    for command in of_module(module):
        used = {word.split("=")[0] for word in command.words if word.startswith("--")}
        assert used <= known, f"{command.page}: {command.line}: {used - known} unknown"


def test_evaluate_as_documented(tmp_path: Path) -> None:
    """Each command line for `evaluate`, on toy data: ROOT, TRUTH, DIR and files are replaced."""
    toys = {"bear": make_toy(4, 1)}
    masks = {f"bear/{t:05d}.png": encode_mask(mask) for t, mask in enumerate(toys["bear"].masks)}
    splits = {f"{year}/val": ["bear"] for year in (2016, 2017)}
    davis = write_folder(tmp_path / "davis", davis_files(toys, splits)) / "DAVIS"
    (davis / "ImageSets/2017/test-dev.txt").write_text("bear\n")
    every_fifth = {f"bear/{5 * t:05d}.png": data for t, data in enumerate(masks.values())}
    seen = {"bear": {"1": [f"{5 * t:05d}" for t in range(4)]}}
    places = {
        "TRUTH": write_folder(tmp_path / "truth", masks),
        "--davis": davis,
        "--youtubevos": write_folder(tmp_path / "youtubevos", youtubevos_files(toys, seen)),
        "masks": write_folder(tmp_path / "masks", masks),
        "fifth": write_folder(tmp_path / "fifth", every_fifth),
    }
    tried = 0
    for command in of_module("pipeline.evaluate"):
        words = list(command.words[3:])
        if "--results" not in words:  # a mention in the text
            continue
        for option in ("--davis", "--youtubevos"):
            if option in words:
                words[words.index(option) + 1] = str(places[option])
        words[words.index("--results") + 1] = str(places["fifth" if "--youtubevos" in words else "masks"])
        words = [str(places["TRUTH"]) if word == "TRUTH" else word for word in words]
        words = [str(tmp_path / word) if word.endswith(".zip") else word for word in words]
        started("pipeline.evaluate", *words)
        tried += 1
    assert tried >= 6
    assert (tmp_path / "out.zip").is_file()


@pytest.mark.slow
def test_export_in_a_fresh_process(tmp_path: Path) -> None:
    """Nothing that another test left in the process helps it."""
    checkpoint = save_network(tmp_path / "dstm.pt", make_network(depth=False))
    started("pipeline.export", checkpoint, tmp_path / "onnx", "--height", "64", "--width", "64")
    assert json.loads((tmp_path / "onnx" / "export.json").read_text())
    assert len(list((tmp_path / "onnx").glob("*.onnx"))) == 4
