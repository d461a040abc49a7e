"""DAVIS' semi-supervised rules (2017; 2016 with merged objects): which objects and frames of a sequence count.

The official scorer is `davisvideochallenge/davis2017-evaluation`; docs/scoring.md compares ours with it.
"""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.core.errors import UserError
from pipeline.scoring.sequence import FrameValues, ObjectScore, ScoredFrame, SequencePair, compare


def score_davis(pair: SequencePair, copy_first: bool = False) -> list[ObjectScore]:
    """Score the objects of one sequence, reading one frame at a time.

    Objects are the ids from 1 to the highest of the first annotation, whether or not each of them occurs. The first
    and the last frame are not scored. Void (255) in an annotation is background.

    Args:
        pair: annotation and result.
        copy_first: also score the baseline that copies the first annotation to every frame.

    Raises:
        UserError: fewer than three frames, no object in the first annotation, or an invalid result.
    """
    values = davis_values(pair, copy_first)
    return [found.score(pair.name, object_id, pair.kind) for object_id, found in values.items()]


def davis_values(pair: SequencePair, copy_first: bool = False) -> dict[int, FrameValues]:
    """J and F of the objects of one sequence in each scored frame (`pair.frames[1:-1]`).

    Args:
        pair: annotation and result.
        copy_first: also score the baseline that copies the first annotation to every frame.

    Returns:
        Object id -> values, in ascending order of the ids.

    Raises:
        UserError: as `score_davis`.
    """
    if len(pair.frames) < 3:
        raise UserError(
            f"{pair.name} has {len(pair.frames)} annotated frames; expected at least 3, because the first and the last "
            "are not scored; leave the sequence out of the split"
        )
    first = pair.annotated(pair.frames[0])
    highest = int(first.max())
    if not highest:
        raise UserError(
            f"{pair.name}: the first annotation has no object; expected at least one; correct the annotation"
        )
    objects = range(1, highest + 1)

    def scored() -> Iterator[ScoredFrame]:
        for frame_id in pair.frames[1:-1]:
            annotation = pair.annotated(frame_id)
            if annotation.shape != first.shape:
                raise UserError(
                    f"{pair.name}: annotation {frame_id} is {annotation.shape[1]}x{annotation.shape[0]}, the first one "
                    f"{first.shape[1]}x{first.shape[0]}; expected one size; correct the annotation"
                )
            result = pair.predicted(frame_id, annotation, highest)
            yield ScoredFrame(annotation, result, first if copy_first else None, objects)

    values = compare(scored())
    return {object_id: values[object_id] for object_id in objects}
