"""Which steps of a training end an epoch, save the state, read the losses, or end the run."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.training.config import RunOptions, TrainingConfig

_READ_EVERY = 10  # on a GPU the losses are read every so many steps, because reading waits for the GPU


@dataclass(frozen=True)
class Plan:
    """The plan of a run; the same in every process.

    Attributes:
        config: of the stage.
        options: how it is run.
        steps_per_epoch: steps per epoch.
        first: steps that earlier runs have made.
        cheap_reads: reading the losses waits for nothing, as on a CPU.
    """

    config: TrainingConfig
    options: RunOptions
    steps_per_epoch: int
    first: int
    cheap_reads: bool

    @property
    def total(self) -> int:
        """Steps of the whole training."""
        return self.config.epochs * self.steps_per_epoch

    def ends_epoch(self, done: int) -> bool:
        """Whether an epoch ends after `done` steps."""
        return done % self.steps_per_epoch == 0

    def ends_run(self, done: int) -> bool:
        """Whether this run ends after `done` steps although the training does not."""
        return self.options.stop_after > 0 and done == self.first + self.options.stop_after < self.total

    def saves(self, done: int) -> bool:
        """Whether the state is saved after `done` steps."""
        every = self.options.save_every
        return self.ends_epoch(done) or self.ends_run(done) or (every > 0 and done % every == 0)

    def reads(self, done: int) -> bool:
        """Whether the losses are read in the step after which there are `done`."""
        return self.cheap_reads or self.saves(done) or done % _READ_EVERY == 0
