"""Train profile lite on one GPU from three archives: several seeds or variants side by side, scored on real videos.

    python -m benchmarks.lite_gpu --data ARCHIVES --out RESULTS --smoke
    python -m benchmarks.lite_gpu --data ARCHIVES --out RESULTS --seeds 0 1 2 --minutes 4.0 2.5
    python -m benchmarks.lite_gpu --data ARCHIVES --out RESULTS --variants full no-lookalike no-real --steps 400 200

ARCHIVES holds DAVIS-2017-trainval-480p.zip, MSRA10K_Imgs_GT.zip, VOCtrainval_11-May-2012.tar and, where the package
is not installed, the ImageNet weights as lite0.pth. Every run is the project's own stages with profile lite: pretrain,
train, infer, score. The number of steps is given, or planned from steps timed while all runs are under way. A run that
is still training at its deadline ends there with the averaged weights it has. RESULTS gets summary.json, one
<run>.pt with float16 weights for each run, and logs.tar.gz with the curves, scores and logs.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import yaml

from pipeline import infer, pretrain, score, train
from pipeline.core.checkpoint import load_checkpoint, save_checkpoint
from pipeline.core.layout import Layout
from pipeline.core.runtime import log, pick_device
from pipeline.datasets.clips import Batch
from pipeline.download import run as download
from pipeline.dstm.checkpoint import KIND
from pipeline.dstm.network import Unrolled
from pipeline.settings import Settings, load_settings
from pipeline.sources.store import Store
from pipeline.training import stage
from pipeline.training.losses import Objective

ROOT = Path(__file__).resolve().parents[1]
ARCHIVES = {
    "davis": "DAVIS-2017-trainval-480p.zip",
    "msra10k": "MSRA10K_Imgs_GT.zip",
    "voc": "VOCtrainval_11-May-2012.tar",
}
PROFILE = "profiles.lite"
# What each variant changes of the recipe; `full` changes nothing.
VARIANTS: dict[str, dict[str, Any]] = {
    "full": {},
    "independent": {"shared.live.motion": "independent"},
    "no-lookalike": {"shared.live.lookalike": 0.0, "shared.live.distractors": 0, "shared.live.occluder": 0.0},
    "no-elastic": {"shared.live.elastic": 0.0},
    "no-camera": {f"shared.live.{key}": 0.0 for key in ("blur", "soft", "jpeg", "exposure", "jitter")},
    "no-real": {f"{PROFILE}.train.stills_share": 0.99},
    "no-ema": {f"{PROFILE}.training.ema_decay": 0.0},
    "small-crops": {f"{PROFILE}.training.clips.augment.crop": 208},
    "short-clips": {f"{PROFILE}.training.clips.n_frames": 3},
}  # fmt: skip
_TIMED = 40  # steps that are timed before a run is planned; the first half of them warms up
_SAFETY = 0.93  # share of the planned time that is used


@dataclass(frozen=True)
class Plan:
    """One run.

    Attributes:
        name: of its folder and results.
        seed: of weights and clips.
        changes: dotted keys of params.yaml and their values.
        steps: of pretraining and of main training; empty: planned from `minutes`.
        minutes: of pretraining and of main training; empty: as many as the steps take.
        workers: processes that prepare clips.
        device: `cuda` or `cpu`.
        weights: file for the float16 weights, written before anything is scored; empty: none.
        start: checkpoint of a pretraining to start main training from; empty: pretrain first.
        pretrain_only: end after pretraining.
        score: segment and score the real val sequences at the end.
    """

    name: str
    seed: int
    changes: dict[str, str]
    steps: tuple[int, ...]
    minutes: tuple[float, ...]
    workers: int
    device: str
    weights: str
    start: str
    pretrain_only: bool
    score: bool


class _Clock(Objective):
    """The project's losses, which note when each step is made and stop after some."""

    times: list[float]
    last: int

    def __call__(self, outcome: Unrolled, batch: Batch) -> dict[str, torch.Tensor]:
        if len(self.times) >= self.last:
            raise _EnoughError
        if batch.frames.device.type == "cuda" and len(self.times) in (self.last // 2, self.last - 1):
            torch.cuda.synchronize()
        self.times.append(time.monotonic())
        return super().__call__(outcome, batch)


class _EnoughError(Exception):
    pass


def prepare_data(archives: Path, work: Path) -> None:
    """Bring the archives where the stages look for them, as the download stage does."""
    settings = load_settings(ROOT / "params.yaml")
    data = settings.profiles["lite"].data
    data = replace(data, **{name: str(archives / file) for name, file in ARCHIVES.items()})
    layout = Layout(work, "lite")
    for name in ("davis", "youtubevos", "msra10k", "coco", "voc", "challenge"):
        if not layout.raw(name).exists():
            where = f"{PROFILE}.data"
            download(name, data, where, layout.embedded(name), layout.raw(name), Store(layout.store))


def write_params(folder: Path, plan: Plan) -> None:
    """The project's params.yaml with the plan's changes."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    own = {
        "profile": "lite",
        "seed": plan.seed,
        "model.depth": False,
        "runtime.device": plan.device,
        "runtime.workers": plan.workers,
    }
    for dotted, value in {**own, **plan.changes}.items():
        *parents, last = dotted.split(".")
        place = params
        for key in parents:
            place = place.setdefault(key, {})
        place[last] = value
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))


def run_job(folder: Path) -> None:
    """Run one plan's stages in its folder; called in a process of its own."""
    os.chdir(folder)
    torch.set_num_threads(2 if torch.cuda.is_available() else 1)
    plan = Plan(
        **{k: tuple(v) if isinstance(v, list) else v for k, v in json.loads(Path("plan.json").read_text()).items()}
    )
    settings, layout = load_settings(), Layout(Path.cwd(), "lite")
    rows: dict[str, Any] = {"name": plan.name, "seed": plan.seed}
    stages: list[tuple[str, Callable[[Settings, Layout], None]]] = [("pretrain", pretrain.run), ("train", train.run)]
    if plan.start:
        layout.model("pretrain").parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(plan.start, layout.model("pretrain"))
    for number, (name, run) in enumerate(stages):
        if (plan.start and name == "pretrain") or (plan.pretrain_only and name == "train"):
            continue
        deadline = time.monotonic() + 60 * plan.minutes[number] if plan.minutes else float("inf")
        steps = plan.steps[number] if plan.steps else _plan_steps(settings, layout, name, run, plan.minutes[number])
        start = time.monotonic()
        settings = _with_steps(settings, name, steps)
        if deadline < float("inf"):
            signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
            signal.alarm(max(1, int(deadline - start)))
        try:
            run(settings, layout)
            rows[f"{name}_steps"] = steps
        except KeyboardInterrupt:
            rows[f"{name}_steps"] = _take_state(settings, layout, name)
        signal.alarm(0)
        rows[f"{name}_seconds"] = round(time.monotonic() - start, 1)
    if plan.weights:
        _write_half(layout.model("pretrain" if plan.pretrain_only else "dstm"), Path(plan.weights))
    Path("row.json").write_text(json.dumps(rows))
    scored = [("pretrain", False)] if not plan.start else []
    scored += [("dstm", False), ("dstm", True)] if not plan.pretrain_only else []
    for name, tta in scored if plan.score else []:
        rows[f"J&F {name}{' with TTA' if tta else ''}"] = _score(settings, layout, name, tta)
        Path("row.json").write_text(json.dumps(rows))  # after each, so that a run that is ended shows what it has


def _write_half(checkpoint: Path, path: Path) -> None:
    """A checkpoint with its weights in float16."""
    loaded = load_checkpoint(checkpoint, KIND)
    half = {k: v.half() if v.is_floating_point() else v for k, v in loaded["state_dict"].items()}
    save_checkpoint(path, KIND, loaded["config"], half)


def _with_steps(settings: Settings, name: str, steps: int) -> Settings:
    """The settings with so many steps in a stage, in epochs of about a tenth."""
    params = settings.profile_params
    config = getattr(params, name)
    epochs = min(10, steps)
    warmup = min(config.warmup_steps, max(1, steps // 10))
    config = replace(config, epochs=epochs, steps_per_epoch=max(1, steps // epochs), warmup_steps=warmup)
    return replace(settings, profiles={**settings.profiles, "lite": replace(params, **{name: config})})


def _plan_steps(
    settings: Settings, layout: Layout, name: str, run: Callable[[Settings, Layout], None], minutes: float
) -> int:
    """Steps that fit into `minutes`, from some that are timed."""
    start = time.monotonic()
    clock = type("_Timed", (_Clock,), {"times": [], "last": _TIMED})
    original = stage.Objective
    stage.Objective = clock  # type: ignore[misc]
    try:
        run(_with_steps(settings, name, 10 * _TIMED), layout)
    except _EnoughError:
        pass
    finally:
        stage.Objective = original  # type: ignore[misc]
    times = clock.times  # type: ignore[attr-defined]
    rate = (len(times) - 1 - len(times) // 2) / (times[-1] - times[len(times) // 2])
    left = 60 * minutes - (time.monotonic() - start)
    steps = max(10, int(_SAFETY * rate * left))
    log(f"{name}: {rate:.2f} steps/s, {steps} steps planned for {left:.0f} s")
    return steps


def _take_state(settings: Settings, layout: Layout, name: str) -> int:
    """Write the checkpoint of a stage that was stopped, from its saved state; returns the steps it made."""
    state_path = max(layout.scratch(name).rglob("state.pt"), key=lambda path: path.stat().st_mtime)
    state = load_checkpoint(state_path, "dstm-training")
    average = {k.removeprefix("module."): v for k, v in state["average"].items() if k.startswith("module.")}
    params = settings.profile_params
    target = layout.model("pretrain" if name == "pretrain" else "dstm")
    config = stage.to_plain(settings.model, params.network)
    save_checkpoint(target, KIND, config, average or state["state_dict"])
    log(f"{name}: stopped at its deadline after {state['step']} steps")
    return int(state["step"])


def _score(settings: Settings, layout: Layout, name: str, tta: bool) -> dict[str, float]:
    """J&F of a checkpoint on the three real val sequences, and by sequence."""
    config, device = settings.profile_params.infer, pick_device(settings.runtime.device)
    masks, metrics = layout.data / f"masks-{name}-{tta}", layout.root / f"metrics-{name}-{tta}"
    switches, raw = replace(settings.infer, tta=tta), layout.raw("davis")
    scratch, start = layout.scratch(f"infer-{name}-{tta}"), time.monotonic()
    infer.run(raw, layout.depth("davis"), layout.model(name), masks, scratch, switches, config, device, 2)
    seconds = time.monotonic() - start
    score.run(raw, masks, config.split, metrics, 2)
    scores = json.loads((metrics / "scores.json").read_text())
    log(f"{name}, tta {tta}: J&F {scores['J&F']:.4f} in {seconds:.1f} s")
    return {"all": scores["J&F"], **{k: v["J&F"] for k, v in scores.get("by_sequence", {}).items()}}


def run_all(plans: list[Plan], work: Path, out: Path, at_a_time: int) -> None:
    """Run plans side by side, each in a process of its own, and gather what they give."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "2", "PYTHONUNBUFFERED": "1"}
    waiting, running = list(plans), list[tuple[Plan, Path, subprocess.Popen[bytes]]]()
    while waiting or running:
        while waiting and len(running) < at_a_time:
            plan = waiting.pop(0)
            folder = work / plan.name
            shutil.rmtree(folder, ignore_errors=True)
            (folder / "data" / "lite").mkdir(parents=True)
            (folder / "data" / "lite" / "raw").symlink_to(work / "data" / "lite" / "raw")
            write_params(folder, plan)
            (folder / "plan.json").write_text(json.dumps(asdict(plan)))
            with open(folder / "log.txt", "wb") as file:
                command = [sys.executable, "-m", "benchmarks.lite_gpu", "--job", str(folder)]
                running.append(
                    (plan, folder, subprocess.Popen(command, stdout=file, stderr=file, env=environment, cwd=ROOT))
                )
        time.sleep(2.0)
        for entry in [entry for entry in running if entry[2].poll() is not None]:
            running.remove(entry)
            print(json.dumps(read_row(entry[0], entry[1])), flush=True)
        rows = [read_row(plan, work / plan.name) for plan in plans]
        (out / "summary.json").write_text(json.dumps(rows, indent=1))
        gather_logs(plans, work, out)


def read_row(plan: Plan, folder: Path) -> dict[str, Any]:
    """What a run has given so far, or the end of its log."""
    if (folder / "row.json").exists():
        row: dict[str, Any] = json.loads((folder / "row.json").read_text())
        return row
    text = (folder / "log.txt").read_text() if (folder / "log.txt").exists() else "not started"
    return {"name": plan.name, "log": text[-1500:]}


def gather_logs(plans: list[Plan], work: Path, out: Path) -> None:
    """Curves, scores, parameters and logs of all runs in one archive."""
    with tarfile.open(out / "logs.tar.gz", "w:gz") as archive:
        for plan in plans:
            folder = work / plan.name
            for pattern in ("log.txt", "params.yaml", "row.json", "metrics*/*"):
                for path in sorted(folder.glob(pattern)):
                    archive.add(path, arcname=f"{plan.name}/{path.relative_to(folder)}")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of the three archives")
    parser.add_argument("--out", type=Path, help="folder for the results")
    parser.add_argument("--work", type=Path, default=Path("/tmp/lite"), help="folder for everything else")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--variants", nargs="+", choices=sorted(VARIANTS), default=["full"])
    parser.add_argument("--steps", type=int, nargs=2, default=[], help="of pretraining and main training")
    parser.add_argument("--minutes", type=float, nargs=2, default=[], help="of pretraining and main training")
    parser.add_argument("--at-a-time", type=int, default=0, help="runs side by side; 0: all")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="further changes of params.yaml")
    parser.add_argument("--workers", type=int, default=0, help="of a run; 0: the cores shared out")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--no-weights", action="store_true", help="keep the scores and logs alone")
    parser.add_argument("--start", type=Path, help="checkpoint of a pretraining; main training alone is run")
    parser.add_argument("--pretrain-only", action="store_true", help="end after pretraining")
    parser.add_argument("--no-scores", action="store_true", help="score nothing")
    parser.add_argument("--smoke", action="store_true", help="measure speed and memory for some batch sizes")
    parser.add_argument("--job", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.job:
        run_job(args.job)
        return
    if bool(args.steps) == bool(args.minutes) and not args.smoke:
        parser.error("give either --steps or --minutes")
    args.out.mkdir(parents=True, exist_ok=True)
    prepare_data(args.data.resolve(), args.work)
    changes: dict[str, Any] = {key: yaml.safe_load(value) for key, value in (item.split("=", 1) for item in args.set)}
    if (args.data / "lite0.pth").exists():
        changes[f"{PROFILE}.network.pretrained"] = str((args.data / "lite0.pth").resolve())
    if args.smoke:
        from benchmarks.lite_smoke import smoke

        smoke(args.work, args.device, changes)
        return
    names = [(v, s) for v in args.variants for s in args.seeds]
    at_a_time = args.at_a_time or len(names)
    workers = args.workers or max(1, ((os.cpu_count() or 1) - at_a_time) // at_a_time)
    plans = [
        Plan(
            f"{v}-{s}", s, {**changes, **VARIANTS[v]}, tuple(args.steps), tuple(args.minutes), workers, args.device,
            "" if args.no_weights else str(args.out.resolve() / f"{v}-{s}{'-pretrain' * args.pretrain_only}.pt"),
            str(args.start.resolve()) if args.start else "", args.pretrain_only, not args.no_scores,
        )
        for v, s in names
    ]  # fmt: skip
    run_all(plans, args.work, args.out, at_a_time)


if __name__ == "__main__":
    main()
