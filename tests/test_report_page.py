"""The report page: charts, what it reads from files, that it needs nothing else, and (slow) how a browser shows it."""

from __future__ import annotations

import io
import json
import re
from base64 import b64decode
from html import unescape
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.core.archives import ShardWriter
from pipeline.core.errors import UserError
from pipeline.core.images import encode_depth, encode_mask
from pipeline.core.layout import Layout
from pipeline.datasets.depth_maps import DepthMaps
from pipeline.datasets.video import Video
from pipeline.experiments.git import Repository
from pipeline.experiments.results import Scores
from pipeline.report_page import Options, build
from pipeline.web_report import gather
from pipeline.web_report.charts import Series, line_chart
from pipeline.web_report.sequences import ERRORS, draw_error
from tests.support.browser import browser, find_browser
from tests.support.toy_ablation import commit, make_project

HEADER = "sequence,object,kind,J-mean,F-mean,J&F,copy_first_J&F"
IDS = ("00000", "00001", "00002", "00003", "00004")


class Source:
    """Two videos of five frames: two squares on a ramp."""

    name = "toy"

    def __init__(self) -> None:
        first_seen = {1: IDS[0], 2: IDS[0]}
        self.videos = tuple(Video(name, IDS, IDS, first_seen) for name in ("multi-0", "lookalike-<b>1"))

    def frame(self, video: Video, frame_id: str) -> NDArray[np.uint8]:
        ramp = np.linspace(0, 255, 96).astype(np.uint8)
        return np.repeat(np.repeat(ramp[None, :, None], 64, axis=0), 3, axis=2)

    def mask(self, video: Video, frame_id: str) -> NDArray[np.uint8]:
        mask = np.zeros((64, 96), np.uint8)
        mask[8:40, 8:40], mask[8:40, 56:88] = 1, 2
        return mask


