"""Log-depth of frames of any size."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import nullcontext

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.core.kernels.onednn import arithmetic
from pipeline.hourglass.batches import input_sides, resize_rgb, to_tensor
from pipeline.hourglass.config import Precision
from pipeline.hourglass.fused import FusedHourglass
from pipeline.hourglass.network import Hourglass


class DepthEstimator:
    """A trained network prepared for inference; safe to call from several threads.

    Args:
        model: The network.
        device: Where to compute.
        precision: `bf16` for bfloat16 arithmetic in all layers except the last.
    """

    def __init__(self, model: Hourglass, device: torch.device, precision: Precision) -> None:
        self.config = model.config
        self._network = FusedHourglass(model, arithmetic(precision, device), device)
        self._device = device
        # two batches at a time keep a GPU busy; more would only use its memory
        self._turns = threading.Semaphore(2) if device.type == "cuda" else nullcontext()

    @torch.inference_mode()
    def log_depth(self, frames: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.float32]]:
        """Log-depth of each frame, up to a constant, at the network's output resolution.

        Args:
            frames: uint8 H,W,3 RGB; those of one shape are computed together.

        Returns:
            float32 h,w for each, in the same order; h and w have the frame's aspect ratio, up to the network's
            multiple.
        """
        results: list[NDArray[np.float32] | None] = [None] * len(frames)
        by_sides: dict[tuple[int, int], list[int]] = {}
        for i, frame in enumerate(frames):
            by_sides.setdefault(input_sides(frame.shape[0], frame.shape[1], self.config), []).append(i)
        for (height, width), places in by_sides.items():
            resized = [resize_rgb(frames[i], height, width) for i in places]
            with self._turns:
                log_depth, _ = self._network(to_tensor(resized, self._device))
                found = log_depth[:, 0].cpu().numpy()
            for i, one in zip(places, found):
                results[i] = one
        return [result for result in results if result is not None]
