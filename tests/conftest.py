"""Fixtures that several tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.downloads import Place, Web, serve
from tests.support.tiny_archives import Toy, davis_files, make_toy, write_zip


@pytest.fixture(autouse=True)
def own_store(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test writes into the checkout's data/store."""
    monkeypatch.setenv("DSTM_STORE", str(tmp_path_factory.getbasetemp() / "store"))


@pytest.fixture(scope="session")
def toy_video() -> Toy:
    """Two discs that cross a ramp: 6 frames of 48x64 with masks and depth."""
    return make_toy()


@pytest.fixture
def davis_raw(tmp_path: Path) -> Path:
    """A raw folder with a DAVIS of two training sequences (one and two objects) and one for validation."""
    sequences = {"bear": make_toy(5, 1), "dogs": make_toy(6, 2), "fish": make_toy(4, 2)}
    splits = {"2017/train": ["bear", "dogs"], "2017/val": ["fish"], "2016/val": ["fish"]}
    raw = tmp_path / "raw" / "davis"
    write_zip(raw / "DAVIS-2017-trainval-480p.zip", davis_files(sequences, splits))
    (raw / "manifest.json").write_text('{"files": []}\n')
    return raw


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    """A web server whose behaviour the test sets."""
    yield from serve(monkeypatch)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """A workspace for the download stage."""
    monkeypatch.delenv("DVC_ROOT", raising=False)
    return Place(tmp_path)
