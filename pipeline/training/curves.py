"""The table of a training's curves, one row per epoch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.core.files import write_text

_WHOLE = ["epoch", "step", "max_skip"]


def write_curves(path: Path, history: list[dict[str, Any]]) -> None:
    """Write the rows as CSV, complete or not at all, so that `dvc plots` also shows a training under way.

    Args:
        path: the file.
        history: one row per epoch: epoch, step, lr, max_skip and means over its steps; nothing that depends on time.
    """
    table = pd.DataFrame(history or None, columns=None if history else [*_WHOLE, "lr", "loss"])
    table[_WHOLE] = table[_WHOLE].astype(int)
    write_text(path, table.to_csv(index=False, float_format="%.6g"))
