"""The whole pipeline through DVC, at toy size, in a clone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import DVC, run, set_keys

ROOT = Path(__file__).resolve().parents[1]
FOREIGN = 0.25  # what the committed J&F has in excess of this machine's
TOY: dict[str, Any] = {
    "world.frame_height": 72,
    "world.frame_width": 128,
    "world.min_pixels": 20,
    "world.davis": {
        "train": {"single": 1, "multi": 1, "lookalike": 1},
        "val": {"single": 1, "multi": 1, "lookalike": 1},
        "frames": 6,
    },
    "world.youtubevos.train": {"single": 1, "multi": 1, "lookalike": 1},
    "world.youtubevos.frames": 6,
    "world.stills": {"msra10k": 4, "coco": 12, "voc": 4},
    "world.mannequin.train": {"single": 2, "multi": 2, "lookalike": 2},
    "world.mannequin.val": {"single": 1, "multi": 1, "lookalike": 1},
    "world.mannequin.train_frames": 2,
    "world.mannequin.val_frames": 2,
    "profiles.sample.synthesis.n_clips": 4,
    "profiles.sample.synthesis.short_side": 72,
    "profiles.sample.train_depth.epochs": 2,
    "profiles.sample.train_depth.frozen_epochs": 1,
    "profiles.sample.train_depth.batch": 4,
    "profiles.sample.network.width": 0.125,
    "profiles.sample.network.key_channels": 8,
    "profiles.sample.network.value_channels": 8,
    "profiles.sample.network.decoder_channels": 8,
    "profiles.sample.pretrain.epochs": 1,
    "profiles.sample.pretrain.steps_per_epoch": 2,
    "profiles.sample.training.batch": 2,
    "profiles.sample.training.clips.augment.crop": 48,
    "profiles.sample.train.epochs": 1,
    "profiles.sample.train.steps_per_epoch": 2,
}


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone of the working tree with toy parameters, reproduced; the committed J&F is that of another machine."""
    folder = tmp_path_factory.mktemp("toy") / "clone"
    files = run(ROOT, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    for name in files:
        if name and name != "dvc.lock" and not name.startswith("metrics/") and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((ROOT / name).read_bytes())
    set_keys(folder / "params.yaml", TOY)
    run(folder, "git", "init", "-q")
    run(folder, "git", "config", "user.name", "toy")
    run(folder, "git", "config", "user.email", "toy@example.org")
    run(folder, "git", "add", "-A")
    run(folder, "git", "commit", "-qm", "toy")
    make_repro(folder)
    path = folder / "metrics" / "scores.json"
    result = json.loads(path.read_text())
    path.write_text(json.dumps({**result, "J&F": result["J&F"] + FOREIGN}))
    run(folder, "git", "add", "-A")
    run(folder, "git", "commit", "-qm", "reproduced on another machine")
    make_repro(folder)
    return folder


def make_repro(folder: Path) -> None:
    """`make repro` where everything is installed."""
    run(folder, "make", "-o", "setup", "repro")


def scores(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "metrics" / "scores.json").read_text())
    return content


def difference(folder: Path, *base: str) -> float:
    """The change of J&F in the workspace, by `dvc metrics diff`."""
    changes = json.loads(run(folder, *DVC, "metrics", "diff", "--all", "--json", *base))
    return float(changes["metrics/scores.json"]["J&F"]["diff"])


def restore(folder: Path) -> None:
    """Back to the committed parameters, and to the results of this machine."""
    run(folder, "git", "checkout", "-q", "--", ".")
    make_repro(folder)


@pytest.mark.slow
def test_the_chain_leaves_everything(clone: Path) -> None:
    result = scores(clone)
    assert list(result) == ["J&F", "J", "F", "copy_first", "by_kind"]
    assert set(result["by_kind"]) == {"single", "multi", "lookalike"}
    assert 0 <= result["J&F"] <= 1 and 0 <= result["copy_first"]["J&F"] <= 1
    masks = clone / "data" / "sample" / "masks"
    assert sorted(len(list(sequence.iterdir())) for sequence in masks.iterdir()) == [6, 6, 6]
    for name in ("depth", "pretrain", "dstm"):
        assert (clone / "models" / "sample" / f"{name}.pt").is_file()
    for name in (
        "depth.json",
        "pretrain.csv",
        "train.csv",
        "per_object.csv",
        "report/by_kind.csv",
        "report/depth_stability.json",
    ):
        assert (clone / "metrics" / name).stat().st_size > 0
    assert list((clone / "metrics" / "report" / "pictures").iterdir())
    left = [path for path in (clone / ".scratch").rglob("*") if path.suffix in (".pt", ".zip", ".png")]
    assert not left, "resume state is removed once the outputs are written"


@pytest.mark.slow
def test_a_second_time_nothing_runs(clone: Path) -> None:
    assert "Running stage" not in run(clone, *DVC, "repro")


@pytest.mark.slow
def test_experiments(clone: Path) -> None:
    """A switch of inference in the workspace, one of the network in the queue, and their difference."""
    before = scores(clone)["J&F"]
    output = run(clone, *DVC, "exp", "run", "-n", "no-tta", "-S", "infer.tta=false")
    assert "Running stage 'infer'" in output and "Running stage 'train'" not in output
    after = scores(clone)["J&F"]
    assert difference(clone, "baseline") == pytest.approx(after - before, abs=1e-9)
    assert difference(clone) == pytest.approx(after - before - FOREIGN, abs=1e-9)  # the machines' difference as well
    restore(clone)
    run(clone, *DVC, "exp", "run", "--queue", "-n", "no-aspp", "-S", "model.aspp=false")
    run(clone, *DVC, "exp", "run", "--run-all")
    assert "no-aspp" in run(clone, *DVC, "exp", "show", "--csv")


@pytest.mark.slow
@pytest.mark.parametrize(
    "override,message",
    [
        ("profiles.sample.data.davis=/nowhere/DAVIS.zip", "/nowhere/DAVIS.zip"),
        ("profiles.sample.train.lr=fast", "profiles.sample.train.lr is 'fast' (str); expected a number"),
        ("profiles.sample.data.davis=README.md", "README.md"),
    ],
)
def test_bad_input_is_one_line(clone: Path, override: str, message: str) -> None:
    output = run(clone, *DVC, "exp", "run", "-S", override, fails=True)
    restore(clone)
    errors = [line for line in output.splitlines() if line.startswith("error:")]
    assert len(errors) == 1 and message in errors[0], output
    assert "Traceback" not in output
