"""Which pictures the report shows and what they show, its table, and the offline page of the plots."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import vl_convert
import yaml
from numpy.typing import NDArray

from pipeline import report
from pipeline.core.archives import ShardWriter
from pipeline.core.errors import UserError
from pipeline.core.images import DAVIS_PALETTE, decode_rgb, encode_depth, encode_mask
from pipeline.datasets.depth_maps import DepthMaps
from pipeline.datasets.video import Video
from pipeline.reporting.page import PLACEHOLDERS, build_page
from pipeline.reporting.pictures import Moment, choose_sequences, choose_times, draw_strip
from pipeline.reporting.tables import ObjectRow, SequenceScore, read_per_object, score_sequences, tabulate_kinds

ROOT = Path(__file__).resolve().parents[1]
COLUMNS = "sequence,object,kind,J-mean,J-recall,J-decay,F-mean,F-recall,F-decay,J&F,copy_first_J&F"


class ToySource:
    """Two objects on a grey frame, four frames per video."""

    name = "toy"

    def __init__(self, *names: str, annotated: int = 4) -> None:
        ids = ("00000", "00001", "00002", "00003")
        self.videos = tuple(Video(name, ids, ids[:annotated], {1: ids[0], 2: ids[0]}) for name in names)

    def frame(self, video: Video, frame_id: str) -> NDArray[np.uint8]:
        return np.full((64, 128, 3), 90, np.uint8)

    def mask(self, video: Video, frame_id: str) -> NDArray[np.uint8]:
        mask = np.zeros((64, 128), np.uint8)
        mask[8:40, 8:40], mask[8:40, 60:100] = 1, 2
        return mask


def write_inputs(folder: Path, source: ToySource, lines: list[str]) -> tuple[DepthMaps, Path, Path]:
    """Depth maps, masks and scores for the toy source."""
    for video in source.videos:
        for frame_id in video.frames:
            path = folder / "masks" / video.name / f"{frame_id}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode_mask(source.mask(video, frame_id)))
    depth = np.linspace(0, 1, 128, dtype=np.float32)[None].repeat(64, axis=0)
    with ShardWriter(folder / "depth", 10**7) as shards:
        for video in source.videos:
            shards.write_group([(f"{video.name}/{frame_id}.png", encode_depth(depth)) for frame_id in video.frames])
    per_object = folder / "per_object.csv"
    per_object.write_text("\n".join([COLUMNS, *lines]) + "\n")
    return DepthMaps(folder / "depth"), folder / "masks", per_object


def score(name: str, value: float) -> SequenceScore:
    return SequenceScore(name, name.split("-")[0], value)


def test_chosen_by_rule() -> None:
    scores = [score(f"single-{i}", 0.9 - i / 10) for i in range(3)] + [score(f"multi-{i}", 0.5) for i in range(3)]
    scores.append(score("lookalike-0", 0.1))
    # ranked: single-0 .9, single-1 .8, single-2 .7, multi-0, multi-1, multi-2 .5 (by name), lookalike-0 .1
    chosen = {role: s.name for role, s in choose_sequences(scores).items()}
    assert chosen == {
        "best": "single-0",
        "worst": "lookalike-0",
        "median": "multi-0",
        "multi": "multi-2",
        "single": "single-2",
    }
    assert choose_sequences(scores[::-1]) == choose_sequences(scores)


def test_a_sequence_is_shown_once() -> None:
    assert list(choose_sequences([score("libby", 0.5)])) == ["best"]
    assert choose_sequences([]) == {}


@pytest.mark.parametrize(
    ("n_frames", "expected"), [(1, [0]), (2, [0, 1]), (9, [0, 2, 4, 6, 8]), (24, [0, 6, 12, 17, 23])]
)
def test_times_spread_from_first_to_last(n_frames: int, expected: list[int]) -> None:
    assert choose_times(n_frames, 5) == expected


def test_table_by_hand() -> None:
    objects = [
        ObjectRow("multi-0", "multi", 0.4, 0.6, 0.2),
        ObjectRow("multi-0", "multi", 0.6, 0.8, 0.4),
        ObjectRow("single-0", "single", 0.9, 1.0, None),
    ]
    assert [(s.name, s.kind, round(s.j_and_f, 9)) for s in score_sequences(objects)] == [
        ("multi-0", "multi", 0.6),
        ("single-0", "single", 0.95),
    ]
    # over objects, not over sequences: (0.5 + 0.7 + 0.95) / 3
    assert [tuple(row.values()) for row in tabulate_kinds(objects)] == [
        ("all", "2", "3", "0.7167", "0.6333", "0.8000", ""),
        ("single", "1", "1", "0.9500", "0.9000", "1.0000", ""),
        ("multi", "1", "2", "0.6000", "0.5000", "0.7000", "0.3000"),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "does not exist"),
        ("sequence,object\nlibby,1\n", "no column kind"),
        (f"{COLUMNS}\nlibby,1,single,high,1,0,0.5,1,0,0.5,\n", "line 2"),
        (f"{COLUMNS}\nlibby,1,single,0.5\n", "line 2"),
    ],
)
def test_unfit_scores_are_refused(tmp_path: Path, text: str | None, said: str) -> None:
    path = tmp_path / "per_object.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=said):
        read_per_object(path)


def test_strip_shows_result_depth_and_truth() -> None:
    frame = np.full((128, 256, 3), 100, np.uint8)  # as wide as a tile: nothing is scaled
    result, truth = np.zeros((128, 256), np.uint8), np.zeros((128, 256), np.uint8)
    result[40:100, 40:100], truth[40:100, 150:200] = 1, 2
    depth = np.zeros((64, 128), np.float32)
    depth[:, 64:] = 1  # the right half is near
    moment = Moment("00000", frame, result, truth, depth, True)
    picture = draw_strip("title", [moment, Moment("00001", frame, result, None, depth, False)])
    assert picture.shape == (36 + 3 * (128 + 4), 4 + 2 * (256 + 4), 3)
    assert picture.dtype == np.uint8
    tiles = [picture[36 + i * 132 : 36 + i * 132 + 128, 4 : 4 + 256] for i in range(3)]
    assert tiles[0][70, 70].tolist() == ((100 + DAVIS_PALETTE[1].astype(int)) // 2).tolist()
    assert tiles[2][70, 70].tolist() == [100, 100, 100]
    assert tiles[2][70, 175].tolist() == ((100 + DAVIS_PALETTE[2].astype(int)) // 2).tolist()
    assert tiles[1][70, 200].astype(int).sum() > 3 * tiles[1][70, 50].astype(int).sum()
    assert (picture[:36] < 100).any(), "the title is burnt in"
    untold = picture[36 + 264 + 30 : 36 + 264 + 128, 4 + 260 : 4 + 260 + 256]
    assert (untold == 100).all(), "a frame without truth is shown bare"


def test_stage_writes_the_same_bytes_twice(tmp_path: Path) -> None:
    source = ToySource("single-000", "multi-000", "lookalike-000")
    lines = [
        "single-000,1,single,0.9,1,0,0.9,1,0,0.9,0.3",
        "multi-000,1,multi,0.5,1,0,0.7,1,0,0.6,0.2",
        "lookalike-000,1,lookalike,0.2,0,0,0.2,0,0,0.2,0.1",
    ]
    depth, masks, per_object = write_inputs(tmp_path, source, lines)
    written = []
    for name in ("a", "b"):
        report.run(source, depth, masks, per_object, tmp_path / name)
        written.append({p.relative_to(tmp_path / name): p.read_bytes() for p in (tmp_path / name).rglob("*.*")})
    assert written[0] == written[1]
    assert {path.name for path in written[0]} == {
        "by_kind.csv",
        "depth_stability.json",
        "best.jpg",
        "median.jpg",
        "worst.jpg",
    }
    rows = list(csv.DictReader(io.StringIO((tmp_path / "a" / "by_kind.csv").read_text())))
    assert [(row["kind"], row["J&F"], row["copy_first"]) for row in rows] == [
        ("all", "0.5667", "0.2000"),
        ("single", "0.9000", "0.3000"),
        ("multi", "0.6000", "0.2000"),
        ("lookalike", "0.2000", "0.1000"),
    ]
    picture = decode_rgb((tmp_path / "a" / "pictures" / "best.jpg").read_bytes(), "best.jpg")
    assert picture.shape == (36 + 3 * 132, 4 + 4 * 260, 3)  # four frames, 128 rows at tile size


def test_split_without_annotations_is_shown_unscored(tmp_path: Path) -> None:
    source = ToySource("car", "boat", "dog", "ant", "elk", annotated=1)
    depth, masks, per_object = write_inputs(tmp_path, source, [])
    report.run(source, depth, masks, per_object, tmp_path / "report")
    pictures = {p.stem: decode_rgb(p.read_bytes(), p.name) for p in (tmp_path / "report" / "pictures").iterdir()}
    assert sorted(pictures) == ["first", "last", "middle"]  # ant, elk and car
    assert {picture.shape for picture in pictures.values()} == {(36 + 2 * 132, 4 + 4 * 260, 3)}, "no row of truth"
    assert (tmp_path / "report" / "by_kind.csv").read_text() == "kind,sequences,objects,J&F,J,F,copy_first\n"
    report.run(ToySource("car", annotated=1), depth, masks, per_object, tmp_path / "one")
    assert [p.name for p in (tmp_path / "one" / "pictures").iterdir()] == ["first.jpg"]


class MovingSource(ToySource):
    """In multi-000 the left half of the frame blinks; in lookalike-000 all of it does; in single-000 nothing does."""

    def frame(self, video: Video, frame_id: str) -> NDArray[np.uint8]:
        frame = super().frame(video, frame_id)
        blinking = {"multi-000": 64, "lookalike-000": 128}.get(video.name, 0)
        frame[:, :blinking] += np.uint8(40 * (int(frame_id) % 2))
        return frame


def write_depth(folder: Path, source: ToySource, left: list[float], right: list[float]) -> DepthMaps:
    """Maps of one depth in each half, by frame."""
    with ShardWriter(folder, 10**7) as shards:
        for video in source.videos:
            depth = [np.repeat([[a, b]], 64, axis=1).repeat(64, axis=0).astype(np.float32) for a, b in zip(left, right)]
            shards.write_group([(f"{video.name}/{i}.png", encode_depth(d)) for i, d in zip(video.frames, depth)])
    return DepthMaps(folder)


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("scored", [True, False])
def test_stability_of_depth(tmp_path: Path, workers: int, scored: bool) -> None:
    source = MovingSource("single-000", "multi-000", "lookalike-000", annotated=4 if scored else 1)
    lines = [f"{video.name},1,{video.kind},0.5,1,0,0.5,1,0,0.5,0.3" for video in source.videos] if scored else []
    _, masks, per_object = write_inputs(tmp_path, source, lines)
    # steps of 0.6, 0.6, 0.6 on the left, 0.3, 0, 0 on the right
    depth = write_depth(tmp_path / "moving", source, [0.2, 0.8, 0.2, 0.8], [0.1, 0.4, 0.4, 0.4])
    report.run(source, depth, masks, per_object, tmp_path / "report", workers)
    figures = json.loads((tmp_path / "report" / "depth_stability.json").read_text())
    # halves at rest in three pairs of frames: both of single (0.6 and 0.1 in the mean), the right one of multi (0.1)
    assert figures == {
        "static_change": pytest.approx((0.6 + 0.1 + 0.1) / 3, abs=2e-5),
        "static_share": 0.5,
        "by_kind": {
            "single": pytest.approx(0.35, abs=2e-5),
            "multi": pytest.approx(0.1, abs=2e-5),
            "lookalike": None,
        },
    }


def test_every_frame_needs_its_depth(tmp_path: Path) -> None:
    """Also a frame that no picture shows, in a sequence that no picture shows."""
    source = ToySource("ant", "boat", "car", "dog", annotated=1)  # shown: ant, car, dog
    _, masks, per_object = write_inputs(tmp_path, source, [])
    with ShardWriter(tmp_path / "lacking", 10**7) as shards:
        for video in source.videos:
            ids = [i for i in video.frames if (video.name, i) != ("boat", "00002")]
            shards.write_group([(f"{video.name}/{i}.png", encode_depth(np.zeros((64, 128), np.float32))) for i in ids])
    with pytest.raises(UserError, match=r"no depth map boat/00002\.png"):
        report.run(source, DepthMaps(tmp_path / "lacking"), masks, per_object, tmp_path / "report")
    assert not list((tmp_path / "report").iterdir())


def test_nothing_partial_is_left(tmp_path: Path) -> None:
    source = ToySource("single-000", "single-001")
    lines = [f"{video.name},1,single,0.5,1,0,0.5,1,0,0.5,0.3" for video in source.videos]
    depth, masks, per_object = write_inputs(tmp_path, source, lines)
    (masks / "single-001" / "00003.png").unlink()
    with pytest.raises(UserError, match=r"single-001/00003\.png does not exist"):
        report.run(source, depth, masks, per_object, tmp_path / "report")
    assert not list((tmp_path / "report").iterdir())
    with pytest.raises(UserError, match="scores single-001, which toy lacks"):
        report.run(ToySource("single-000"), depth, masks, per_object, tmp_path / "report")


def test_page_loads_nothing() -> None:
    page = build_page(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;"))
    assert all(page.count(placeholder) == 1 for placeholder in PLACEHOLDERS)
    assert "{scripts}" not in page
    assert not re.search(r"<(script|link|img)[^>]*\b(src|href)\s*=\s*[\"']?(https?:)?//", page)
    assert "window.vegaEmbed" in page
    with pytest.raises(UserError, match="plot_divs"):
        build_page("const x = '{plot_divs}';")


@pytest.mark.parametrize(
    ("template", "x", "y", "table"),
    [
        ("losses", "step", "loss", "epoch,step,lr,loss,cross_entropy\n1,100,0.1,0.9,0.9\n2,200,0.1,0.5,0.5\n"),
        ("scores", "J&F", "kind", "kind,sequences,objects,J&F,J,F,copy_first\nall,1,1,0.5,0.5,0.5,0.2\n"),
    ],
    ids=["losses", "scores"],
)
def test_dvc_draws_without_network(tmp_path: Path, template: str, x: str, y: str, table: str) -> None:
    """DVC fills every anchor of the template, and the page it writes asks for nothing from elsewhere."""
    shutil.copytree(ROOT / ".dvc" / "plots", tmp_path / ".dvc" / "plots")
    config = (ROOT / ".dvc" / "config").read_text()
    (tmp_path / ".dvc" / "config").write_text(config.replace("[core]", "[core]\n    no_scm = true"))
    (tmp_path / ".dvc" / "plots.html").write_text(build_page("window.vegaEmbed = () => {};"))
    (tmp_path / "table.csv").write_text(table)
    options = ["-t", template, "-x", x, "-y", y]
    subprocess.run([sys.executable, "-m", "dvc", "plots", "show", "table.csv", *options], cwd=tmp_path, check=True)
    page = (tmp_path / "dvc_plots" / "index.html").read_text()
    found = re.search(r"var spec = (\{.*\});$", page, re.MULTILINE)
    assert found, "the chart is on the page"
    spec = json.loads(found[1])
    assert "DVC_METRIC" not in found[1], "an anchor that DVC does not know"
    assert spec["data"]["values"][0][x] == table.split("\n")[1].split(",")[table.split("\n")[0].split(",").index(x)]
    assert not re.search(r"(src|href)\s*=\s*[\"']?(https?:)?//", page)


def test_plot_templates_are_where_dvc_looks() -> None:
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    plots = [plot for stage in stages.values() for plot in stage.get("plots", []) if isinstance(plot, dict)]
    named = {options["template"] for plot in plots for options in plot.values() if "template" in options}
    own = {path.stem for path in (ROOT / ".dvc" / "plots").glob("*.json")}
    assert own <= named, "every template of the project is used"
    for name in own:
        template = json.loads((ROOT / ".dvc" / "plots" / f"{name}.json").read_text())
        assert template["data"] == {"values": "<DVC_METRIC_DATA>"}


def test_page_is_made_where_dvc_looks() -> None:
    config = (ROOT / ".dvc" / "config").read_text()
    assert re.search(r"html_template = plots\.html$", config, re.MULTILINE)
    assert ".dvc/plots.html: pipeline/reporting/page.py" in (ROOT / "Makefile").read_text()
