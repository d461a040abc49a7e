"""How much the sample's results vary over seeds and kinds of CPU.

    python -m benchmarks.seeds --stages depth --seeds 0 1 2 3 4 --isa native,AVX2   # the depth network alone
    python -m benchmarks.seeds --seeds 0 1 2 3 4                                    # from train_depth to the scores
    python -m benchmarks.seeds --table                                              # what has been run so far
    python -m benchmarks.seeds --stages depth --name no-ema --set train_depth.ema_decay=0   # another recipe

Every run has a working folder of its own below `--out`, with its own params.yaml, models and metrics, and calls the
stages' modules there without DVC. A seed sets both the top-level `seed` and `train_depth.seed`. The data (render,
download, synthesize) is made once and shared; it depends on no seed. A finished stage is not run again, and a finished
run stays as one JSON file in `OUT/results`, so an interrupted benchmark continues where it stopped.

`--isa` emulates older CPUs: it limits the instructions of oneDNN (ONEDNN_MAX_CPU_ISA) and of torch's own kernels
(ATEN_CPU_CAPABILITY). Each of `--jobs` parallel runs is bound to `--threads` cores of its own where there are enough.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import yaml

from pipeline.core.errors import UserError
from pipeline.core.files import write_json
from pipeline.core.runtime import digest, log, run_main
from pipeline.depth import DATASETS
from pipeline.settings import load_settings

ROOT = Path(__file__).resolve().parents[1]
STILLS = ("msra10k", "coco", "voc")
PREPARATION = (
    ("render",),
    *(("download", name) for name in ("davis", "youtubevos", *STILLS, "mannequin", "challenge")),
    *(("synthesize", name) for name in STILLS),
)
DEPTH = (("train_depth",),)
ALL = (*DEPTH, *(("depth", name) for name in DATASETS), ("pretrain",), ("train",), ("infer",), ("score",))
ATEN = {"native": None, "SSE41": "default", "AVX": "default"}  # the others, from AVX2 on: avx2
COLUMNS = ("si_rmse", "ordered_pairs", "all", "single", "multi", "lookalike")


@dataclass(frozen=True)
class Run:
    """One training of the sample.

    Attributes:
        name: of the recipe, to tell runs with other parameters apart.
        isa: `native`, or the newest instructions that may be used (`AVX2`, `AVX512_CORE`, ...).
        threads: cores.
        seed: of both trainings.
    """

    name: str
    isa: str
    threads: int
    seed: int

    @property
    def label(self) -> str:
        """Name of its files."""
        return f"{self.name}-{self.isa}-{self.threads}t-{self.seed}"


def environment(isa: str, threads: int) -> dict[str, str]:
    """Variables that limit instructions and threads.

    Args:
        isa: as `Run.isa`.
        threads: of one run.
    """
    values = {"OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(ROOT)}
    if isa != "native":
        values |= {"ONEDNN_MAX_CPU_ISA": isa, "ATEN_CPU_CAPABILITY": ATEN.get(isa) or "avx2"}
    return values


def set_parameter(content: dict[str, Any], key: str, value: Any) -> None:
    """Change one existing parameter of the active profile.

    Args:
        content: params.yaml; changed in place.
        key: dotted path from the profile (`train_depth.epochs`), from `shared`, or from the top (`world.seed`).
        value: the new value.

    Raises:
        UserError: no such parameter.
    """
    *path, last = key.split(".")
    for section in (content["profiles"][content["profile"]], content["shared"], content):
        for part in path:
            section = section.get(part, {}) if isinstance(section, dict) else {}
        if isinstance(section, dict) and last in section:
            section[last] = value
            return
    raise UserError(f"{key} is not a parameter of the profile; expected a dotted key of params.yaml; correct --set")


def parameters(changes: Sequence[str], seed: int | None) -> dict[str, Any]:
    """The content of params.yaml with some changes.

    Args:
        changes: `KEY=VALUE`, the value in YAML.
        seed: of both trainings; None: as in the file.

    Raises:
        UserError: a change is not of this form or names no parameter.
    """
    content: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text())
    for change in changes:
        key, sign, value = change.partition("=")
        if not sign:
            raise UserError(f"--set is given {change!r}; expected KEY=VALUE; correct it")
        set_parameter(content, key, yaml.safe_load(value))
    if seed is not None:
        content["seed"] = seed
        set_parameter(content, "train_depth.seed", seed)
    return content


def run_stages(
    folder: Path,
    content: dict[str, Any],
    stages: Sequence[Sequence[str]],
    variables: Mapping[str, str],
    cores: set[int],
    key: str,
) -> dict[str, float]:
    """Run stages in a working folder; those that finished there before are left out.

    Args:
        folder: the working folder; params.yaml, `log.txt` and `seconds.json` are written there.
        content: of params.yaml.
        stages: module below `pipeline` and arguments of each stage, in order.
        variables: added to the environment.
        cores: that the stages may use; empty: all.
        key: digest of the parameters that matter; stages that finished under another are not taken over.

    Returns:
        Seconds of each stage.

    Raises:
        UserError: a stage failed, or the folder was used with other parameters.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "params.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    load_settings(folder / "params.yaml")
    record = folder / "seconds.json"
    found: dict[str, Any] = json.loads(record.read_text()) if record.exists() else {"parameters": key}
    if found.pop("parameters") != key:
        raise UserError(f"{folder} was used with other parameters; expected the same; give another --name or --out")
    seconds: dict[str, float] = found
    command = ["taskset", "-c", ",".join(map(str, sorted(cores)))] if cores else []
    for stage in stages:
        name = " ".join(stage)
        if name in seconds:
            continue
        start = time.monotonic()
        with open(folder / "log.txt", "a") as output:
            code = subprocess.run(
                [*command, sys.executable, "-m", f"pipeline.{stage[0]}", *stage[1:]],
                cwd=folder,
                env={**os.environ, **variables},
                stdout=output,
                stderr=subprocess.STDOUT,
            ).returncode
        if code:
            lines = (folder / "log.txt").read_text().splitlines() or ["no output"]
            raise UserError(f"{name} failed in {folder} ({lines[-1][:200]}); read log.txt there and run again")
        seconds[name] = round(time.monotonic() - start, 1)
        write_json(record, {"parameters": key, **seconds})
    return seconds


