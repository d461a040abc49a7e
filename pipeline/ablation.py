"""Run ablations: rows and seeds as DVC experiments, then a table with error bars in `metrics/ablation.{json,md}`.

    python -m pipeline.ablation --dry-run                       # what would run, and for how long
    python -m pipeline.ablation                                 # Table 2, seeds 0, 1 and 2
    python -m pipeline.ablation --set depth-controls --seeds 0 1 2 --jobs 2
    python -m pipeline.ablation --rows 't2-[34]*' -S profiles.sample.train.epochs=6
    python -m pipeline.ablation --table                         # only write the table

The rows are in `ablations.yaml`. A row with a seed is the experiment `<row>-s<seed>`. Finished ones are not run again,
so a killed ablation continues when the same command is given again.
"""

from __future__ import annotations

import argparse
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.core.errors import UserError
from pipeline.core.files import write_json, write_text
from pipeline.core.runtime import log, run_main
from pipeline.core.usage import read_usage
from pipeline.experiments.results import Project, find_benchmark_run, read_scores
from pipeline.experiments.rows import Experiment, RowSet, as_argument, choose, experiment, parse_changes, read_sets
from pipeline.experiments.runner import Runner, command, environment
from pipeline.experiments.table import Outcome, tabulate, to_markdown
from pipeline.settings import settings_of

FILE = Path("ablations.yaml")


@dataclass(frozen=True)
class Request:
    """What is asked for on the command line.

    Attributes:
        sets: names of the sets; all of their rows are in the table.
        rows: patterns of the rows to run; empty: all.
        seeds: of each row.
        profile: to run; empty: the one of params.yaml.
        extra: changes to every row.
        runs: folder of `benchmarks/seeds.py` whose runs count as well; None: DVC's experiments alone.
    """

    sets: tuple[str, ...]
    rows: tuple[str, ...]
    seeds: tuple[int, ...]
    profile: str
    extra: Mapping[str, Any]
    runs: Path | None


class Ablation:
    """The rows of a request, what is known of them, and what is still to be run.

    Args:
        root: the project's folder.
        request: what is asked for.
        wait_s: as of `Runner`.

    Raises:
        UserError: an unknown set, row or parameter, or a value that is not accepted.
    """

    def __init__(self, root: Path, request: Request, wait_s: float = 20.0) -> None:
        self.project, self.request = Project(root), request
        self._known = read_sets(root / FILE)
        self._chosen = choose(self._known, request.sets, request.rows)
        self.profile = request.profile or str(self.project.params["profile"])
        self.runner = Runner(root, root / ".scratch" / "ablation", self._is_saved, self._remove_outdated, wait_s)
        for one in self.experiments(self._chosen):
            if one.seed == request.seeds[0]:
                settings_of(self.project.params_of(one))

    def experiments(self, sets: Sequence[RowSet]) -> list[Experiment]:
        """All rows of some sets with all seeds; all rows of a seed follow each other, so that they share its stages."""
        rows = [row for group in sets for row in group.rows]
        default = str(self.project.params["profile"])
        return [
            experiment(row, seed, self.profile, default, self.request.extra)
            for seed in self.request.seeds
            for row in rows
        ]

    def to_run(self) -> list[Experiment]:
        """The chosen rows and seeds that have no result yet."""
        return [one for one in self.experiments(self._chosen) if self.outcome(one).scores is None]

    def outcome(self, one: Experiment) -> Outcome:
        """What is known of a row and a seed."""
        saved = self.project.find(one)
        if saved is not None:
            return Outcome(self.project.scores(saved), "experiment")
        if self.request.runs is not None:
            path = find_benchmark_run(self.request.runs, self.project.params_of(one))
            if path is not None:
                return Outcome(read_scores(path.read_text(), str(path)), "benchmarks/seeds.py")
        failure = self.runner.failure(one)
        if failure is not None:
            return Outcome(None, f"failed: {failure}")
        return Outcome(None, "older parameters or code" if self.project.outdated(one) else "not run")

    def plan(self) -> list[tuple[Experiment, Outcome, list[str]]]:
        """Each chosen row and seed, what is known of it, and the stages it would run (the others are cached)."""
        known: set[str] = set()
        chosen = [(one, self.outcome(one)) for one in self.experiments(self._chosen)]
        for one, outcome in chosen:
            if outcome.note == "experiment":
                known |= set(self.project.keys(one).values())
        plan = []
        for one, outcome in chosen:
            keys = self.project.keys(one) if outcome.scores is None else {}
            plan.append((one, outcome, [name for name, key in keys.items() if key not in known]))
            known |= set(keys.values())
        return plan

    def run(self, jobs: int) -> None:
        """Run what has no result yet.

        Raises:
            UserError: code or parameters are not committed.
        """
        experiments = self.to_run()
        if experiments:
            self.project.check_committed()
            self.runner.run(experiments, jobs)

    def queue(self) -> None:
        """Put what has no result yet into DVC's queue.

        Raises:
            UserError: code or parameters are not committed, or DVC refuses a row.
        """
        experiments = self.to_run()
        if experiments:
            self.project.check_committed()
        for one in experiments:
            self._remove_outdated(one)
            self._dvc(command(one, "--queue"), f"queue {one.name}")
            log(f"queued {one.name}")
        log(f"{len(experiments)} rows are in DVC's queue; run it with dvc queue start, then --table")

    def write_table(self) -> None:
        """Write `metrics/ablation.json` and `metrics/ablation.md`, and log the latter.

        They hold the sets that are asked for, and every other set of which a row has finished.
        """
        sets = {}
        for group in self._known.values():
            experiments = self.experiments([group])
            of_rows = {row.name: {e.seed: self.outcome(e) for e in experiments if e.row == row} for row in group.rows}
            finished = any(one.scores for seeds in of_rows.values() for one in seeds.values())
            if finished or group.name in self.request.sets:
                sets[group.name] = tabulate(group, of_rows)
        content = {"profile": self.profile, "overrides": dict(self.request.extra), "sets": sets}
        folder = self.project.root / "metrics"
        write_json(folder / "ablation.json", content)
        text = to_markdown(content)
        write_text(folder / "ablation.md", text)
        log(text)

    def _is_saved(self, one: Experiment) -> bool:
        self.project.reload()
        return self.project.find(one) is not None

    def _remove_outdated(self, one: Experiment) -> None:
        self.project.reload()
        if self.project.outdated(one):
            self._dvc([*command(one)[:3], "exp", "remove", one.name], f"remove {one.name}")

    def _dvc(self, arguments: Sequence[str], task: str) -> None:
        done = subprocess.run(arguments, cwd=self.project.root, capture_output=True, text=True, env=environment())
        if done.returncode:
            line = (done.stderr.strip().splitlines() or ["no output"])[-1]
            raise UserError(f"DVC could not {task} ({line}); expected it to; correct that and run again")


