"""All of params.yaml; every command checks the complete file."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pipeline.core.errors import UserError
from pipeline.core.params import Natural, Range, Seed, build, merge, read_yaml
from pipeline.core.runtime import available_cores, check_device
from pipeline.dstm.config import NetworkConfig, Switches
from pipeline.hourglass.config import DepthConfig, HourglassConfig, TrainDepthConfig
from pipeline.inference.config import InferConfig, InferSwitches
from pipeline.live.config import LiveConfig
from pipeline.sample.config import WorldConfig
from pipeline.sources.config import DataConfig
from pipeline.synthesis.config import SynthesisConfig
from pipeline.training.config import LossSwitches, RunOptions, TrainingConfig


@dataclass(frozen=True)
class RuntimeConfig:
    """How a stage is run. Nothing here changes a result, except `processes` with batch norm on a CPU.

    Attributes:
        device: `auto`, `cpu`, `cuda` or `cuda:N`; the last one only with one process.
        workers: threads or processes that prepare data; `settings_of` replaces 0 by the cores there are.
        processes: training and inference processes on each machine.
        machines: machines that train or infer together; each runs the same command.
        rendezvous: `host:port` of one of several machines, where they find each other; `none` for one machine.
        save_every: optimizer steps between two saves of a training's resume state; 0: only at the end of an epoch.
        clips_per_pass: clips that a process trains on at a time, see `RunOptions`; 0: its share of the batch.
        stop_after: optimizer steps after which a training stops unfinished, for a trial; 0: never.
        tensorboard: trainings also write TensorBoard's event files, to `.scratch/tensorboard/<stage>`.
    """

    device: str
    workers: Annotated[int, Range(1, 1024)]
    processes: Annotated[int, Range(1, 1024)]
    machines: Annotated[int, Range(1, 1024)]
    rendezvous: str
    save_every: Natural
    clips_per_pass: Natural
    stop_after: Natural
    tensorboard: bool

    def __post_init__(self) -> None:
        check_device(self.device)
        if ":" in self.device and self.processes > 1:
            raise UserError(
                f"runtime.device is {self.device} with runtime.processes {self.processes}; expected auto or "
                "cuda, which give each process its own GPU; correct one of them in params.yaml"
            )
        if self.machines > 1 and not re.fullmatch(r"[^\s:]+:\d+", self.rendezvous):
            raise UserError(
                f"runtime.rendezvous is {self.rendezvous!r} with runtime.machines {self.machines}; expected "
                "host:port of one of the machines; correct it in params.yaml"
            )

    @property
    def options(self) -> RunOptions:
        """What the training loop needs."""
        return RunOptions(self.workers, self.save_every, self.clips_per_pass, self.stop_after, self.tensorboard)


@dataclass(frozen=True)
class ProfileParams:
    """One profile: a section for each stage and network.

    Attributes:
        data: the source of each data set.
        render: whether the sample is rendered; false in a profile that does not use it.
        synthesis: the simulated videos.
        live: simulated videos that are drawn again each time during training instead.
        hourglass: the depth network.
        train_depth: its training.
        depth: its use.
        network: the segmentation network.
        pretrain: its training on simulated videos.
        train: its training on real videos.
        infer: its use.
    """

    data: DataConfig
    render: bool
    synthesis: SynthesisConfig
    live: LiveConfig
    hourglass: HourglassConfig
    train_depth: TrainDepthConfig
    depth: DepthConfig
    network: NetworkConfig
    pretrain: TrainingConfig
    train: TrainingConfig
    infer: InferConfig


# Sections that `shared` may contain for all profiles; `training` is what pretrain and train have in common.
SHARED = ("synthesis", "live", "hourglass", "train_depth", "depth", "network", "training", "infer")
_MAX_WORKERS = 16  # that `workers: 0` gives a process; each keeps a few batches in memory
TRAININGS = ("pretrain", "train")


@dataclass(frozen=True)
class Settings:
    """The content of the file; a profile's sections are complete, including keys from `shared`.

    Attributes:
        profile: name of the active profile.
        seed: of initial weights and of the training clips.
        model: switches of the network.
        loss: switches of the loss.
        infer: switches of inference.
        runtime: how a stage is run.
        world: the rendered sample.
        profiles: all profiles by name.
    """

    profile: str
    seed: Seed
    model: Switches
    loss: LossSwitches
    infer: InferSwitches
    runtime: RuntimeConfig
    world: WorldConfig
    profiles: dict[str, ProfileParams]

    def __post_init__(self) -> None:
        if self.profile not in self.profiles:
            raise UserError(
                f"profile is {self.profile!r}; expected one of {', '.join(self.profiles)}; correct it in params.yaml"
            )

    @property
    def profile_params(self) -> ProfileParams:
        """The sections of the active profile."""
        return self.profiles[self.profile]


def load_settings(path: Path = Path("params.yaml")) -> Settings:
    """Read and check the complete file, with all profiles.

    Raises:
        UserError: the file is missing or not a YAML file, or a key is unknown, missing, mistyped or given twice.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist in {Path.cwd()}; expected the parameters; run from the project's root")
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise UserError(f"{path} holds {type(content).__name__}; expected a mapping of sections; correct it")
    return settings_of(content)


def settings_of(content: dict[str, Any]) -> Settings:
    """Check the content of a parameters file.

    Args:
        content: what YAML gave.

    Raises:
        UserError: a key is unknown, missing, mistyped or given twice.
    """
    shared, profiles = (_mapping(content, name) for name in ("shared", "profiles"))
    for key in shared:
        if key not in SHARED:
            raise UserError(f"unknown key shared.{key}; expected one of {', '.join(SHARED)}; correct or remove it")
    rest = {key: value for key, value in content.items() if key != "shared"}
    if isinstance(rest.get("runtime"), dict):
        rest["runtime"] = _with_workers(rest["runtime"])
    complete = {name: _complete_profile(str(name), _mapping(profiles, name, "profiles."), shared) for name in profiles}
    return build(Settings, {**rest, "profiles": complete}, "")


def _with_workers(runtime: dict[str, Any]) -> dict[str, Any]:
    """The section of params.yaml; `workers: 0` becomes the number of cores for each process."""
    workers, processes = runtime.get("workers"), runtime.get("processes")
    if type(workers) is not int or workers or type(processes) is not int or processes < 1:
        return runtime  # as it is, or refused when it is built
    return {**runtime, "workers": min(_MAX_WORKERS, max(1, available_cores() // processes))}


def _complete_profile(name: str, profile: dict[str, Any], shared: dict[str, Any]) -> dict[str, Any]:
    """The profile's sections with the shared keys, and with `training` copied to its two stages."""
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise UserError(f"a profile is named {name!r}; expected letters, digits, _ and - (a folder's name); rename it")
    training = _mapping(profile, "training", f"profiles.{name}.")
    sections: dict[str, Any] = {}
    for key, section in profile.items():
        parts = {}
        if key in SHARED:
            parts[f"shared.{key}"] = shared.get(key, {})
        elif key in TRAININGS:
            parts["shared.training"] = shared.get("training", {})
            parts[f"profiles.{name}.training"] = training
        sections[key] = merge({**parts, f"profiles.{name}.{key}": section}) if parts else section
    sections.pop("training", None)
    return sections


def _mapping(content: dict[str, Any], key: str, prefix: str = "") -> dict[str, Any]:
    """The mapping under a key.

    Raises:
        UserError: the key is missing, or is not a mapping.
    """
    found = content.get(key)
    if not isinstance(found, dict):
        raise UserError(f"{prefix}{key} is {found!r}; expected a mapping of sections; correct it in params.yaml")
    return found
