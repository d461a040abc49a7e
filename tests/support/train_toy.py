"""Trains on the toy video and writes losses and sums of the weights; started by a test, under torchrun or not."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import torch

from pipeline.core.files import write_json
from pipeline.core.processes import join_processes
from pipeline.datasets.clips import ClipDataset
from pipeline.dstm.network import DSTM
from pipeline.training.config import LossSwitches
from pipeline.training.loop import Files, fit
from pipeline.training.losses import Objective
from tests.support.tiny_archives import make_toy
from tests.support.toy_network import ALL_ON, TINY
from tests.support.toy_training import OPTIONS, TRAINING, toy_source


def main(out: Path) -> None:
    # statistics of a batch are a process' own, so only other norms give the same result for any number of processes
    torch.manual_seed(0)
    torch.set_num_threads(1)
    network = DSTM(ALL_ON, replace(TINY, norm="group"))
    with join_processes() as processes:
        history = fit(
            network,
            ClipDataset([toy_source(make_toy())], TRAINING.clips),
            Objective(LossSwitches(True), TRAINING),
            TRAINING,
            OPTIONS,
            seed=3,
            device=torch.device("cpu"),
            files=Files(
                out.with_suffix(".pt"), out.with_suffix(".csv"), out.with_suffix(".events"), out.with_suffix(".kept")
            ),
            processes=processes,
        )
        if processes.first:
            sums = {name: float(value.double().abs().sum()) for name, value in network.state_dict().items()}
            write_json(out, {"history": history, "sums": sums})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