def predicted(source: Source, video: Video, frame_id: str) -> NDArray[np.uint8]:
    """As annotated, but in frame 3 of the second video object 2 is missing, and object 1 is too large."""
    mask = source.mask(video, frame_id)
    if video is source.videos[1] and frame_id == IDS[3]:
        mask[mask == 2] = 0
        mask[8:48, 8:40] = 1
    return mask


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a toy project with every section filled."""
    root = make_project(tmp_path_factory.mktemp("page") / "project", dvc=False)
    layout, source = Layout(root, "sample"), Source()
    for video in source.videos:
        for frame_id in IDS:
            path = layout.masks / video.name / f"{frame_id}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode_mask(predicted(source, video, frame_id)))
    depth = np.linspace(0, 1, 96, dtype=np.float32)[None].repeat(64, axis=0)
    with ShardWriter(layout.depth("davis"), 10**7) as shards:
        for video in source.videos:
            shards.write_group([(f"{video.name}/{frame_id}.png", encode_depth(depth)) for frame_id in IDS])
    write_metrics(layout.metrics)
    (layout.metrics / "scores.json").write_text(json.dumps({"J&F": 0.5, "by_kind": {"multi": 0.6}}))
    earlier = commit(root, "an earlier run")
    write_usage(root)
    text = (root / "params.yaml").read_text()
    (root / "params.yaml").write_text(text.replace("  tta: true", "  tta: false", 1))
    options = Options(earlier="", compare=(earlier, earlier), sequences=40, objects=3)
    out = root / "report.html"
    out.write_text(build(layout, source, "val", DepthMaps(layout.depth("davis")), options))
    return out


def write_metrics(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rows = ["multi-0,1,multi,1,1,1,0.5", "multi-0,2,multi,1,1,1,0.5"]
    rows += ["lookalike-<b>1,1,lookalike,0.9,0.9,0.9,0.25", "lookalike-<b>1,2,lookalike,0.5,0.5,0.5,0.25"]
    (folder / "per_object.csv").write_text("\n".join([HEADER, *rows]) + "\n")
    (folder / "train.csv").write_text(
        "epoch,step,lr,loss,lovasz,validation\n1,50,0.1,0.5,0.2,\n2,100,0.1,0.4,0.1,0.7\n"
    )
    (folder / "pretrain.csv").write_text("epoch,step,lr,loss\n1,50,0.1,0.9\n")
    spread = {"mean": {"all": 0.8}, "sd": {"all": 0.01}, "set": {}}
    interval = {"mean": 0.02, "low": 0.01, "high": 0.03}
    row = {**spread, "title": "+ depth", "paper": 0.813, "seeds": {"0": {}, "1": {"unfinished": "not run"}}}
    row["difference"] = {"to": "x", "paper": 0.008, "seeds": [0], "all": interval}
    content = {"sets": {"table2": {"title": "Table 2", "compare": "previous", "rows": [row]}}}
    (folder / "ablation.json").write_text(json.dumps(content))


def write_usage(root: Path) -> None:
    folder = root / ".scratch" / "usage"
    folder.mkdir(parents=True)
    (folder / "train.json").write_text('{"seconds": 170.0, "cpu_seconds": 300.5, "memory_mib": 1200.0}')


def test_every_section_shows_what_the_files_hold(page: Path) -> None:
    text = page.read_text()
    for expected in (
        "<b>0.850</b>",  # J&F over the four objects
        "0.375",  # first mask copied
        "+0.350",  # the change from the earlier run's 0.5
        "+0.020 [+0.010, +0.030] *",
        "1 of 2",
        "train.csv: validation",
        "<code>infer.tta</code>",
        "300.5",
        "J 0.667, F 0.667, multi; frame 00003, J 0.000",  # object 2 is missing in one of three scored frames
        "J 0.933",  # object 1 has 32 of 40 rows right in that frame: (1 + 1 + 0.8) / 3
        "The 3 worst of 4 objects; --objects N shows more.",
    ):
        assert expected in text, expected
    titles = re.findall(r'<article class="step".*?<h3>(.*?) <small>', text, re.DOTALL)
    assert titles[:2] == ["lookalike-&lt;b&gt;1", "multi-0"], "the worst first, names escaped"
    assert titles[2] == "lookalike-&lt;b&gt;1, object 2"


def test_the_page_is_complete_in_itself(page: Path) -> None:
    text = page.read_text()
    addresses = re.findall(r'(?:src|href)="([^"]*)"', text)
    assert addresses and all(address.startswith(("data:", "#")) for address in addresses)
    assert "http://" not in text.replace("http://www.w3.org/2000/svg", "") and "https://" not in text
    assert all('alt="' in tag and 'alt=""' not in tag for tag in re.findall(r"<img[^>]*>", text))
    assert text.count("<video") == 2 and text.count('role="img" tabindex="0" aria-label=') == 3 + 2 * 2
    assert len(text) < 15 * 2**20


def test_clips_are_h264_with_every_frame(page: Path) -> None:
    found = re.search(r'id="clips">(.*?)</script>', page.read_text())
    assert found is not None
    clips: dict[str, str] = json.loads(found[1])
    assert list(clips) == ["clip-0", "clip-1"]
    for data in clips.values():
        with av.open(io.BytesIO(b64decode(data)), "r") as container:
            stream = container.streams.video[0]
            assert stream.codec_context.name == "h264" and stream.codec_context.pix_fmt == "yuv420p"
            assert len(list(container.decode(stream))) == len(IDS)


def test_a_clip_opens_at_its_worst_frame(page: Path) -> None:
    assert re.findall(r'data-worst="(\d)"', page.read_text()) == ["3", "1"]  # of equal ones the first that is scored


def test_a_chart_places_its_points() -> None:
    svg = str(line_chart("a < b", [Series("x & y", [(0, 0), (10, 1)], 0)], "step", (0.0, 1.0), mark=5))
    assert "a &lt; b" in svg and "x &amp; y" in svg
    assert 'd="M38.0 160.0L352.0 10.0"' in svg  # the plot's lower left and upper right corner
    assert 'class="mark" x1="195.0"' in svg
    data = re.search(r'data-series="([^"]*)"', svg)
    assert data is not None
    assert json.loads(unescape(data[1]))[0]["points"] == [[0, 0, 38, 160], [10, 1, 352, 10]]


def test_error_picture() -> None:
    frame = np.full((1, 4, 3), 90, np.uint8)
    truth, result = np.array([[1, 1, 0, 0]], bool), np.array([[1, 0, 1, 0]], bool)
    drawn = draw_error(frame, truth, result)
    assert [tuple(pixel) for pixel in drawn[0]] == [*ERRORS.values(), (30, 30, 30)]


def test_curves(tmp_path: Path) -> None:
    assert gather.read_curve(tmp_path / "train.csv") is None
    (tmp_path / "train.csv").write_text(
        "epoch,step,lr,max_skip,loss,validation\n1,50,0.1,0,0.5,\n2,100,0.1,1,0.4,0.7\n"
    )
    curve = gather.read_curve(tmp_path / "train.csv")
    assert curve == gather.Curve("train.csv", {"loss": [(50, 0.5), (100, 0.4)]}, [(100, 0.7)])
    (tmp_path / "train.csv").write_text("epoch,step,loss\n1,50,low\n")
    with pytest.raises(UserError, match=r"train\.csv: could not convert .*; expected numbers"):
        gather.read_curve(tmp_path / "train.csv")


def test_gains_over_seeds() -> None:
    def scores(a: float, b: float) -> Scores:
        return Scores({("s", "1"): a, ("t", "1"): b}, {("s", "1"): "single", ("t", "1"): "lookalike"})

    found = gather.changes([(scores(0.5, 0.5), scores(0.5, 0.9)), (scores(0.7, 0.5), scores(0.5, 0.7))])
    assert [(one.sequence, round(one.gain, 9)) for one in found] == [("t", 0.3), ("s", -0.1)]
    assert gather.by_kind(found) == pytest.approx({"single": -0.1, "look-alike": 0.3})


def test_named_experiments_that_do_not_exist(page: Path) -> None:
    repository = Repository(page.parent)
    with pytest.raises(UserError, match="--earlier nothing is not an experiment or commit"):
        gather.read_earlier(repository, "nothing")
    with pytest.raises(UserError, match="nothing is not an experiment or commit with"):
        gather.find_depth_pair(repository, ("nothing", "HEAD"))
    assert gather.find_depth_pair(repository, ()) is None
    assert gather.read_earlier(repository, "HEAD") == ("the last commit", {"J&F": 0.5, "by_kind": {"multi": 0.6}})


@pytest.mark.slow
@pytest.mark.skipif(find_browser() is None, reason="no Chromium is installed")
@pytest.mark.parametrize("width", [1280, 390])
def test_in_a_browser(page: Path, tmp_path: Path, width: int) -> None:
    path = find_browser()
    assert path is not None
    with browser(path, tmp_path) as tab:
        tab.open(page, width)
        assert tab.value("document.documentElement.scrollWidth") <= width, "no horizontal scroll"
        assert all(url.startswith(("file:", "data:", "blob:")) for url in tab.requests)
        check_clip(tab)
        tab.value("document.querySelector('.sequence svg[role=img]').focus()")
        tab.press("End")
        shown = tab.value("document.getElementById('tooltip').textContent")
        assert shown == "3\nobject 1: 0.8\nobject 2: 0", "the values at the last scored frame"
        before = tab.value("getComputedStyle(document.body).backgroundColor")
        tab.value("document.getElementById('theme').click()")
        assert tab.value("getComputedStyle(document.body).backgroundColor") != before
        tab.value("document.activeElement.blur()")
        tab.press("j")
        assert tab.value("document.activeElement.id") == "sequence-lookalike-<b>1"
        assert not tab.messages


def check_clip(tab: Any) -> None:
    """The first clip has loaded, can be sought and stands at its worst frame, number 3 at 8 frames per second."""
    tab.value("document.querySelector('video').scrollIntoView()")
    done = tab.value(
        """new Promise((resolve) => {
          const video = document.querySelector("video");
          const look = () => video.readyState >= 2 && !video.seeking && video.currentTime > 0
            ? resolve([video.paused, video.currentTime, video.seekable.length]) : setTimeout(look, 50);
          look();
        })"""
    )
    assert done == [True, 3.5 / 8, 1]
