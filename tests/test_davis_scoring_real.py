"""The official scorer's values over thousands of real masks, if those masks are available.

They are the results that `davisvideochallenge/davis2017-evaluation` carries for the 30 sequences of DAVIS-2017 val;
name a checkout of it in DAVIS2017_EVALUATION. `osvos_truth` scores one method against the other; the other sets score
both against the real annotations of `../shared/real`, in which each sequence has one object.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.core.archives import open_archive
from pipeline.core.images import decode_mask
from pipeline.scoring.davis import score_davis
from pipeline.scoring.results import Results
from pipeline.scoring.sequence import SequencePair
from pipeline.scoring.workers import score_sequences

FIXTURE = json.loads((Path(__file__).parent / "fixtures/scoring/official_real.json").read_text())
CHECKOUT = os.environ.get("DAVIS2017_EVALUATION", "")
REAL = Path(__file__).parents[2] / "shared/real/DAVIS-2017-trainval-480p.zip"

Read = Callable[[str, str], NDArray[np.uint8]]


def pairs_of(names: list[str], frames: dict[str, tuple[str, ...]], truth: Read, guess: Read) -> list[SequencePair]:
    """Pairs whose results have no id above the first annotation's: the official scorer refuses such."""

    def result(name: str, frame_id: str) -> NDArray[np.uint8]:
        ids = guess(name, frame_id)
        return np.where(ids > truth(name, frames[name][0]).max(), np.uint8(0), ids)

    return [
        SequencePair(name, "multi", frames[name], {}, partial(truth, name), partial(result, name), lambda frame: frame)
        for name in names
    ]


@pytest.mark.slow
@pytest.mark.skipif(not CHECKOUT, reason="DAVIS2017_EVALUATION names no checkout of davis2017-evaluation")
@pytest.mark.parametrize("name", list(FIXTURE))
def test_equals_the_official_figures(name: str) -> None:
    osvos = Results(Path(CHECKOUT, "results/semi-supervised/osvos"))
    rvos = Results(Path(CHECKOUT, "results/unsupervised/rvos"))
    truth: Read
    guess: Read
    if name == "osvos_truth":
        truth, guess = osvos.mask, rvos.mask
        files = [file.removesuffix(".png") for file in osvos.names() if file.endswith(".png")]
    else:
        if not REAL.exists():
            pytest.skip(f"{REAL} is not available")
        real = open_archive(REAL)
        top = "DAVIS/Annotations/480p/"
        files = [n.removeprefix(top).removesuffix(".png") for n in real.names() if n.startswith(top)]

        def truth(sequence: str, frame_id: str) -> NDArray[np.uint8]:
            return decode_mask(real.read(f"{top}{sequence}/{frame_id}.png"), sequence)

        def merged(sequence: str, frame_id: str) -> NDArray[np.uint8]:
            return np.minimum(osvos.mask(sequence, frame_id), 1)

        guess = merged if name == "real_osvos" else rvos.mask
    frames: dict[str, tuple[str, ...]] = {}
    for file in files:
        sequence, _, frame_id = file.partition("/")
        frames[sequence] = (*frames.get(sequence, ()), frame_id)
    scores = score_sequences(pairs_of(sorted(frames), frames, truth, guess), score_davis, jobs=2)
    assert [f"{s.sequence}_{s.object_id}" for s in scores] == list(FIXTURE[name])
    for score in scores:
        figures = (score.j.mean, score.j.recall, score.j.decay, score.f.mean, score.f.recall, score.f.decay)
        assert figures == pytest.approx(FIXTURE[name][f"{score.sequence}_{score.object_id}"], abs=1e-9)
