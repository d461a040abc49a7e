"""The official package `davis2017` (davis2017-evaluation) run on the same masks, to compare with ours.

It is not on PyPI; docs/scoring.md says how to install it. It reads copies of the masks from a temporary folder, so that
splits given as a zip, merged objects and zipped results can be compared too.
"""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.core.errors import UserError
from pipeline.core.files import write_bytes, write_text
from pipeline.core.images import encode_mask
from pipeline.core.runtime import progress
from pipeline.scoring.sequence import ObjectScore, SequencePair

AGREEMENT = 1e-9

_INSTALL = "pip install git+https://github.com/davisvideochallenge/davis2017-evaluation"


@dataclass(frozen=True)
class Difference:
    """One metric of one object: ours and the official value."""

    sequence: str
    object_id: int
    figure: str
    ours: float
    official: float

    @property
    def size(self) -> float:
        """Absolute difference."""
        return abs(self.ours - self.official)


def import_official() -> Any:
    """The official package's class `DAVISEvaluation`.

    Raises:
        UserError: it cannot be imported.
    """
    try:
        return importlib.import_module("davis2017.evaluation").DAVISEvaluation
    except ImportError as error:
        raise UserError(f"davis2017 cannot be imported ({error}); expected davis2017-evaluation; {_INSTALL}") from None


def official_differences(pairs: Sequence[SequencePair], scores: Sequence[ObjectScore]) -> list[Difference]:
    """Score with the official package and compare with ours.

    Args:
        pairs: the sequences.
        scores: our metrics of all their objects, by DAVIS' rules.

    Returns:
        Mean, recall and decay of J and F of every object.

    Raises:
        UserError: the package cannot be imported.
    """
    evaluation = import_official()
    with tempfile.TemporaryDirectory() as folder:
        root, results = Path(folder, "DAVIS"), Path(folder, "results")
        write_text(root / "ImageSets/2017/val.txt", "".join(f"{pair.name}\n" for pair in pairs))
        for pair in progress(pairs, len(pairs), "copying masks for davis2017"):
            _copy(pair, root / "Annotations/480p" / pair.name, results / pair.name)
        (root / "JPEGImages/480p").mkdir(parents=True)
        # codalab: the mode of the challenge server, which needs no frames
        figures = evaluation(str(root), "semi-supervised", "val", codalab=True).evaluate(str(results))
    return _differences(figures, scores)


def _copy(pair: SequencePair, annotations: Path, results: Path) -> None:
    for frame_id in pair.frames:
        annotation = pair.annotated(frame_id) if pair.merge else pair.annotation(frame_id)
        write_bytes(annotations / f"{frame_id}.png", encode_mask(annotation))
    for frame_id in pair.frames[1:-1]:
        result = pair.result(frame_id)
        write_bytes(results / f"{frame_id}.png", encode_mask(np.minimum(result, 1) if pair.merge else result))


def _differences(figures: dict[str, Any], scores: Sequence[ObjectScore]) -> list[Difference]:
    official = {
        f"{measure}-{figure}": dict(zip(figures[measure]["M_per_object"], figures[measure][key], strict=True))
        for measure in ("J", "F")
        for key, figure in (("M", "mean"), ("R", "recall"), ("D", "decay"))
    }
    found = []
    for score in scores:
        for name, by_object in official.items():
            measure, figure = name.split("-")
            ours = getattr(score.j if measure == "J" else score.f, figure)
            theirs = float(by_object[f"{score.sequence}_{score.object_id}"])
            found.append(Difference(score.sequence, score.object_id, name, ours, theirs))
    return found


def differences_table(differences: Sequence[Difference]) -> str:
    """The largest difference of each metric, then every difference above `AGREEMENT`."""
    objects = len({(d.sequence, d.object_id) for d in differences})
    lines = [f"compared with davis2017 over {objects} objects, largest differences:"]
    for figure in dict.fromkeys(d.figure for d in differences):
        lines.append(f"  {figure:<9} {max(d.size for d in differences if d.figure == figure):.1e}")
    beyond = [d for d in differences if not d.size <= AGREEMENT]
    lines += [f"  {d.sequence} {d.object_id} {d.figure}: ours {d.ours!r}, official {d.official!r}" for d in beyond]
    lines.append(f"{len(beyond)} of {len(differences)} values differ by more than {AGREEMENT:.0e}")
    return "\n".join(lines)
