"""The real archives of `$DSTM_REAL`: every way to name a source gives the same clips, and training takes them.

They are not part of the project. The folder holds archives in the published layouts: `stills/MSRA10K_Imgs_GT.zip`,
`stills/VOCtrainval_11-May-2012.tar`, `DAVIS-2017-trainval-480p.zip`.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline import download, synthesize
from pipeline.core.processes import Processes
from pipeline.datasets.clips import ClipDataset, ClipSource
from pipeline.datasets.davis import open_davis
from pipeline.datasets.simulated import open_simulated
from pipeline.diagnosis.examine import examine
from pipeline.dstm.network import DSTM
from pipeline.settings import load_settings
from pipeline.sources.store import Store
from pipeline.synthesis.config import SynthesisConfig
from pipeline.training.config import LossSwitches
from pipeline.training.loop import Files, fit
from pipeline.training.losses import Objective
from tests.support.downloads import NONE, WHERE
from tests.support.toy_network import ALL_ON, TINY
from tests.support.toy_training import OPTIONS, TRAINING

REAL = Path(os.environ.get("DSTM_REAL", "nowhere"))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not REAL.is_dir(), reason="DSTM_REAL does not name a folder of real archives"),
]
ARCHIVES = {"msra10k": "MSRA10K_Imgs_GT.zip", "voc": "VOCtrainval_11-May-2012.tar"}


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The folder over HTTP."""
    handler = partial(SimpleHTTPRequestHandler, directory=str(REAL / "stills"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def settings_of(n_clips: int) -> SynthesisConfig:
    config = load_settings().profiles["paper"].synthesis
    return replace(config, n_clips=n_clips, short_side=120, clips_per_shard=n_clips)


def clips_from(source: str, dataset: str, place: Path, n_clips: int) -> Path:
    """Download (or find) the data set, and simulate some clips."""
    raw, clips = place / "raw" / dataset, place / "clips" / dataset
    data = replace(NONE, **{dataset: source})  # type: ignore[arg-type]
    download.run(dataset, data, WHERE, place / "embedded", raw, Store(place / "store"), place)
    synthesize.run(dataset, settings_of(n_clips), raw, clips, place / "scratch", 1)
    return clips


def content(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("dataset", ["msra10k", "voc"])
def test_every_source_gives_the_same_clips(dataset: str, tmp_path: Path, served: str) -> None:
    archive = REAL / "stills" / ARCHIVES[dataset]
    shutil.unpack_archive(archive, tmp_path / "extracted")
    sources = [str(archive), archive.as_uri(), f"{served}/{archive.name}", str(tmp_path / "extracted")]
    results = [content(clips_from(source, dataset, tmp_path / str(i), 6)) for i, source in enumerate(sources)]
    assert set(results[0]) == {"shard-00000.zip", "clips.csv", "skipped.csv"}
    assert all(result == results[0] for result in results[1:])


def test_real_stills_go_through_a_training_step(tmp_path: Path) -> None:
    """Clips of both sets, drawn as pretraining draws them, and one step of the network."""
    sources = [
        ClipSource(open_simulated(clips_from(str(REAL / "stills" / name), dataset, tmp_path, 8)), None, None, False)
        for dataset, name in ARCHIVES.items()
    ]
    config = replace(TRAINING, epochs=1, steps_per_epoch=1, skip_end=0)
    torch.manual_seed(0)
    network = DSTM(replace(ALL_ON, depth=False), replace(TINY, norm="group"))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    history = fit(
        network,
        ClipDataset(sources, config.clips),
        Objective(LossSwitches(True), config),
        config,
        OPTIONS,
        seed=0,
        device=torch.device("cpu"),
        files=Files(*(tmp_path / name for name in ("state.pt", "log.csv", "events", "kept"))),
        processes=Processes(0, 1),
    )
    assert np.isfinite(history[-1]["loss"])
    assert any(not torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_the_doctor_finds_the_real_sets_sound(tmp_path: Path) -> None:
    for dataset, name in {**ARCHIVES, "davis": "../DAVIS-2017-trainval-480p.zip"}.items():
        data = replace(NONE, **{dataset: str((REAL / "stills" / name).resolve())})  # type: ignore[arg-type]
        raw = tmp_path / dataset
        download.run(dataset, data, WHERE, tmp_path, raw, Store(tmp_path / "store"), tmp_path)
        diagnosis = examine(dataset, raw, 20)
        assert diagnosis.number("error") == 0, diagnosis.findings
    assert len(open_davis(tmp_path / "davis", "val").videos) == 3