def show_plan(ablation: Ablation, root: Path) -> None:
    """Log what would run, and for how long by what each stage took on this machine when it last ran."""
    took = {name: usage.seconds for name, usage in read_usage(root).items()}
    total, unknown = 0.0, set()
    for one, outcome, stages in ablation.plan():
        if outcome.scores is not None:
            log(f"{one.name}: finished ({outcome.note})")
            continue
        seconds = sum(took.get(name, 0.0) for name in stages)
        unknown |= {name for name in stages if name not in took}
        total += seconds
        changes = " ".join(f"-S {key}={as_argument(value)}" for key, value in one.row.changes.items()) or "no change"
        log(f"{one.name}: {outcome.note}; {changes}; runs {', '.join(stages) or 'nothing new'}; {seconds / 60:.1f} min")
    log(f"in all {total / 60:.0f} min, one row at a time, by how long each stage last took on this machine")
    if unknown:
        log(f"stages that have not run on this machine, so that their time is unknown: {', '.join(sorted(unknown))}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.ablation", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--set", nargs="+", default=["table2"], metavar="NAME", help="sets of ablations.yaml (table2)")
    parser.add_argument("--rows", nargs="+", default=[], metavar="PATTERN", help="only these rows of the sets: 't2-*'")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="N", help="seeds (0 1 2)")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="rows at a time, of different seeds (1)")
    parser.add_argument("--profile", default="", help="profile to run; else that of params.yaml")
    parser.add_argument("-S", action="append", default=[], metavar="KEY=VALUE", help="a change to every row")
    parser.add_argument("--runs", type=Path, metavar="DIR", help="also take runs of benchmarks/seeds.py: its --out")
    doing = parser.add_mutually_exclusive_group()
    doing.add_argument("--dry-run", action="store_true", help="only show what would run, and for how long")
    doing.add_argument("--table", action="store_true", help="run nothing, write the table")
    doing.add_argument("--queue", action="store_true", help="only put the rows into DVC's queue")
    return parser.parse_args()


def main() -> None:
    """Run the rows and write the table."""
    arguments = _arguments()
    request = Request(
        sets=tuple(arguments.set),
        rows=tuple(arguments.rows),
        seeds=tuple(dict.fromkeys(arguments.seeds)),
        profile=arguments.profile,
        extra=parse_changes(arguments.S),
        runs=arguments.runs,
    )
    ablation = Ablation(Path.cwd(), request)
    if arguments.dry_run:
        show_plan(ablation, Path.cwd())
        return
    if arguments.queue:
        ablation.queue()
        return
    try:
        if not arguments.table:
            ablation.run(arguments.jobs)
    finally:
        ablation.write_table()  # also after Ctrl-C: rows that did not finish are shown as such
    n_left = len(ablation.to_run())
    if n_left and not arguments.table:
        raise UserError(
            f"{n_left} of {len(ablation.plan())} rows did not finish; expected all of them; the table says why, and "
            "the same command runs them again"
        )


if __name__ == "__main__":
    raise SystemExit(run_main(main))
