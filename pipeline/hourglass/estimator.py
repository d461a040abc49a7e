"""Depth of frames of any size: resized, through the network, as log-depth."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.hourglass.batches import input_sides, resize_rgb, to_tensor
from pipeline.hourglass.config import Precision
from pipeline.hourglass.fused import FusedHourglass
from pipeline.hourglass.network import Hourglass


class DepthEstimator:
    """A trained network made ready for inference; safe to call from several threads.

    Args:
        model: The network.
        device: Where to compute.
        precision: `bf16` for bfloat16 arithmetic in all but the last layer.
    """

    def __init__(self, model: Hourglass, device: torch.device, precision: Precision) -> None:
        self.config = model.config
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        self._network = FusedHourglass(model, dtype, device)
        self._device = device

    @torch.inference_mode()
    def log_depth(self, frames: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.float32]]:
        """Log-depth of each frame, up to a constant, at the network's output resolution.

        Args:
            frames: uint8 H,W,3 RGB; those of one shape are computed together.

        Returns:
            float32 h,w for each, in the same order; h and w keep the frame's aspect to within the network's multiple.
        """
        results: list[NDArray[np.float32] | None] = [None] * len(frames)
        by_sides: dict[tuple[int, int], list[int]] = {}
        for i, frame in enumerate(frames):
            by_sides.setdefault(input_sides(frame.shape[0], frame.shape[1], self.config), []).append(i)
        for (height, width), places in by_sides.items():
            batch = to_tensor([resize_rgb(frames[i], height, width) for i in places]).to(self._device)
            log_depth, _ = self._network(batch)
            for i, one in zip(places, log_depth[:, 0].cpu().numpy()):
                results[i] = one
        return [result for result in results if result is not None]
