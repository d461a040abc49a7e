"""Common part of pretraining and main training: from a network and clips to a checkpoint and its curves."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from pipeline.core.checkpoint import save_checkpoint
from pipeline.core.files import write_text
from pipeline.core.processes import join_processes
from pipeline.core.runtime import digest, log, scratch_lock, seed_everything
from pipeline.datasets.clips import ClipDataset, ClipMaker
from pipeline.dstm.checkpoint import KIND
from pipeline.dstm.config import NetworkConfig, Switches, to_plain
from pipeline.dstm.network import DSTM
from pipeline.training.config import LossSwitches, TrainingConfig
from pipeline.training.loop import fit
from pipeline.training.losses import Objective


@dataclass(frozen=True)
class Job:
    """Settings and paths of one training stage.

    Attributes:
        name: of the stage.
        switches: `model.*`.
        network: the profile's network.
        loss: `loss.*`.
        config: the profile's section of this stage.
        seed: of weights and clips.
        device: of the computation.
        workers: number of processes that prepare clips.
        inputs: digests of everything else that the result depends on, in addition to the parameters.
        scratch: folder for the resume state.
        model_path: the checkpoint to write.
        curves_path: the CSV of losses to write.
    """

    name: str
    switches: Switches
    network: NetworkConfig
    loss: LossSwitches
    config: TrainingConfig
    seed: int
    device: torch.device
    workers: int
    inputs: tuple[str, ...]
    scratch: Path
    model_path: Path
    curves_path: Path

    @property
    def key(self) -> str:
        """Name of the resume state: a run with other parameters or inputs never uses it."""
        settings = [to_plain(self.switches, self.network), asdict(self.loss), asdict(self.config)]
        return digest([self.name, self.seed, *settings, *self.inputs])


def make_network(job: Job, awaits_weights: bool = False) -> DSTM:
    """The network with initial weights drawn from the seed, on the job's device, in channels-last layout.

    Args:
        job: switches, configuration, seed and device.
        awaits_weights: weights of a checkpoint will be loaded, so ImageNet's are not read.
    """
    seed_everything(job.seed)
    network = DSTM(job.switches, job.network, awaits_weights)
    return network.to(job.device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def run_job(job: Job, network: DSTM, sources: Sequence[ClipMaker]) -> None:
    """Train and write the checkpoint and the curves; resumes an interrupted run.

    Args:
        job: settings and paths.
        network: with its initial weights.
        sources: the clips.
    """
    folder = job.scratch / job.key
    with join_processes() as processes:
        # one process locks the folder for all of them
        with scratch_lock(folder) if processes.first else nullcontext():
            state_path = folder / "state.pt"
            history = fit(
                network,
                ClipDataset(sources, job.config.clips),
                Objective(job.loss, job.config),
                job.config,
                # clips of the two stages must differ: the stage's name is part of their seed
                seed=int(digest([job.seed, job.name]), 16) % 2**31,
                device=job.device,
                workers=job.workers,
                state_path=state_path,
                processes=processes,
            )
            if processes.first:
                write_result(job, network, history)
                state_path.unlink(missing_ok=True)
        processes.agree(None)  # all processes wait until the result is written


def write_result(job: Job, network: DSTM, history: list[dict[str, Any]]) -> None:
    """Write the checkpoint (weights and configuration; nothing that differs between two runs) and the curves."""
    save_checkpoint(job.model_path, KIND, to_plain(job.switches, job.network), network.state_dict())
    table = pd.DataFrame(history)
    table[["epoch", "step", "max_skip"]] = table[["epoch", "step", "max_skip"]].astype(int)
    write_text(job.curves_path, table.to_csv(index=False, float_format="%.6g"))
    log(f"wrote {job.model_path.name} and {job.curves_path.name}")
