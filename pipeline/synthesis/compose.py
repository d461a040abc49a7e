"""Compose a background and cut-out objects: colours with soft edges, labels with hard ones."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.synthesis.layers import OBJECT, VOID, Layer

_FEATHER_SIGMA = 0.7  # pixels; about the blur of a camera's own edges


def paste_labels(
    layers: Sequence[Layer], ids: Sequence[int], matrices: Sequence[NDArray[np.float64]], frame: tuple[int, int]
) -> NDArray[np.uint8]:
    """The id mask of one frame.

    Args:
        layers: the background, then the cut-outs from bottom to top.
        ids: the id that the target of each layer has in the frame; 0 for a background without target.
        matrices: float64 2,3 for each layer, from its pixels to the frame's.
        frame: height and width of the frame.

    Returns:
        uint8 H,W: 0 background, ids, 255 void. Void of any layer stays void where that layer is on top. Beyond its
        edge the background is mirrored; a mirrored target is void, because it looks like the object but is not it.
    """
    mask = np.zeros(frame, np.uint8)
    for depth, (layer, identity, matrix) in enumerate(zip(layers, ids, matrices)):
        labels = _warp(layer.labels, matrix, frame, cv2.INTER_NEAREST, cv2.BORDER_CONSTANT, 0)
        if depth == 0:
            mirrored = _warp(layer.labels, matrix, frame, cv2.INTER_NEAREST, cv2.BORDER_REFLECT_101, 0)
            labels = np.where((labels == 0) & (mirrored > 0), VOID, labels)
        mask[labels == OBJECT] = identity
        mask[labels == VOID] = VOID
    return mask


def paste_colours(
    layers: Sequence[Layer], matrices: Sequence[NDArray[np.float64]], frame: tuple[int, int]
) -> NDArray[np.uint8]:
    """The colours of one frame, uint8 H,W,3; arguments as in `paste_labels`.

    The background is mirrored beyond its edge. A cut-out is blended by its warped outline, blurred a little.
    """
    background, *objects = layers
    canvas = _warp(background.rgb, matrices[0], frame, cv2.INTER_LINEAR, cv2.BORDER_REFLECT_101, 0)
    for layer, matrix in zip(objects, matrices[1:]):
        solid = (layer.labels > 0).astype(np.float32)
        alpha = _warp(solid, matrix, frame, cv2.INTER_LINEAR, cv2.BORDER_CONSTANT, 0)
        left, top, width, height = cv2.boundingRect((alpha > 0).astype(np.uint8))
        if width == 0:
            continue
        rows, columns = slice(max(0, top - 2), top + height + 2), slice(max(0, left - 2), left + width + 2)
        soft = cv2.GaussianBlur(alpha, (0, 0), _FEATHER_SIGMA)[rows, columns, None]
        # colours continue beyond the cut-out's edge; otherwise the soft edge would be darker
        colours = _warp(layer.rgb, matrix, frame, cv2.INTER_LINEAR, cv2.BORDER_REPLICATE, 0)[rows, columns]
        canvas[rows, columns] = np.rint(soft * colours + (1 - soft) * canvas[rows, columns]).astype(np.uint8)
    return canvas


def _warp(
    image: NDArray, matrix: NDArray[np.float64], frame: tuple[int, int], interpolation: int, border: int, value: int
) -> NDArray:
    height, width = frame
    return cv2.warpAffine(
        image, matrix, (width, height), flags=interpolation, borderMode=border, borderValue=(value,) * 4
    )
