"""Examine data sets before training: counts, unreadable files, sizes, palettes, empty masks and object ids.

    python -m pipeline.doctor                   # all data sets of the profile, every file
    python -m pipeline.doctor davis voc         # some of them
    python -m pipeline.doctor coco --limit 500  # 500 images, evenly spread

The exit code is 1 if stages would refuse the data (errors). The download stage does the same with a limit and writes
the counts to `metrics/data/<dataset>.json`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from pipeline.core.errors import UserError
from pipeline.core.layout import Layout
from pipeline.core.runtime import log, run_main
from pipeline.diagnosis.examine import examine
from pipeline.diagnosis.findings import table
from pipeline.settings import load_settings
from pipeline.sources.catalog import CATALOG, archives_of


def run(datasets: Sequence[str], layout: Layout, limit: int | None) -> None:
    """Examine data sets and log a table.

    Args:
        datasets: their names.
        layout: of the profile.
        limit: largest number of videos of each split, or of images, that are looked at; None: all.

    Raises:
        UserError: something that stages would refuse.
    """
    diagnoses = [examine(dataset, layout.raw(dataset), limit) for dataset in datasets]
    for line in table(diagnoses):
        log(line)
    refused = [d.dataset for d in diagnoses if d.number("error")]
    if refused:
        n_errors = sum(d.number("error") for d in diagnoses)
        raise UserError(
            f"{n_errors} errors in {', '.join(refused)}; expected usable data; fix what the table names, or use "
            "another source"
        )


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.doctor", description="Examine data sets for faults.")
    parser.add_argument("datasets", nargs="*", help=f"of {', '.join(CATALOG)} (default: all)")
    parser.add_argument("--limit", type=int, help="largest number of videos or images looked at (default: all)")
    options = parser.parse_args(arguments)
    if options.limit is not None and options.limit < 1:
        parser.error("--limit must be at least 1")
    return options


def main() -> None:
    """Examine the data sets that the command line names."""
    options = parse_arguments()
    for dataset in options.datasets:
        archives_of(dataset)
    run(options.datasets or list(CATALOG), Layout(Path.cwd(), load_settings().profile), options.limit)


if __name__ == "__main__":
    raise SystemExit(run_main(main))
