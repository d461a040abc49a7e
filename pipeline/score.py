"""Score the predicted masks: J, F and J&F by DAVIS' rules, compared with copying the first mask.

Per object, per kind of video and over the split. Test splits, whose annotations are not published, get null scores.

Reads: data/${profile}/raw/davis, data/${profile}/raw/challenge, data/${profile}/masks
Writes: metrics/scores.json, metrics/per_object.csv
Params: profiles.${profile}.infer.split
Run: python -m pipeline.score
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from pipeline.core.files import write_json, write_text
from pipeline.core.layout import Layout
from pipeline.core.runtime import available_cores, log, run_main
from pipeline.datasets.config import Split
from pipeline.datasets.splits import dataset_of, open_split
from pipeline.scoring.davis import score_davis
from pipeline.scoring.evaluation import Protocol, score_set
from pipeline.scoring.result_names import every_frame
from pipeline.scoring.results import Results
from pipeline.scoring.sequence import scorable
from pipeline.scoring.summary import per_object_csv, summarise
from pipeline.settings import load_settings


def run(raw: Path, masks: Path, split: Split, metrics: Path, jobs: int) -> None:
    """Score a folder of masks for a split.

    Args:
        raw: folder of the archive that holds the split.
        masks: `<sequence>/<frame>.png`.
        split: of the masks.
        metrics: folder for `scores.json` and `per_object.csv`.
        jobs: number of processes; it does not change the scores.

    Raises:
        UserError: invalid annotations or masks.
    """
    source = open_split(raw, split)
    if not scorable(source):
        log(f"{source.name} publishes only first masks: nothing to score; send the submission to its server")
        write_json(metrics / "scores.json", {"J&F": None})
        write_text(metrics / "per_object.csv", per_object_csv([]))
        return
    protocol = Protocol(partial(score_davis, copy_first=True), every_frame, knows_frames=True)
    scores = score_set(source, Results(masks), protocol, jobs)
    figures = summarise(scores)
    write_json(metrics / "scores.json", figures)
    write_text(metrics / "per_object.csv", per_object_csv(scores))
    kinds = ", ".join(f"{kind} {value:.3f}" for kind, value in figures["by_kind"].items())
    log(f"J&F {figures['J&F']:.3f} ({kinds}); copying the first mask {figures['copy_first']['J&F']:.3f}")


def main() -> None:
    """Score the results of the active profile."""
    settings = load_settings()
    layout = Layout(Path.cwd(), settings.profile)
    split = settings.profile_params.infer.split
    run(layout.raw(dataset_of(split)), layout.masks, split, layout.metrics, available_cores())


if __name__ == "__main__":
    raise SystemExit(run_main(main))
