"""YouTube-VOS' rules: for each object, every annotated frame after its first one counts, including the last."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pipeline.core.errors import UserError
from pipeline.scoring.sequence import ObjectScore, ScoredFrame, SequencePair, compare


def score_youtubevos(pair: SequencePair, copy_first: bool = False) -> list[ObjectScore]:
    """Score the objects of one video, reading one frame at a time.

    An object that appears late is scored from the annotated frame after its first one, because its first mask was
    given. Void (255) in an annotation is background.

    Args:
        pair: annotation and result.
        copy_first: also score the baseline that copies each object's first mask to every later frame.

    Raises:
        UserError: an object appears only in the last annotated frame, or an invalid result.
    """
    position = {frame_id: at for at, frame_id in enumerate(pair.frames)}
    starts = {object_id: position[frame_id] for object_id, frame_id in sorted(pair.first_seen.items())}
    unscored = [object_id for object_id, at in starts.items() if at + 1 >= len(pair.frames)]
    if not starts or unscored:
        found = (
            f"object {unscored[0]} first appears in the last annotated frame" if unscored else "no object is annotated"
        )
        raise UserError(f"{pair.name}: {found}; expected annotated frames after it to score; leave the video out")
    highest = max(starts)

    def scored() -> Iterator[ScoredFrame]:
        copied = np.zeros_like(pair.annotated(pair.frames[0]))
        for at, frame_id in enumerate(pair.frames):
            annotation = pair.annotated(frame_id)
            objects = [object_id for object_id, start in starts.items() if start < at]
            if objects:
                result = pair.predicted(frame_id, annotation, highest)
                yield ScoredFrame(annotation, result, copied if copy_first else None, objects)
            for object_id in (o for o, start in starts.items() if start == at):
                copied[annotation == object_id] = object_id

    values = compare(scored())
    return [values[object_id].score(pair.name, object_id, pair.kind) for object_id in starts]
