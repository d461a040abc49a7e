"""The synthesize stage: files, tables, independence of the number of processes, resuming after a kill."""

from __future__ import annotations

import csv
import io
import json
import multiprocessing
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from pipeline import synthesize
from pipeline.core.archives import open_shards
from pipeline.core.errors import UserError
from pipeline.core.files import write_json
from pipeline.core.images import decode_rgb, encode_jpeg
from pipeline.core.stills import Instances
from pipeline.datasets.simulated import open_simulated
from pipeline.synthesis.config import SynthesisConfig
from pipeline.synthesis.simulate import HIDDEN, TINY, UNUSABLE, Skipped, simulate
from tests.support.fake_stills import CONFIG, FakeStills, make_stills

SHARDED = replace(CONFIG, n_clips=10, clips_per_shard=3)


class Workspace:
    """A workspace with a fake MSRA10K."""

    def __init__(self, root: Path, stills: FakeStills, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.raw = root / "raw"
        stills.name = "msra10k"
        self.stills = stills
        monkeypatch.setitem(synthesize.READERS, "msra10k", lambda raw: self.stills)
        self.files([{"name": "x.zip", "bytes": 1, "sha256": "00"}])

    def files(self, files: list[dict[str, object]]) -> None:
        write_json(self.raw / "manifest.json", {"files": files})

    def run(self, name: str, config: SynthesisConfig = SHARDED, workers: int = 1) -> Path:
        output = self.root / name
        synthesize.run("msra10k", config, self.raw, output, self.root / ".scratch", workers)
        return output

    def scratch(self) -> list[Path]:
        return [p for p in (self.root / ".scratch").rglob("*") if p.is_file()]


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    return Workspace(tmp_path, make_stills(), monkeypatch)


def content(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def rows(path: Path) -> list[list[str]]:
    return list(csv.reader(io.StringIO(path.read_text())))


def test_what_is_written(workspace: Workspace) -> None:
    output = workspace.run("out")
    assert sorted(content(output)) == ["clips.csv", *(f"shard-{n:05d}.zip" for n in range(4)), "skipped.csv"]
    header, *clips = rows(output / "clips.csv")
    assert header == ["name", "image", "n_objects", "order"]
    assert [row[0] for row in clips] == [f"msra10k-{n:06d}" for n in range(10)]
    assert rows(output / "skipped.csv") == [["image", "reason", "n"]]
    archive = open_shards(output)
    assert len(archive.names()) == 10 * 3 * 2
    mask = Image.open(io.BytesIO(archive.read("Annotations/msra10k-000004/00002.png")))
    assert mask.mode == "P"
    source = open_simulated(output)
    by_name = {video.name: video for video in source.videos}
    for name, image, n_objects, order in clips:
        video = by_name[name]
        assert video.frames == video.annotated == ("00000", "00001", "00002")
        clip, _ = simulate(workspace.stills, int(name[-6:]), SHARDED)
        assert clip is not None
        assert (image, int(n_objects), order) == (clip.image, clip.n_objects, " ".join(map(str, clip.order)))
        for t, frame_id in enumerate(video.frames):
            assert (source.mask(video, frame_id) == clip.masks[t]).all()
            stored = decode_rgb(encode_jpeg(clip.frames[t], SHARDED.jpeg_quality), name)
            assert (source.frame(video, frame_id) == stored).all()
    assert workspace.scratch() == []


def test_number_of_processes_does_not_matter(workspace: Workspace) -> None:
    assert (
        content(workspace.run("one")) == content(workspace.run("three", workers=3)) == content(workspace.run("again"))
    )


def test_no_source(workspace: Workspace) -> None:
    workspace.files([])
    output = workspace.run("out")
    assert content(output) == {"clips.csv": b"name,image,n_objects,order\n", "skipped.csv": b"image,reason,n\n"}


def test_resume_gives_the_same(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = content(workspace.run("whole"))
    made: list[int] = []

    def stops(stills: FakeStills, index: int, config: SynthesisConfig) -> object:
        if index == 7:
            raise KeyboardInterrupt
        made.append(index)
        return simulate(stills, index, config)

    monkeypatch.setattr(synthesize, "simulate", stops)
    with pytest.raises(KeyboardInterrupt):
        workspace.run("out")
    assert made == list(range(7))
    assert not (workspace.root / "out").exists()
    made.clear()

    def counts(stills: FakeStills, index: int, config: SynthesisConfig) -> object:
        made.append(index)
        return simulate(stills, index, config)

    monkeypatch.setattr(synthesize, "simulate", counts)
    other = workspace.run("other", replace(SHARDED, seed=8))  # other settings: nothing of the interrupted run is used
    assert made == list(range(10))
    assert content(other) != whole
    made.clear()
    assert content(workspace.run("out")) == whole
    assert made == [6, 7, 8, 9]  # shards 0 and 1 were whole


def test_shard_without_its_record_is_made_anew(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed after the archive and before the record; or with a record whose archive is gone."""
    whole = content(workspace.run("whole"))
    monkeypatch.setattr(synthesize, "_collect", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        workspace.run("out")
    (record,) = (p for p in workspace.scratch() if p.name == "shard-00001.json")
    record.unlink()
    record.with_name("shard-00001.zip").write_bytes(b"half")
    record.with_name("shard-00002.zip").unlink()
    monkeypatch.undo()
    monkeypatch.setitem(synthesize.READERS, "msra10k", lambda raw: workspace.stills)
    assert content(workspace.run("out")) == whole


def _slow(stills: FakeStills, index: int, config: SynthesisConfig) -> object:
    if index >= 6:
        time.sleep(60)
    return simulate(stills, index, config)


def test_killed_run_frees_its_folder(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill that only reaches the stage: its processes end, too, and a second run continues."""
    whole = content(workspace.run("whole"))
    monkeypatch.setattr(synthesize, "simulate", _slow)
    stage = multiprocessing.get_context("fork").Process(target=workspace.run, args=("out", SHARDED, 2))
    stage.start()
    assert stage.pid is not None
    while sum(p.name.endswith(".json") for p in workspace.scratch()) < 2:
        assert stage.is_alive()
        time.sleep(0.02)
    os.kill(stage.pid, signal.SIGKILL)
    stage.join()
    assert not (workspace.root / "out").exists()
    monkeypatch.setattr(synthesize, "simulate", simulate)
    for _ in range(100):
        try:
            assert content(workspace.run("out")) == whole
            return
        except UserError as error:
            assert "locked by another run" in str(error)
            time.sleep(0.1)
    raise AssertionError("the folder is still locked")


def test_skipped_are_named(workspace: Workspace) -> None:
    workspace.stills = make_stills(4, extra_tiny=2)
    workspace.stills.name = "msra10k"
    rgb, found = workspace.stills.pictures["im1"]
    workspace.stills.pictures["im1"] = (rgb, Instances(found.masks[:0], found.void))
    output = workspace.run("out", replace(SHARDED, n_clips=8))
    expected = [["im0", TINY, "2"], ["im1", UNUSABLE, "2"], ["im2", TINY, "2"], ["im3", TINY, "2"]]
    assert rows(output / "skipped.csv")[1:] == expected
    assert len(rows(output / "clips.csv")) == 1 + 6


def test_rows_of_a_reason_are_merged() -> None:
    merged = synthesize._merge(
        [Skipped("b", HIDDEN, 1), Skipped("a", TINY, 3), Skipped("b", HIDDEN, 1), Skipped("a", TINY, 3)]
    )
    assert merged == [("a", TINY, 3), ("b", HIDDEN, 2)]


@pytest.mark.parametrize("workers", [1, 2])
def test_refusals(workspace: Workspace, workers: int) -> None:
    with pytest.raises(UserError, match="no data set of stills 'davis'"):
        synthesize.run("davis", SHARDED, workspace.raw, workspace.root / "out", workspace.root / ".scratch", workers)
    with pytest.raises(UserError, match="none of 6 images gave a clip"):
        workspace.run("out", replace(SHARDED, min_area=0.2, max_area=0.3), workers)
    name = workspace.stills.images[2]
    del workspace.stills.pictures[name]

    def unreadable(image_id: str) -> Instances:
        raise UserError(f"{image_id} is damaged")

    workspace.stills.instances = unreadable  # type: ignore[method-assign]
    with pytest.raises(UserError, match="is damaged"):
        workspace.run("out", SHARDED, workers)
    (workspace.raw / "manifest.json").unlink()
    with pytest.raises(UserError, match=r"manifest\.json does not exist"):
        workspace.run("out", SHARDED, workers)
    assert not (workspace.root / "out").exists()
    assert json.dumps([p.name for p in workspace.root.iterdir() if p.name.startswith(".out")]) == "[]"