def prepare_data(out: Path, changes: Sequence[str], whole: bool, simulated: Path | None) -> Path:
    """Make the data once for all runs whose parameters give the same.

    Args:
        out: folder of the benchmark.
        changes: to params.yaml.
        whole: the data of all stages, else that of the depth network alone.
        simulated: folder of simulated clips that were made elsewhere; None: they are made here.

    Returns:
        The working folder that holds it.

    Raises:
        UserError: `simulated` does not have a folder for each set of stills.
    """
    content = parameters(changes, None)
    profile = content["profiles"][content["profile"]]
    parts = (content["world"], profile["data"], profile["synthesis"], content["shared"]["synthesis"])
    folder = out / f"data-{digest(parts)[:8]}"
    stages = [stage for stage in PREPARATION if whole or stage in (("render",), ("download", "mannequin"))]
    if simulated is not None and whole:
        if not all((simulated / name).is_dir() for name in STILLS):
            raise UserError(
                f"{simulated} lacks one of {', '.join(STILLS)}; expected clips of each; correct --simulated"
            )
        stages = [stage for stage in stages if stage[0] != "synthesize"]
        link = folder / "data" / content["profile"] / "simulated"
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.is_symlink():
            link.symlink_to(simulated.resolve(), target_is_directory=True)
    content["runtime"]["workers"] = os.cpu_count() or 1
    # the key of what was made before: other parameters of training change no data
    run_stages(folder, content, stages, {"PYTHONPATH": str(ROOT)}, set(), digest(parts))
    return folder


def execute(run: Run, out: Path, data: Path, changes: Sequence[str], whole: bool, cores: set[int]) -> None:
    """Run one training to its result file.

    Args:
        run: which.
        out: folder of the benchmark.
        data: working folder with the data.
        changes: to params.yaml.
        whole: all stages, else the depth network alone.
        cores: to use; empty: all.
    """
    result = out / "results" / f"{run.label}.json"
    if result.exists() and (not whole or "all" in json.loads(result.read_text())):
        log(f"{run.label}: finished before")
        return
    content = parameters(changes, run.seed)
    folder, profile = out / "runs" / run.label, content["profile"]
    for part in ("raw", "simulated"):
        link = folder / "data" / profile / part
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.is_symlink():
            link.symlink_to((data / "data" / profile / part).resolve(), target_is_directory=True)
    seconds = run_stages(
        folder, content, ALL if whole else DEPTH, environment(run.isa, run.threads), cores, digest(content)
    )
    figures = json.loads((folder / "metrics" / "depth.json").read_text())
    found = {key: figures[key] for key in ("si_rmse", "ordered_pairs")}
    if whole:
        scores = json.loads((folder / "metrics" / "scores.json").read_text())
        found |= {"all": scores["J&F"], **scores["by_kind"]}
        shutil.rmtree(folder / "data" / profile / "depth")
    write_json(result, {**asdict(run), "cpu": _cpu(), **found, "seconds": seconds})
    log(f"{run.label}: " + ", ".join(f"{key} {found[key]:.4f}" for key in COLUMNS if key in found))


