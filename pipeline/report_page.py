"""Write the report page: one HTML file with scores, curves, clips and pictures, which opens without a network.

    python -m pipeline.report_page                                   # report.html, from metrics/ and data/
    python -m pipeline.report_page --earlier my-run --compare no-depth baseline

It shows what is there: run the pipeline first. `--earlier` names the run beside which the result is shown, `--compare`
two experiments whose objects are compared, the one without depth first.
"""

from __future__ import annotations

import argparse
import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.core.errors import UserError
from pipeline.core.files import check_output_file, write_text
from pipeline.core.layout import Layout
from pipeline.core.runtime import log, progress, run_main
from pipeline.core.usage import read_usage
from pipeline.datasets.depth_maps import DepthMaps
from pipeline.datasets.splits import dataset_of, open_split
from pipeline.datasets.video import VideoSource
from pipeline.experiments.git import Repository
from pipeline.scoring.results import Results
from pipeline.scoring.sequence import scorable
from pipeline.settings import load_settings
from pipeline.web_report import gather
from pipeline.web_report.charts import Series, line_chart
from pipeline.web_report.page import render
from pipeline.web_report.sequences import ERRORS, FPS, Timeline, make_clip, make_strip, measure

_SECTIONS = (
    ("result", "Result"), ("ablation", "Ablation"), ("curves", "Training"), ("depth", "Depth"),
    ("sequences", "Sequences"), ("objects", "Objects"), ("usage", "Time and memory"), ("parameters", "Parameters"),
)  # fmt: skip
_ALTS = {
    "frame": "the frame",
    "depth": "the depth map, bright is near",
    "truth": "the annotated objects in colour",
    "prediction": "the predicted objects in colour",
    "error": "pixels of the object that are correct, missed or wrong",
}
_LARGEST = 15 * 2**20  # bytes that the page should stay below
_SHOWN = 8  # objects in each of the two lists of gains


@dataclass(frozen=True)
class Options:
    """Options of the command line.

    Attributes:
        earlier: experiment or commit beside which the result is shown; empty: `baseline`, or else the last commit.
        compare: experiments without and with depth; empty: rows of the ablation.
        sequences: largest number of sequences with a clip.
        objects: largest number of objects with pictures.
    """

    earlier: str
    compare: tuple[str, ...]
    sequences: int
    objects: int


def build(layout: Layout, source: VideoSource, split: str, depth: DepthMaps | None, options: Options) -> str:
    """The page's HTML.

    Args:
        layout: paths of the profile.
        source: the sequences of the split.
        split: its name.
        depth: their depth maps; None: there are none.
        options: of the command line.

    Raises:
        UserError: something that the page needs is missing or does not fit.
    """
    repository = Repository(layout.root)
    path = layout.metrics / "per_object.csv"
    if not path.is_file():
        raise UserError(f"{path} does not exist; expected the scores; run the pipeline first (make repro)")
    scored = scorable(source)
    earlier = gather.read_earlier(repository, options.earlier)
    timelines = measure(source, layout.masks) if scored else []
    curves = [gather.read_curve(layout.metrics / f"{name}.csv") for name in ("pretrain", "train")]
    sequences, clips = _sequences(source, timelines[: options.sequences], Results(layout.masks))
    objects = _objects(source, timelines, Results(layout.masks), depth, options.objects)
    n_objects = sum(len(one.values) for one in timelines)
    usage = list(read_usage(layout.root).items())
    content: dict[str, Any] = {
        "profile": layout.profile,
        "split": split,
        "sections": _SECTIONS,
        "n_sequences": len(source.videos),
        "n_objects": n_objects,
        "scores": gather.score_rows(path.read_text(), earlier and earlier[1]) if scored else [],
        "earlier_name": earlier[0] if earlier else "",
        "ablation": _ablation(layout.metrics / "ablation.json"),
        "curves": [chart for curve in curves if curve is not None for chart in _charts(curve)],
        "validated": any(curve is not None and curve.validation for curve in curves),
        "depth": _depth(repository, options.compare),
        "sequences": sequences,
        "sequences_note": _note(len(sequences), len(timelines), "sequences", "--sequences"),
        "objects": objects,
        "objects_note": _note(len(objects), n_objects, "objects", "--objects"),
        "fps": FPS,
        "colours": {name: f"rgb{colour}" for name, colour in ERRORS.items()},
        "alts": _ALTS,
        "usage": usage,
        "longest": max([one.seconds for _, one in usage], default=0.0) or 1.0,
        "parameters": gather.parameter_changes(repository, layout.root / "params.yaml"),
    }
    return render(content, clips)


def _note(shown: int, total: int, what: str, option: str) -> str:
    return f"The {shown} worst of {total} {what}; {option} N shows more." if shown < total else ""


def _charts(curve: gather.Curve) -> list[Any]:
    charts = []
    if curve.losses:
        series = [Series(name, points, i) for i, (name, points) in enumerate(curve.losses.items())]
        charts.append(line_chart(f"{curve.name}: losses", series, "step"))
    if curve.validation:
        series = [Series("J&F of the validation videos", curve.validation, 0)]
        charts.append(line_chart(f"{curve.name}: validation", series, "step", (0.0, 1.0)))
    return charts


