"""Files written next to the masks: probabilities as grey images, and the table of doubt."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.core.files import write_bytes, write_text
from pipeline.core.images import decode_mask, encode_png

PROBABILITIES = "probabilities"  # folder of the images in the folder of results
DOUBT = "doubt.csv"
_COLUMNS = ("frame", "object", "pixels", "confidence", "doubt")


class DoubtRow(NamedTuple):
    """One object in one frame.

    Attributes:
        object: its id.
        pixels: size of its mask.
        confidence: mean probability over these pixels, in [0, 1].
        doubt: expected share of wrong pixels, in [0, 1].
    """

    object: int
    pixels: int
    confidence: float
    doubt: float


def write_probabilities(
    out: Path, name: str, ids: Sequence[int], probabilities: NDArray[np.float32], keep: Collection[str] = ()
) -> None:
    """Write a grey PNG of 8 bits for each object, `probabilities/<object>/<frame>.png`; 255 is probability 1.

    Args:
        out: folder of the results.
        name: of the frame.
        ids: of the K objects.
        probabilities: float32 K,H,W in [0, 1].
        keep: names of frames whose files stay unchanged.
    """
    if name in keep:
        return
    for one, plane in zip(ids, probabilities):
        steps = np.rint(plane * 255).astype(np.uint8)
        write_bytes(out / PROBABILITIES / str(one) / f"{name}.png", encode_png(steps))


def read_probability(out: Path, name: str, ids: Sequence[int]) -> NDArray[np.float32] | None:
    """The probability that a pixel is of one of some objects, from the pictures that are written for a frame.

    Args:
        out: folder of the results.
        name: of the frame.
        ids: of the objects.

    Returns:
        float32 H,W in [0, 1]; None if a picture is missing.

    Raises:
        UserError: a picture is damaged.
    """
    paths = [out / PROBABILITIES / str(one) / f"{name}.png" for one in ids]
    if not all(path.is_file() for path in paths):
        return None
    total = sum(decode_mask(path.read_bytes(), str(path)).astype(np.float32) for path in paths)
    return np.minimum(np.asarray(total, np.float32) / 255, 1)


class DoubtTable:
    """`doubt.csv`: one row per frame and object; frames in order.

    Args:
        out: folder of the results.
    """

    def __init__(self, out: Path) -> None:
        self._path = out / DOUBT
        self._rows: dict[int, tuple[str, Sequence[DoubtRow]]] = {}

    def add(self, index: int, name: str, rows: Sequence[DoubtRow]) -> None:
        """Add a frame, in any order."""
        self._rows[index] = (name, rows)

    def take_over(self, index_of: Mapping[str, int]) -> None:
        """Read the rows of some frames from the file of an earlier run, if there is one.

        Args:
            index_of: name -> index of these frames.
        """
        if not self._path.is_file():
            return
        found: dict[str, list[DoubtRow]] = {}
        for row in csv.DictReader(io.StringIO(self._path.read_text())):
            if row.get("frame") in index_of and all(row.get(column) for column in _COLUMNS):
                numbers = (int(row["object"]), int(row["pixels"]), float(row["confidence"]), float(row["doubt"]))
                found.setdefault(row["frame"], []).append(DoubtRow(*numbers))
        for name, rows in found.items():
            self.add(index_of[name], name, rows)

    def save(self) -> None:
        """Write the file."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(_COLUMNS)
        for _, (name, rows) in sorted(self._rows.items()):
            for row in rows:
                writer.writerow([name, row.object, row.pixels, f"{row.confidence:.4f}", f"{row.doubt:.4f}"])
        write_text(self._path, text.getvalue())

    def worst(self, count: int) -> list[tuple[str, DoubtRow]]:
        """Name and row of the frames with the most doubt about an object, at most `count`, worst first."""
        rows = [(name, max(rows, key=lambda row: row.doubt)) for name, rows in self._rows.values() if rows]
        return sorted(rows, key=lambda pair: -pair[1].doubt)[:count]
