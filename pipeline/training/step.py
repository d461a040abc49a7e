"""One optimizer step: forward and backward passes over parts of a batch, the check of the losses, the update."""

from __future__ import annotations

from contextlib import nullcontext
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from pipeline.core.errors import UserError
from pipeline.core.processes import Processes
from pipeline.datasets.clips import Batch
from pipeline.training.config import TrainingConfig
from pipeline.training.losses import Objective, clip_jaccard
from pipeline.training.state import State


class Reading(NamedTuple):
    """What has been read since the last time.

    Attributes:
        losses: means over the steps and over all processes.
        stop: whether any process was asked to stop; the same in every process.
    """

    losses: dict[str, float]
    stop: bool


class TrainingStep:
    """Steps of a training.

    Args:
        model: the network, or a wrapper that averages its gradients over processes.
        state: network, optimizer and position.
        objective: the losses.
        config: of the stage.
        clips_per_pass: clips of one forward and backward pass; 0: all that this process has.
        dtype: type of the arithmetic.
        processes: the processes that share the batch.
    """

    def __init__(
        self,
        model: nn.Module,
        state: State,
        objective: Objective,
        config: TrainingConfig,
        clips_per_pass: int,
        dtype: torch.dtype,
        processes: Processes,
    ) -> None:
        self._model, self._state, self._objective = model, state, objective
        self._config, self._clips_per_pass, self._dtype = config, clips_per_pass, dtype
        self._processes = processes
        self._unread: list[tuple[Tensor, tuple[str, ...]]] = []
        self._names: list[str] = []

    def __call__(self, batch: Batch, lr: float, due: bool, asked: bool) -> Reading | None:
        """Do one step.

        Args:
            batch: on the network's device.
            lr: learning rate.
            due: read the losses since the last time, which waits for a GPU; the same in every process.
            asked: whether this process was asked to stop.

        Returns:
            What was read, if it is due.

        Raises:
            UserError: a loss is not finite; no optimizer step was made with it.
        """
        for group in self._state.optimizer.param_groups:
            group["lr"] = lr
        self._state.optimizer.zero_grad(set_to_none=True)
        clips = len(batch.objects)
        parts = batch.parts(self._clips_per_pass or clips)
        values = [self._backward(part, len(part.objects) / clips, part is parts[-1]) for part in parts]
        self._unread.append((torch.stack(values).sum(dim=0), batch.names))
        reading = self._read(asked) if due else None
        self._update()
        return reading

    def _backward(self, part: Batch, share: float, last: bool) -> Tensor:
        """Add the gradients of a part of the batch; returns its share of the losses, which are means over clips."""
        device, classes = part.frames.device, part.objects.shape[1] + 1
        apart = isinstance(self._model, DistributedDataParallel) and not last
        with self._model.no_sync() if apart else nullcontext():  # type: ignore[operator]
            with torch.autocast(device.type, self._dtype, enabled=self._dtype != torch.float32):
                outcome = self._model(part.frames, part.depth, one_hot(part.labels[:, 0], classes), part.objects)
            losses = self._objective(outcome, part)
            self._names = [*losses, "jaccard"]
            self._state.scaler.scale(losses["loss"] * share).backward()
            jaccard = clip_jaccard(outcome.logits, part.labels[:, 1:], part.objects).mean()
        return torch.stack([*(value.detach() for value in losses.values()), jaccard]) * share

    def _update(self) -> None:
        """Step the optimizer; on a GPU the loss may not have been read yet, so the device checks the gradients."""
        state, limit = self._state, self._config.clip_norm
        weights = [p for p in state.network.parameters() if p.grad is not None]
        if limit and state.scaler.is_enabled():
            for part in state.optimizer.parts:
                state.scaler.unscale_(part)
        norm = nn.utils.clip_grad_norm_(weights, limit) if limit else None
        if weights and weights[0].is_cuda and not state.scaler.is_enabled():
            if norm is None:
                norm = nn.utils.get_total_norm([p.grad for p in weights if p.grad is not None])
            # if this is not 0, the optimizers leave the step out; gradients are the same in all processes
            state.optimizer.found_inf = (~torch.isfinite(norm)).float()
        state.update()

    def _read(self, asked: bool) -> Reading:
        """Read the losses of the last steps, averaged over all processes.

        Raises:
            UserError: a loss is not finite.
        """
        rows = torch.stack([row for row, _ in self._unread]).cpu().double().tolist()
        mine = {f"{i}.{name}": value for i, row in enumerate(rows) for name, value in zip(self._names, row)}
        means = self._processes.mean({**mine, "asked": float(asked)})
        first, total = self._state.counted, dict.fromkeys(self._names, 0.0)
        for i in range(len(rows)):
            losses = {name: means[f"{i}.{name}"] for name in self._names}
            if not abs(losses["loss"]) < float("inf"):  # also true for NaN
                bad = not abs(mine[f"{i}.loss"]) < float("inf")
                clips = self._processes.gather(list(self._unread[i][1]) if bad else [])
                raise UserError(
                    f"the loss is {losses['loss']} at step {first + i} with the clips {', '.join(clips)}; expected a "
                    "finite number; check these clips, or lower lr or clip_norm (the last good state is kept)"
                )
            self._state.count(losses)
            total = {name: total[name] + losses[name] for name in total}
        self._unread = []
        return Reading({name: value / len(rows) for name, value in total.items()}, means["asked"] > 0)


def one_hot(labels: Tensor, classes: int) -> Tensor:
    """Masks of a label map.

    Args:
        labels: int64 B,H,W; ids below `classes`; higher values (void) belong to no class.
        classes: K+1.

    Returns:
        float32 B,K+1,H,W.
    """
    return F.one_hot(labels.clamp(max=classes), classes + 1)[..., :classes].permute(0, 3, 1, 2).float()
