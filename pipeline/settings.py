"""All of params.yaml, checked as a whole by every command."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml

from pipeline.core.errors import UserError
from pipeline.core.params import build
from pipeline.dstm.config import NetworkConfig, Switches
from pipeline.hourglass.config import DepthConfig, HourglassConfig, TrainDepthConfig
from pipeline.inference.config import InferConfig, InferSwitches
from pipeline.sample.config import WorldConfig
from pipeline.sources.config import DataConfig
from pipeline.synthesis.config import SynthesisConfig
from pipeline.training.config import LossSwitches, TrainingConfig


@dataclass(frozen=True)
class RuntimeConfig:
    """How a stage is run; nothing here changes a result.

    Attributes:
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        workers: threads or processes that prepare data.
        processes: training and inference processes.
    """

    device: str
    workers: int
    processes: int

    def __post_init__(self) -> None:
        if self.workers < 1 or self.processes < 1:
            raise UserError(
                f"runtime is workers {self.workers}, processes {self.processes}; expected at least 1 of each"
            )


@dataclass(frozen=True)
class ProfileParams:
    """One profile: a section for each stage and network."""

    data: DataConfig
    world: WorldConfig
    synthesis: SynthesisConfig
    hourglass: HourglassConfig
    train_depth: TrainDepthConfig
    depth: DepthConfig
    network: NetworkConfig
    pretrain: TrainingConfig
    train: TrainingConfig
    infer: InferConfig


@dataclass(frozen=True)
class Profiles:
    """The two profiles."""

    sample: ProfileParams
    paper: ProfileParams


@dataclass(frozen=True)
class Settings:
    """The file."""

    profile: Literal["sample", "paper"]
    seed: int
    model: Switches
    loss: LossSwitches
    infer: InferSwitches
    runtime: RuntimeConfig
    profiles: Profiles

    @property
    def profile_params(self) -> ProfileParams:
        """The sections of the active profile."""
        return self.profiles.paper if self.profile == "paper" else self.profiles.sample


def load_settings(path: Path = Path("params.yaml")) -> Settings:
    """Read and check the whole file, both profiles.

    Raises:
        UserError: no file, no YAML, or a key that is unknown, missing or mistyped.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist in {Path.cwd()}; expected the parameters; run from the project's root")
    try:
        content = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise UserError(f"{path} is no YAML ({' '.join(str(error).split())[:160]}); correct it") from None
    return build(Settings, content, "")
