"""Validation between epochs: when, of which weights, and which of them the stage gives."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pandas as pd
import pytest
import torch

from pipeline.core.checkpoint import load_checkpoint
from pipeline.core.processes import Processes
from pipeline.datasets.video import Video
from pipeline.dstm.checkpoint import KIND
from pipeline.dstm.network import DSTM
from pipeline.settings import load_settings
from pipeline.training.state import make_state
from pipeline.training.validation import Validation, _alone
from pipeline.validate import choose
from tests.support.toy_network import ALL_ON, TINY
from tests.support.toy_project import SAMPLE, finish, make_project, start
from tests.support.toy_training import TRAINING

SCORES = {2: 0.5, 4: 0.7, 6: 0.7, 7: 0.6}


class FixedScores(Validation):
    """Takes the score of an epoch from a table; the weights are saved as in a real validation."""

    def _run(self, checkpoint: Path) -> float:
        weights = load_checkpoint(checkpoint, KIND)["state_dict"]
        return SCORES[int(weights["decoder.predict.bias"][0])]


@pytest.mark.parametrize(("keep", "expected"), [("best", 4), ("last", 7)])
def test_the_best_of_the_validated_weights(tmp_path: Path, keep: Literal["best", "last"], expected: int) -> None:
    """Seven epochs, every second one validated, and the last; the first of two equal scores is the best."""
    config = replace(TRAINING, epochs=7, validate_every=2, keep=keep)
    torch.manual_seed(0)
    state = make_state(DSTM(ALL_ON, replace(TINY, norm="group")), config, torch.device("cpu"), torch.float32)
    validation = FixedScores(config, tmp_path, tmp_path / "kept", Processes(0, 1))
    bias = state.network.decoder.predict.bias
    assert bias is not None
    for epoch in range(1, 8):
        bias.data.fill_(epoch)
        state.step = 3 * epoch
        state.end_epoch(1.0, 0, 3)
        validation.after_epoch(state)
    found = [row["validation"] for row in state.history]
    assert [found[i - 1] for i in SCORES] == list(SCORES.values())
    assert all(math.isnan(found[i - 1]) for i in (1, 3, 5))
    validation.finish(state)
    assert float(bias.detach()[0]) == expected
    for name, epoch in (("last", 7), ("best", 4)):
        kept = load_checkpoint(tmp_path / "kept" / f"{name}.pt", KIND)["state_dict"]
        assert float(kept["decoder.predict.bias"][0]) == epoch


def test_videos_are_spread_over_the_split() -> None:
    videos = [Video(str(i), (), (), {}) for i in range(10)]
    assert [video.name for video in choose(videos, 4)] == ["0", "2", "5", "7"]
    assert choose(videos, 20) == tuple(videos)


def test_the_process_that_validates_is_none_of_torchruns() -> None:
    environment = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "x", "TORCHELASTIC_RUN_ID": "y", "PATH": "p"}
    assert _alone(environment) == {"PATH": "p"}


def test_it_is_off_in_the_sample() -> None:
    sample = load_settings(Path(__file__).resolve().parents[1] / "params.yaml").profiles["sample"]
    assert sample.pretrain.validate_every == sample.train.validate_every == 0


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_training_validates_with_the_inference_code(tmp_path: Path, processes: int) -> None:
    changes = {f"{SAMPLE}.training.validate_every": 1, f"{SAMPLE}.training.keep": "best"}
    folder = make_project(
        tmp_path, runtime__processes=processes, **{key.replace(".", "__"): value for key, value in changes.items()}
    )
    finish(start(folder, "pipeline.launch", "pipeline.pretrain"))
    table = pd.read_csv(folder / "metrics" / "pretrain.csv")
    assert table["validation"].between(0, 1).all() and len(table) == 2
    output = finish(start(folder, "pipeline.validate", "models/sample/pretrain.pt"))
    assert f"J&F {table['validation'].max():.4f}" in output
