"""Report on the results: a table by kind of video, and pictures of sequences chosen by a fixed rule.

`dvc plots show` draws the training curves and the bars per sequence directly from the metrics of other stages. This
stage adds what needs the frames, such as how steady the depth maps are (which needs no true depth).

Reads: data/${profile}/raw/davis, data/${profile}/depth/davis, data/${profile}/raw/challenge,
    data/${profile}/depth/challenge, data/${profile}/masks, metrics/per_object.csv
Writes: metrics/report/depth_stability.json, metrics/report/by_kind.csv, metrics/report/pictures
Params: profiles.${profile}.infer.split
Run: python -m pipeline.report
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import UserError
from pipeline.core.files import output_folder, write_json, write_text
from pipeline.core.images import decode_mask, encode_jpeg
from pipeline.core.layout import Layout
from pipeline.core.runtime import log, progress, run_main
from pipeline.datasets.depth_maps import DepthMaps
from pipeline.datasets.splits import dataset_of, open_split
from pipeline.datasets.video import Video, VideoSource
from pipeline.reporting.pictures import Moment, choose_sequences, choose_times, draw_strip
from pipeline.reporting.stability import Stability, measure_video, summarise_stability
from pipeline.reporting.tables import SequenceScore, read_per_object, score_sequences, tabulate_kinds, to_csv
from pipeline.settings import load_settings

_TIMES = 5


def run(source: VideoSource, depth: DepthMaps, masks: Path, per_object: Path, report: Path, workers: int = 1) -> None:
    """Write the table, the pictures and the stability of the depth maps.

    Args:
        source: the sequences that were segmented.
        depth: their depth maps.
        masks: `<sequence>/<frame>.png`.
        per_object: the scores of every object.
        report: folder for `by_kind.csv`, `pictures/` and `depth_stability.json`.
        workers: number of threads, each reading one sequence; it does not change the result.

    Raises:
        UserError: there are scores of an unknown sequence, or a frame without mask or depth map.
    """
    objects = read_per_object(per_object)
    rows = tabulate_kinds(objects)
    titles = _choose(source, score_sequences(objects))
    videos = {video.name: video for video in source.videos}
    with output_folder(report / "pictures") as folder:
        for role, (name, title) in titles.items():
            if name not in videos:
                raise UserError(f"{per_object} scores {name}, which {source.name} lacks; rerun the score stage")
            moments = _read_moments(source, videos[name], depth, masks, scored=bool(objects))
            (folder / f"{role}.jpg").write_bytes(encode_jpeg(draw_strip(title, moments), quality=88))
        stability = _measure(source, depth, workers)  # inside the block: if a map is missing, nothing is written
    write_text(report / "by_kind.csv", to_csv(rows))
    write_json(report / "depth_stability.json", stability)
    for row in rows:
        log("  ".join(f"{key} {value}" for key, value in row.items()))
    log(f"{len(titles)} pictures: {', '.join(name for name, _ in titles.values())}")
    if stability["static_change"] is None:
        log("depth: no pixel is at rest in two successive frames, so its stability cannot be measured")
    else:
        change, share = stability["static_change"], stability["static_share"]
        log(f"depth: {share:.0%} of all pixels are at rest; in them it changes by {change:.4f} from frame to frame")


def _measure(source: VideoSource, depth: DepthMaps, workers: int) -> dict[str, Any]:
    """Stability of the depth maps over all successive frames of all sequences."""

    def of_one(video: Video) -> Stability:
        return measure_video(_frames(source, video, depth))

    videos = source.videos
    with ThreadPoolExecutor(workers) as pool:  # decoding releases the interpreter lock
        found = list(progress(pool.map(of_one, videos), len(videos), "stability of depth, sequences"))
    return summarise_stability([(video.kind, one) for video, one in zip(videos, found)])


def _frames(
    source: VideoSource, video: Video, depth: DepthMaps
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.float32]]]:
    for frame_id in video.frames:
        yield source.frame(video, frame_id), depth.read(video.name, frame_id)


def _choose(source: VideoSource, scores: list[SequenceScore]) -> dict[str, tuple[str, str]]:
    """File stem -> sequence and title. Without scores: the first, middle and last sequence by name."""
    if not scores:
        names = sorted(video.name for video in source.videos)
        roles = {"first": 0, "last": len(names) - 1, "middle": len(names) // 2}
        shown = {names[i]: role for role, i in reversed(roles.items())}  # each sequence once
        return {role: (name, f"{name}: not scored ({role} by name)") for name, role in shown.items()}
    chosen = choose_sequences(scores)
    label = {role: role if role == score.kind else f"{role} of {len(scores)}" for role, score in chosen.items()}
    return {
        role: (score.name, f"{score.name}: J&F {score.j_and_f:.3f} ({label[role]})") for role, score in chosen.items()
    }


def _read_moments(source: VideoSource, video: Video, depth: DepthMaps, masks: Path, scored: bool) -> list[Moment]:
    chosen = [video.frames[i] for i in choose_times(len(video.frames), _TIMES)]
    first = min(video.first_seen.values(), key=video.frames.index)
    return [
        Moment(
            frame_id=frame_id,
            frame=source.frame(video, frame_id),
            result=_read_result(masks / video.name / f"{frame_id}.png"),
            truth=source.mask(video, frame_id) if scored and frame_id in video.annotated else None,
            depth=depth.read(video.name, frame_id),
            given=frame_id == first,
        )
        for frame_id in chosen
    ]


def _read_result(path: Path) -> NDArray[np.uint8]:
    if not path.is_file():
        raise UserError(f"{path} does not exist; expected a predicted mask for every frame; rerun the infer stage")
    return decode_mask(path.read_bytes(), str(path))


def main() -> None:
    """Report on the results of the active profile."""
    settings = load_settings()
    layout = Layout(Path.cwd(), settings.profile)
    split = settings.profile_params.infer.split
    source = open_split(layout.raw(dataset_of(split)), split)
    depth = DepthMaps(layout.depth(dataset_of(split)))
    per_object, report = layout.metrics / "per_object.csv", layout.metrics / "report"
    run(source, depth, layout.masks, per_object, report, settings.runtime.workers)


if __name__ == "__main__":
    raise SystemExit(run_main(main))
