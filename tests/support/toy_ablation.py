"""A project of three quick stages whose scores depend on parameters alone, to run ablations through DVC in seconds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support.commands import DVC, run

ROOT = Path(__file__).resolve().parents[2]
PARAMS = (ROOT / "params.yaml").read_text()  # once: the file may be edited while the tests run

STAGE = """
import hashlib, json, pathlib, sys, time, yaml
name, seconds = sys.argv[1], float(sys.argv[2])
params = yaml.safe_load(open("params.yaml"))
if params["model"]["depth_input"] == "luminance":
    raise SystemExit("error: there is no luminance today; expected it; wait for it")
time.sleep(seconds)
if name == "train":
    used = [params["seed"], params["model"], params["loss"]]
    pathlib.Path("models").mkdir(exist_ok=True)
    pathlib.Path("models/net.txt").write_text(json.dumps(used))
else:
    state = pathlib.Path("models/net.txt").read_text() + json.dumps(params["infer"])
    rows = ["sequence,object,kind,J-mean,F-mean,J&F,copy_first_J&F"]
    for sequence, kind in (("single-0", "single"), ("multi-0", "multi"), ("lookalike-0", "lookalike")):
        for number in (1, 2):
            value = int(hashlib.sha256(f"{state}{sequence}{number}".encode()).hexdigest()[:6], 16) / 2**24
            rows.append(f"{sequence},{number},{kind},{value:.6f},{value:.6f},{value:.6f},0.25")
    pathlib.Path("metrics").mkdir(exist_ok=True)
    pathlib.Path("metrics/per_object.csv").write_text("\\n".join(rows) + "\\n")
    values = [float(row.split(",")[5]) for row in rows[1:]]
    pathlib.Path("metrics/scores.json").write_text(json.dumps({"J&F": sum(values) / len(values)}))
"""

DEFINITION = """
stages:
  train:
    cmd: {python} pipeline/stage.py train {seconds}
    deps:
    - pipeline/stage.py
    params:
    - seed
    - model
    - loss
    outs:
    - models
  score:
    cmd: {python} pipeline/stage.py score 0
    deps:
    - pipeline/stage.py
    - models
    params:
    - infer
    metrics:
    - metrics/scores.json:
        cache: false
    plots:
    - metrics/per_object.csv:
        cache: false
"""

ROWS = """
toy:
  title: Toy rows
  compare: previous
  rows:
    toy-base:
      title: without depth
      paper: 0.7
      set:
        model.depth: false
    toy-depth:
      title: with depth
      paper: 0.75
      set: {}
    toy-no-tta:
      title: without TTA
      set:
        infer.tta: false
broken:
  title: A row that fails
  compare: first
  rows:
    broken-luminance:
      title: luminance
      set:
        model.depth_input: luminance
"""


def make_project(folder: Path, seconds: float = 0.0, dvc: bool = True) -> Path:
    """Write and commit the project.

    Args:
        folder: for it; created.
        seconds: that the training stage sleeps.
        dvc: whether `dvc init` is run.
    """
    for name, text in {
        "params.yaml": PARAMS,
        "dvc.yaml": DEFINITION.format(python=sys.executable, seconds=seconds),
        "ablations.yaml": ROWS,
        "pipeline/stage.py": STAGE,
        ".gitignore": "/models\n/.scratch/\n",
    }.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    run(folder, "git", "init", "-q")
    run(folder, "git", "config", "user.name", "toy")
    run(folder, "git", "config", "user.email", "toy@example.org")
    if dvc:
        run(folder, *DVC, "init", "-q")
    commit(folder, "toy")
    return folder


def commit(folder: Path, message: str) -> str:
    """Commit everything; the commit's id."""
    run(folder, "git", "add", "-A")
    run(folder, "git", "commit", "-q", "--allow-empty", "-m", message)
    return run(folder, "git", "rev-parse", "HEAD").strip()


def ablation(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start `python -m pipeline.ablation` of this code base in the toy project."""
    start = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from pipeline.ablation import main, run_main; "
    start += "raise SystemExit(run_main(main))"
    return subprocess.Popen(
        [sys.executable, "-c", start, *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
