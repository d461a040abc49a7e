"""Every path of the pipeline, in one place."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from pipeline.core.archive_index import store_folder


@dataclass(frozen=True)
class Layout:
    """Paths below a root for one profile.

    Attributes:
        root: the folder that holds `params.yaml`.
        profile: name of the profile.
    """

    root: Path
    profile: str

    @property
    def data(self) -> Path:
        """Folder of all data, from the published archives to the masks."""
        return self.root / "data" / self.profile

    def embedded(self, dataset: str) -> Path:
        """Archives of the rendered sample, with the names and layouts of the published ones."""
        return self.data / "embedded" / dataset

    def raw(self, dataset: str) -> Path:
        """The verified archives of a dataset and their manifest."""
        return self.data / "raw" / dataset

    def simulated(self, dataset: str) -> Path:
        """Shards of short videos simulated from a dataset of stills."""
        return self.data / "simulated" / dataset

    def depth(self, dataset: str) -> Path:
        """Shards of a depth map for every frame of a dataset."""
        return self.data / "depth" / dataset

    @property
    def store(self) -> Path:
        """Downloads and indices of archives, for all profiles; not an output of any stage."""
        return store_folder() or self.root / "data" / "store"

    @property
    def masks(self) -> Path:
        """Predicted masks in DAVIS' result layout."""
        return self.data / "masks"

    @property
    def submission(self) -> Path:
        """The archive for a challenge's server; empty if the split is scored here."""
        return self.data / "submission"

    def model(self, name: str) -> Path:
        """A checkpoint: `depth`, `pretrain` or `dstm`."""
        return self.root / "models" / self.profile / f"{name}.pt"

    @property
    def metrics(self) -> Path:
        """Metrics, kept in git."""
        return self.root / "metrics"

    def scratch(self, stage: str) -> Path:
        """Folder for a stage's resume state: outside every DVC output, in the main checkout even in `--temp` runs."""
        return Path(os.environ.get("DVC_ROOT", self.root)) / ".scratch" / stage