def _cpu() -> str:
    """Name of the CPU, as Linux knows it."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """Mean, standard deviation and range of each group of runs, and of all runs of a recipe, as Markdown.

    Args:
        results: contents of the result files.
    """
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for result in results:
        recipe, cpu = str(result["name"]), f"{result['isa']} on {result['cpu']}, {result['threads']} threads"
        groups.setdefault((recipe, cpu), []).append(result)
    for recipe in dict.fromkeys(name for name, _ in groups):
        parts = [runs for (name, _), runs in groups.items() if name == recipe]
        if len(parts) > 1:
            groups[recipe, "all"] = [run for runs in parts for run in runs]
    lines = [
        "| recipe | CPU | metric | runs | mean | sd | min | max |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for (recipe, cpu), runs in sorted(groups.items()):
        for column in COLUMNS:
            values = [float(run[column]) for run in runs if run.get(column) is not None]
            if values:
                spread = f"{stdev(values):.3f}" if len(values) > 1 else "-"
                name = column if column in COLUMNS[:2] else f"J&F {column}"
                cells = (recipe, cpu, name, str(len(values)), f"{mean(values):.3f}", spread)
                lines.append(f"| {' | '.join(cells)} | {min(values):.3f} | {max(values):.3f} |")
    return "\n".join(lines)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(".scratch/seeds"), help="folder of data, runs and results")
    parser.add_argument("--stages", choices=("depth", "all"), default="all", help="depth: train_depth alone")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--isa", default="native", help="native, SSE41, AVX, AVX2, AVX512_CORE, ...; several by comma")
    parser.add_argument("--threads", type=int, default=2, help="cores of one run")
    parser.add_argument("--jobs", type=int, default=1, help="parallel runs")
    parser.add_argument("--name", default="default", help="name of the recipe")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="changes to the profile's parameters")
    parser.add_argument("--simulated", type=Path, help="simulated clips made elsewhere, where pycocotools is missing")
    parser.add_argument("--prepare", action="store_true", help="only make the data")
    parser.add_argument("--table", action="store_true", help="only print the table of the finished runs")
    return parser.parse_args()


def _run_all(arguments: argparse.Namespace) -> list[str]:
    """Run what is asked for; the failures, one line each."""
    whole = arguments.stages == "all"
    data = prepare_data(arguments.out, arguments.set, whole, arguments.simulated)
    if arguments.prepare:
        return []
    runs = [
        Run(arguments.name, isa, arguments.threads, seed)
        for isa in arguments.isa.split(",")
        for seed in arguments.seeds
    ]
    slots: queue.Queue[set[int]] = queue.Queue()
    available = sorted(os.sched_getaffinity(0))
    bound = len(available) >= arguments.jobs * arguments.threads and shutil.which("taskset") is not None
    for i in range(arguments.jobs):
        slots.put(set(available[i * arguments.threads : (i + 1) * arguments.threads]) if bound else set())

    def one(run: Run) -> str | None:
        cores = slots.get()
        try:
            execute(run, arguments.out, data, arguments.set, whole, cores)
        except UserError as error:
            log(f"{run.label}: {error}")
            return f"{run.label}: {error}"
        finally:
            slots.put(cores)
        return None

    with ThreadPoolExecutor(arguments.jobs) as pool:
        return [failure for failure in pool.map(one, runs) if failure]


def main() -> None:
    """Run the benchmark and print its table."""
    arguments = _arguments()
    failures = [] if arguments.table else _run_all(arguments)
    results = [json.loads(path.read_text()) for path in sorted((arguments.out / "results").glob("*.json"))]
    log(table(results))
    if failures:
        raise UserError(f"{len(failures)} runs failed, the first: {failures[0]}")


if __name__ == "__main__":
    raise SystemExit(run_main(main))
