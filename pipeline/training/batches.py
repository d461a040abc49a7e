"""Batches of clips, prepared by worker processes during training."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from pipeline.core.errors import UserError
from pipeline.core.signals import end_with_parent
from pipeline.datasets.clips import Batch, ClipDataset, collate
from pipeline.training.config import TrainingConfig
from pipeline.training.curriculum import max_skip

_AHEAD = 2  # batches that a worker prepares before they are needed


class _Steps(Dataset[Batch | UserError]):
    """The batch of each step; a clip depends only on (seed, step, index in the batch)."""

    def __init__(
        self, dataset: ClipDataset, config: TrainingConfig, seed: int, indices: Sequence[int], steps_per_epoch: int
    ) -> None:
        self._dataset, self._config, self._seed = dataset, config, seed
        self._indices, self._steps_per_epoch = indices, steps_per_epoch

    def __getitem__(self, step: int) -> Batch | UserError:
        skip = max_skip(self._config, step // self._steps_per_epoch)
        try:
            seeds = [np.random.SeedSequence((self._seed, step, index)) for index in self._indices]
            clips = [self._dataset.sample(np.random.default_rng(seed), skip) for seed in seeds]
        except UserError as error:  # returned, and raised by the caller; from a worker it would arrive as a traceback
            return error
        return collate(clips, self._config.clips.max_objects)


def first_batch(dataset: ClipDataset, config: TrainingConfig, seed: int) -> Batch:
    """The global batch of step 0, over all processes.

    Raises:
        UserError: unreadable data.
    """
    return _checked(_Steps(dataset, config, seed, range(config.batch), 1)[0])


def batches(
    dataset: ClipDataset,
    config: TrainingConfig,
    seed: int,
    steps: range,
    *,
    indices: Sequence[int],
    steps_per_epoch: int,
    workers: int,
    pinned: bool,
) -> Iterator[tuple[int, Batch]]:
    """This process' part of each batch, in order.

    The number of workers or processes, or an interruption, does not change the clips.

    Args:
        dataset: source of the clips.
        config: of the stage.
        seed: of the clips.
        steps: the steps to prepare.
        indices: indices in the global batch that belong to this process.
        steps_per_epoch: steps per epoch.
        workers: number of processes that prepare batches; each prepares one batch at a time.
        pinned: put batches into page-locked memory.

    Yields:
        The step and its batch.

    Raises:
        UserError: unreadable data.
    """
    loader = DataLoader(
        _Steps(dataset, config, seed, indices, steps_per_epoch),
        batch_size=None,  # a sample is a batch
        sampler=steps,
        num_workers=workers,
        prefetch_factor=_AHEAD,
        collate_fn=_unchanged,
        pin_memory=pinned,
        worker_init_fn=_start_worker,
        multiprocessing_context="fork",  # shares the index of the data sets instead of copying it
        generator=torch.Generator(),  # otherwise it would use the generator of the initial weights
    )
    for step, batch in zip(steps, loader):
        yield step, _checked(batch)


def _unchanged(batch: Any) -> Any:
    return batch


def _checked(batch: Batch | UserError) -> Batch:
    if isinstance(batch, UserError):
        raise batch
    return batch


def _start_worker(number: int) -> None:
    for stop in (signal.SIGINT, signal.SIGTERM):  # they reach all processes; the parent stops its workers
        signal.signal(stop, signal.SIG_IGN)
    cv2.setNumThreads(0)  # one process per core is enough, and OpenCV's threads do not survive a fork
    end_with_parent()
