"""The five commands of README that compare two experiments, and sharing them, through DVC on toy stages."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tests.support.commands import DVC, run
from tests.support.toy_ablation import ROOT, commit, make_project


def block_after(page: str, sentence: str) -> list[str]:
    """The lines of the first code block after a sentence of a page."""
    text = (ROOT / page).read_text()
    assert sentence in text, f"{page} has no {sentence!r}"
    found = re.search(r"\n\n((?:    \S.*\n)+)", text[text.index(sentence) :])
    assert found is not None
    return [line.strip() for line in found[1].splitlines()]


def as_words(line: str) -> list[str]:
    assert line.startswith(".venv/bin/dvc ")
    return [*DVC, *shlex.split(line, comments=True)[1:]]


def test_readme_and_docs_show_the_same_commands() -> None:
    readme = block_after("README.md", "ablation by hand")
    docs = [line.partition("#")[0].strip() for line in block_after("docs/ablation.md", "## Two rows by hand")]
    assert len(readme) == 5 and docs == readme


@pytest.mark.slow
def test_one_ablation_in_five_commands(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    run(project, *DVC, "repro")
    commit(project, "reproduced")  # metrics are in git
    run(project, *DVC, "exp", "save", "--quiet", "--force", "--name", "baseline")
    first, params, metrics, show, plots = (as_words(line) for line in block_after("README.md", "ablation by hand"))
    assert "Running stage 'train'" in run(project, *first)
    shown = [line.split() for line in block_after("README.md", "`dvc params diff` prints")]
    assert [line.split() for line in run(project, *params).splitlines() if line.strip()] == shown
    lines = [line.split() for line in run(project, *metrics).splitlines() if line.strip()]
    assert lines[0] == ["Path", "Metric", "baseline", "no-depth", "Change"]
    assert lines[1][:2] == ["metrics/scores.json", "J&F"]
    before, after, change = map(float, lines[1][2:])
    assert change == pytest.approx(after - before, abs=1e-4) and change != 0
    table = run(project, *show)
    assert "baseline" in table and "no-depth" in table and "model.depth" in table and "model.aspp" not in table
    run(project, *plots)
    assert "no-depth" in (project / "dvc_plots" / "index.html").read_text()


@pytest.mark.slow
def test_experiments_are_shared_through_remotes(tmp_path: Path) -> None:
    project, other = make_project(tmp_path / "project"), tmp_path / "other"
    run(project, *DVC, "remote", "add", "-q", "-d", "storage", str(tmp_path / "storage"))
    commit(project, "a remote")
    run(tmp_path, "git", "clone", "-q", "--bare", str(project), str(tmp_path / "origin.git"))
    run(project, "git", "remote", "add", "origin", str(tmp_path / "origin.git"))
    run(project, *DVC, "exp", "run", "--temp", "-n", "t2-4-depth-s0", "-S", "seed=0")
    run(project, *DVC, "exp", "push", "origin", "t2-4-depth-s0")
    run(tmp_path, "git", "clone", "-q", str(tmp_path / "origin.git"), str(other))
    assert "t2-4-depth-s0" in run(other, *DVC, "exp", "list", "origin")
    run(other, *DVC, "exp", "pull", "origin", "t2-4-depth-s0")
    run(other, *DVC, "exp", "apply", "t2-4-depth-s0")
    for path in ("models/net.txt", "metrics/per_object.csv"):
        assert (other / path).is_file()
