"""Score a folder of masks, check it, or pack it for a challenge server; needs nothing else from the pipeline.

    python -m pipeline.evaluate --truth truth --results masks
    python -m pipeline.evaluate --davis DAVIS --results masks
    python -m pipeline.evaluate --davis DAVIS-2017-trainval-480p.zip --year 2016 --results masks.zip --output s.json
    python -m pipeline.evaluate --davis DAVIS --split test-dev --results masks --submission masks.zip
    python -m pipeline.evaluate --youtubevos valid.zip --results masks --check

Masks are indexed PNGs named `<sequence>/<frame>.png`. docs/scoring.md says how the metrics are defined and checked.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from pipeline.core.files import check_output_file, write_json, write_text
from pipeline.core.runtime import available_cores, log, run_main
from pipeline.datasets.davis import open_davis
from pipeline.datasets.video import VideoSource
from pipeline.datasets.youtubevos import open_youtubevos
from pipeline.scoring.davis import score_davis
from pipeline.scoring.evaluation import Protocol, score_set
from pipeline.scoring.official import differences_table, import_official, official_differences
from pipeline.scoring.result_names import after_first_mask, every_annotated, every_frame, from_first_mask
from pipeline.scoring.results import Results
from pipeline.scoring.sequence import Annotations, ObjectScore, pair_up
from pipeline.scoring.submission import Server, check, refuse_faults, wanted_masks, write_submission
from pipeline.scoring.summary import by_sequence, per_object_csv, summarise, table
from pipeline.scoring.truth import Truth
from pipeline.scoring.youtubevos import score_youtubevos

DAVIS = Protocol(score_davis, every_frame, knows_frames=True)
YOUTUBEVOS = Protocol(score_youtubevos, after_first_mask, knows_frames=True)


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; wrong arguments end the program with its usage."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.evaluate",
        description="J, F and J&F of a folder of masks by DAVIS' or YouTube-VOS' rules; a check of it; a zip of it.",
    )
    data = parser.add_mutually_exclusive_group(required=True)
    data.add_argument("--truth", type=Path, metavar="DIR", help="any masks, <sequence>/<frame>.png; a folder or zip")
    data.add_argument("--davis", type=Path, metavar="ROOT", help="DAVIS: an extracted folder or the published zip")
    data.add_argument("--youtubevos", type=Path, metavar="ROOT", help="YouTube-VOS: an extracted split or its archive")
    parser.add_argument(
        "--results", type=Path, required=True, metavar="DIR", help="<sequence>/<frame>.png; a folder or zip"
    )
    parser.add_argument("--split", help="split to score (default: val for DAVIS, valid for YouTube-VOS)")
    parser.add_argument("--year", type=int, choices=(2016, 2017), help="DAVIS: 2016 merges all objects (default: 2017)")
    parser.add_argument("--resolution", metavar="NAME", help="folder of one size: 480p, 1080p or Full-Resolution")
    parser.add_argument(
        "--protocol",
        choices=("davis", "youtubevos"),
        help="with --truth, which frames count: all between the first and the last (davis), or all after an object's "
        "first one (youtubevos, the default)",
    )
    parser.add_argument("--output", type=Path, metavar="JSON", help="write the scores of the set and its sequences")
    parser.add_argument("--per-object", type=Path, metavar="CSV", help="write the scores of every object")
    parser.add_argument(
        "--jobs", type=int, default=available_cores(), metavar="N", help="processes (default: %(default)s)"
    )
    parser.add_argument("--allow-extra", action="store_true", help="DIR may also contain folders of other sequences")
    parser.add_argument(
        "--official", action="store_true", help="also score with davis2017-evaluation; print differences"
    )
    parser.add_argument(
        "--check", action="store_true", help="only check the folder as a server would; list every fault"
    )
    parser.add_argument("--submission", type=Path, metavar="ZIP", help="check the folder, then pack it for the server")
    options = parser.parse_args(argv)
    _refuse_contradictions(parser, options)
    return options


def _refuse_contradictions(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    if not options.davis and (options.year or options.official):
        parser.error("--year and --official need --davis")
    if options.youtubevos and options.resolution:
        parser.error("--resolution needs --truth or --davis")
    if options.truth and (options.split or options.check or options.submission):
        parser.error("--split, --check and --submission need --davis or --youtubevos")
    if options.protocol and not options.truth:
        parser.error("--protocol needs --truth")
    if (options.check or options.submission) and (options.output or options.per_object or options.official):
        parser.error("--check and --submission do not score; remove --output, --per-object and --official")


def run(options: argparse.Namespace) -> None:
    """Do what the command line asks.

    Raises:
        UserError: invalid data or results, or a file that cannot be written (checked before the work).
    """
    for option in ("output", "per_object", "submission"):
        if getattr(options, option):
            check_output_file(getattr(options, option), "--" + option.replace("_", "-"))
    if options.official:
        import_official()  # first, in case it is missing
    if options.truth:
        truth = Truth(options.truth, options.resolution)
        only = truth.videos[0].name if len(truth.videos) == 1 else None
        _score(options, truth, Results(options.results, only), _protocol_of(options, truth), truth.binary)
        return
    source, results = _open(options), Results(options.results)
    server: Server = "davis" if options.davis else "youtubevos"
    if options.submission:
        write_submission(source, results, options.submission, server)
    elif options.check:
        wanted = wanted_masks(source, server)
        refuse_faults(check(wanted, results), results)
        log(f"{options.results}: the {len(wanted)} sequences of {source.name} are complete and well-formed")
    else:
        _score(options, source, results, DAVIS if options.davis else YOUTUBEVOS, options.year == 2016)


def _open(options: argparse.Namespace) -> VideoSource:
    if options.davis:
        return open_davis(options.davis, options.split or "val", options.year or 2017, options.resolution)
    return open_youtubevos(options.youtubevos, options.split or "valid")


def _protocol_of(options: argparse.Namespace, truth: Truth) -> Protocol:
    """Rules for a ground-truth folder; every annotated frame that they score needs a result."""
    if options.protocol == "davis":
        return Protocol(score_davis, every_annotated, truth.knows_frames)
    return Protocol(score_youtubevos, from_first_mask, truth.knows_frames)


def _score(options: argparse.Namespace, source: Annotations, results: Results, protocol: Protocol, merge: bool) -> None:
    scores = score_set(source, results, protocol, options.jobs, merge=merge, allow_extra=options.allow_extra)
    log(table(scores))
    _write(options, scores)
    if options.official:
        differences = official_differences(pair_up(source, results, merge), scores)
        log(differences_table(differences))


def _write(options: argparse.Namespace, scores: Sequence[ObjectScore]) -> None:
    if options.output:
        write_json(options.output, summarise(scores) | {"sequences": by_sequence(scores)})
        log(f"wrote {options.output}")
    if options.per_object:
        write_text(options.per_object, per_object_csv(scores))
        log(f"wrote {options.per_object}")


def main() -> None:
    """Score, check or pack as the command line says."""
    run(parse_arguments())


if __name__ == "__main__":
    raise SystemExit(run_main(main))
