"""Compose a background and cut-out objects: colours with soft edges, labels with hard ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.synthesis.layers import OBJECT, VOID, Layer

_FEATHER_SIGMA = 0.7  # pixels; about the blur of a camera's own edges
_UNSEEN = 1e-4  # an opacity that differs by less from 0 or 1 changes no level of 255
_REACH = 9  # rows beyond a cut-out: 1 of interpolation, 2 of the pasted margin, and the blur's 3 on both sides of it


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
        if layer.is_empty:
            continue
        rows = _rows(layer, matrix, frame) if depth else slice(0, frame[0])
        labels = _warp(layer.labels, matrix, frame, rows, cv2.INTER_NEAREST, cv2.BORDER_CONSTANT)
        if depth == 0 and not _covers(layer, matrix, frame):
            mirrored = _warp(layer.labels, matrix, frame, rows, cv2.INTER_NEAREST, cv2.BORDER_REFLECT_101)
            labels = np.where((labels == 0) & (mirrored > 0), VOID, labels)
        mask[rows][labels == OBJECT] = identity
        mask[rows][labels == VOID] = VOID
    return mask


def paste_colours(
    layers: Sequence[Layer], matrices: Sequence[NDArray[np.float64]], frame: tuple[int, int]
) -> NDArray[np.uint8]:
    """The colours of one frame, uint8 H,W,3; arguments as in `paste_labels`.

    The background is mirrored beyond its edge. A cut-out is blended by its warped outline, blurred a little.
    """
    background, *objects = layers
    everything = slice(0, frame[0])
    canvas = _warp(background.rgb, matrices[0], frame, everything, cv2.INTER_LINEAR, cv2.BORDER_REFLECT_101)
    for layer, matrix in zip(objects, matrices[1:]):
        band = _rows(layer, matrix, frame)
        alpha = _warp(layer.solid, matrix, frame, band, cv2.INTER_LINEAR, cv2.BORDER_CONSTANT)
        left, top, width, height = cv2.boundingRect((alpha > 0).astype(np.uint8))
        if width == 0:
            continue
        rows, columns = slice(max(0, top - 2), top + height + 2), slice(max(0, left - 2), left + width + 2)
        soft = cv2.GaussianBlur(alpha, (0, 0), _FEATHER_SIGMA)[rows, columns, None]
        # colours continue beyond the cut-out's edge; otherwise the soft edge would be darker
        colours = _warp(layer.rgb, matrix, frame, band, cv2.INTER_LINEAR, cv2.BORDER_REPLICATE)[rows, columns]
        _blend(canvas[band][rows, columns], colours, soft)
    return canvas


def _blend(below: NDArray[np.uint8], colours: NDArray[np.uint8], soft: NDArray[Any]) -> None:
    """Mix h,w,3 colours into `below` by their opacity h,w,1; only at the edge is there anything to compute."""
    cv2.copyTo(colours, (soft > 1 - _UNSEEN).astype(np.uint8), below)
    edge = ((soft >= _UNSEEN) & (soft <= 1 - _UNSEEN))[..., 0]
    share = soft[edge]
    below[edge] = np.rint(share * colours[edge] + (1 - share) * below[edge]).astype(np.uint8)


def _rows(layer: Layer, matrix: NDArray[np.float64], frame: tuple[int, int]) -> slice:
    """The rows of the frame that a cut-out can reach, with its soft edge; it is neither warped nor blurred elsewhere.

    Not its columns: OpenCV rounds positions from the first column on, so a narrower warp would give other pixels.
    """
    height, width = layer.labels.shape
    corners = matrix[1, 0] * np.array([0, width - 1, 0, width - 1]) + matrix[1, 1] * np.array(
        [0, 0, height - 1, height - 1]
    )
    low, high = corners.min() + matrix[1, 2] - _REACH, corners.max() + matrix[1, 2] + _REACH
    top = int(np.clip(np.floor(low), 0, frame[0] - 1))
    return slice(top, int(np.clip(np.ceil(high) + 1, top + 1, frame[0])))


def _covers(layer: Layer, matrix: NDArray[np.float64], frame: tuple[int, int]) -> bool:
    """Whether the whole frame lies inside the layer, so that nothing of it is mirrored."""
    height, width = frame
    corners = np.array([[0, width - 1, 0, width - 1], [0, 0, height - 1, height - 1]])
    x, y = np.linalg.inv(matrix[:, :2]) @ (corners - matrix[:, 2:])
    inner_height, inner_width = layer.labels.shape
    return bool(min(x.min(), y.min()) >= 1 and x.max() <= inner_width - 2 and y.max() <= inner_height - 2)


def _warp(
    image: NDArray, matrix: NDArray[np.float64], frame: tuple[int, int], rows: slice, interpolation: int, border: int
) -> NDArray:
    """Some rows of the warped image; pixel for pixel those of the warp of the whole frame."""
    moved = matrix.copy()
    moved[1, 2] -= rows.start
    return cv2.warpAffine(
        image, moved, (frame[1], rows.stop - rows.start), flags=interpolation, borderMode=border, borderValue=(0,) * 4
    )
