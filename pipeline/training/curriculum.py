"""What changes during training: the skip between frames and the learning rate."""

from __future__ import annotations

import math

from pipeline.training.config import TrainingConfig


def max_skip(config: TrainingConfig, epoch: int) -> int:
    """Largest number of frames skipped between two frames of a clip; grows linearly from the first to the last epoch.

    Args:
        config: of the stage.
        epoch: from 0.
    """
    if config.epochs == 1:
        return config.skip_end
    return round(config.skip_start + (config.skip_end - config.skip_start) * epoch / (config.epochs - 1))


def learning_rate(config: TrainingConfig, step: int, steps_per_epoch: int) -> float:
    """Learning rate of an optimizer step.

    Args:
        config: of the stage.
        step: from 0.
        steps_per_epoch: steps per epoch.
    """
    total = config.epochs * steps_per_epoch
    warmup = min(1.0, (step + 1) / config.warmup_steps) if config.warmup_steps else 1.0
    if config.schedule == "cosine":
        factor = 0.5 * (1 + math.cos(math.pi * step / total))
    else:
        factor = config.decay_factor if step >= config.decay_epoch * steps_per_epoch else 1.0
    return config.lr * warmup * factor