def _sequences(
    source: VideoSource, timelines: Sequence[Timeline], masks: Results
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """The template's entries, and the clips by their id."""
    entries, clips = [], {}
    for number, one in enumerate(progress(timelines, len(timelines), "clips")):
        video, clip = one.video, f"clip-{number}"
        height, width = source.frame(video, video.frames[0]).shape[:2]
        worst = video.frames.index(one.worst)
        clips[clip] = b64encode(make_clip(source, video, masks)).decode()
        positions = [video.frames.index(frame_id) for frame_id in one.scored]
        charts = []
        for letter in ("j", "f"):
            series = [
                Series(f"object {object_id}", list(zip(positions, getattr(values, letter))), i)
                for i, (object_id, values) in enumerate(one.values.items())
            ]
            title = f"{video.name}: {letter.upper()} over time"
            charts.append(line_chart(title, series, "frame", (0.0, 1.0), clip, worst))
        entries.append(
            {
                "name": video.name,
                "kind": gather.LABELS[video.kind],
                "mean": one.mean,
                "worst": one.worst,
                "worst_index": worst,
                "n_frames": len(video.frames),
                "clip": clip,
                "width": width,
                "height": height,
                "charts": charts,
            }
        )
    return entries, clips


def _objects(
    source: VideoSource, timelines: Sequence[Timeline], masks: Results, depth: DepthMaps | None, most: int
) -> list[dict[str, Any]]:
    """The objects with the lowest J, each at the frame where its J is lowest."""
    ranked = sorted(
        ((one.object_mean(i), one, i) for one in timelines for i in one.values),
        key=lambda entry: (entry[0][0], entry[1].video.name, entry[2]),
    )[:most]
    entries = []
    for (j, f), one, object_id in progress(ranked, len(ranked), "pictures of objects"):
        frame_id = one.worst_of(object_id)
        entries.append(
            {
                "sequence": one.video.name,
                "object_id": object_id,
                "kind": gather.LABELS[one.video.kind],
                "j": j,
                "f": f,
                "frame": frame_id,
                "frame_j": min(one.values[object_id].j),
                "pictures": make_strip(source, one.video, frame_id, object_id, masks, depth),
            }
        )
    return entries


def _depth(repository: Repository, compare: Sequence[str]) -> dict[str, Any] | None:
    found = gather.find_depth_pair(repository, compare)
    if found is None:
        return None
    without, with_depth, pairs = found
    ranked = gather.changes(pairs)
    half = min(_SHOWN, (len(ranked) + 1) // 2)
    return {
        "without": without,
        "with_depth": with_depth,
        "n_seeds": len(pairs),
        "by_kind": gather.by_kind(ranked),
        "lists": [("Helped most", ranked[:half]), ("Hurt most, or helped least", ranked[::-1][:half])],
    }


def _ablation(path: Path) -> list[dict[str, Any]]:
    """The rows of `metrics/ablation.json` as the template shows them; empty if there is no such file."""
    if not path.is_file():
        return []
    sets = json.loads(path.read_text())["sets"]
    return [{"title": group["title"], "rows": [_ablation_row(row) for row in group["rows"]]} for group in sets.values()]


def _ablation_row(row: Mapping[str, Any]) -> dict[str, Any]:
    difference = row["difference"] or {}
    n_finished = sum("unfinished" not in seed for seed in row["seeds"].values())
    mean, sd = row["mean"].get("all"), row["sd"].get("all")
    return {
        "title": row["title"],
        "seeds": f"{n_finished} of {len(row['seeds'])}",
        "paper": row["paper"],
        "ours": "not finished" if mean is None else f"{mean:.3f}" + ("" if sd is None else f" ± {sd:.3f}"),
        "paper_change": difference.get("paper"),
        "change": _interval(difference.get("all")),
        "lookalike": _interval(difference.get("lookalike")),
    }


def _interval(found: Mapping[str, float] | None) -> str:
    if found is None:
        return "–"
    star = " *" if found["low"] > 0 or found["high"] < 0 else ""
    return f"{found['mean']:+.3f} [{found['low']:+.3f}, {found['high']:+.3f}]{star}"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.report_page", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("report.html"), help="the page to write (report.html)")
    parser.add_argument("--earlier", default="", metavar="NAME", help="experiment or commit to show the result beside")
    parser.add_argument("--compare", nargs=2, default=(), metavar=("A", "B"), help="experiments without and with depth")
    parser.add_argument("--sequences", type=int, default=40, metavar="N", help="largest number of clips (40)")
    parser.add_argument("--objects", type=int, default=60, metavar="N", help="largest number of objects' pictures (60)")
    return parser.parse_args()


def main() -> None:
    """Write the page of the active profile."""
    arguments = _arguments()
    settings = load_settings()
    layout = Layout(Path.cwd(), settings.profile)
    check_output_file(arguments.out, "--out")
    split = settings.profile_params.infer.split
    source = open_split(layout.raw(dataset_of(split)), split)
    folder = layout.depth(dataset_of(split))
    depth = DepthMaps(folder) if any(folder.glob("shard-*")) else None
    options = Options(arguments.earlier, tuple(arguments.compare), arguments.sequences, arguments.objects)
    page = build(layout, source, split, depth, options)
    write_text(arguments.out, page)
    n_bytes = len(page.encode())
    log(f"wrote {arguments.out} ({n_bytes / 2**20:.1f} MiB); open it in a browser")
    if n_bytes > _LARGEST:
        log("the page is larger than 15 MiB and opens slowly; a lower --sequences or --objects makes it smaller")


if __name__ == "__main__":
    raise SystemExit(run_main(main))
