"""Common part of pretraining and main training: from a network and clips to a checkpoint and its curves."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from pipeline.core.checkpoint import save_checkpoint
from pipeline.core.errors import UserError
from pipeline.core.processes import join_processes
from pipeline.core.resume import enter_state_folder, state_folder
from pipeline.core.runtime import digest, file_digest, log, scratch_lock, seed_everything
from pipeline.datasets.clips import ClipDataset, ClipMaker
from pipeline.dstm.checkpoint import KIND
from pipeline.dstm.config import NetworkConfig, Switches, to_plain
from pipeline.dstm.imagenet_weights import PACKAGE
from pipeline.dstm.network import DSTM
from pipeline.training.config import LossSwitches, RunOptions, TrainingConfig
from pipeline.training.curves import write_curves
from pipeline.training.initial import NO_FILE, covers_encoders, fill, read_weights
from pipeline.training.loop import Files, fit
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
        options: how the stage is run.
        inputs: name -> digest of everything else that the result depends on, in addition to the parameters.
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
    options: RunOptions
    inputs: Mapping[str, str]
    scratch: Path
    model_path: Path
    curves_path: Path

    @property
    def facts(self) -> dict[str, Any]:
        """Everything that the result depends on; a run with other parameters or inputs never uses its resume state."""
        plain = to_plain(self.switches, self.network)
        training = {"loss": asdict(self.loss), self.name: asdict(self.config)}
        return {"seed": self.seed, **plain, **training, "inputs": dict(self.inputs)}


def make_network(job: Job, awaits_weights: bool = False) -> DSTM:
    """The network with initial weights drawn from the seed, on the job's device, in channels-last layout.

    Args:
        job: switches, configuration, seed and device.
        awaits_weights: weights of a checkpoint will be loaded, so ImageNet's are not read.
    """
    seed_everything(job.seed)
    network = DSTM(job.switches, job.network, awaits_weights)
    if job.config.compiled:  # in place and when they are first called: names of weights do not change
        for part in (network.query_encoder.backbone, network.memory_encoder.backbone, network.decoder):
            part.compile()
    return network.to(job.device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def weight_inputs(config: TrainingConfig, network: NetworkConfig) -> dict[str, str]:
    """Name -> digest of the files that give initial weights.

    Raises:
        UserError: one is missing.
    """
    named = {"init_from": config.init_from, "network.pretrained": network.pretrained}
    digests = {}
    for name, value in named.items():
        if isinstance(value, str) and value not in (NO_FILE, PACKAGE):
            if not Path(value).is_file():
                raise UserError(f"{name} is {value}, which is not a file; expected weights; correct it in params.yaml")
            digests[name] = file_digest(Path(value))
    return digests


def initial_network(job: Job) -> DSTM:
    """The network with the weights that `init_from` names; what they lack is initialised as without them.

    Args:
        job: whose `init_from` is a file.

    Raises:
        UserError: the file is damaged, or of another network.
    """
    path = Path(job.config.init_from)
    weights = read_weights(path)
    network = make_network(job, awaits_weights=True)
    if not covers_encoders(network, weights):
        network = make_network(job)
    fill(network, weights, path)
    return network


def run_job(job: Job, network: DSTM, sources: Sequence[ClipMaker]) -> None:
    """Train and write the checkpoint and the curves; resumes an interrupted run.

    Args:
        job: settings and paths.
        network: with its initial weights.
        sources: the clips.
    """
    folder = state_folder(job.scratch, job.facts)
    with join_processes() as processes:
        # one process locks the folder for all of them
        with scratch_lock(folder) if processes.first else nullcontext():
            if processes.first:
                enter_state_folder(folder, job.facts)
            processes.agree(None)
            history = fit(
                network,
                ClipDataset(sources, job.config.clips),
                Objective(job.loss, job.config),
                job.config,
                job.options,
                # clips of the two stages must differ: the stage's name is part of their seed
                seed=int(digest([job.seed, job.name]), 16) % 2**31,
                device=job.device,
                files=Files(
                    folder / "state.pt",
                    job.curves_path,
                    job.scratch.parent / "tensorboard" / job.name,
                    job.scratch.parent / "kept" / job.name,
                ),
                processes=processes,
                calibrates=job.config.init_from == NO_FILE,
            )
            if processes.first:
                write_result(job, network, history)
                shutil.rmtree(folder)
        processes.agree(None)  # all processes wait until the result is written


def write_result(job: Job, network: DSTM, history: list[dict[str, Any]]) -> None:
    """Write the checkpoint (weights and configuration; nothing that differs between two runs) and the curves."""
    save_checkpoint(job.model_path, KIND, to_plain(job.switches, job.network), network.state_dict())
    write_curves(job.curves_path, history)
    log(f"wrote {job.model_path.name} and {job.curves_path.name}")
