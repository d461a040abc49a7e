"""Score a data set; used by the `score` stage and the `evaluate` command."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.core.errors import UserError
from pipeline.scoring.result_names import Required, check_names
from pipeline.scoring.results import Results
from pipeline.scoring.sequence import Annotations, ObjectScore, pair_up
from pipeline.scoring.workers import Rule, score_sequences


@dataclass(frozen=True)
class Protocol:
    """How a data set is scored.

    Attributes:
        rule: which objects and frames of a sequence count: `score_davis` or `score_youtubevos`, with its options bound.
        required: the frames of a sequence that must have a result.
        knows_frames: whether all frames of a video are known, so that a result for any other frame is an error; if not,
            such results are not scored, and the log gives their number.
    """

    rule: Rule
    required: Required
    knows_frames: bool


def score_set(
    source: Annotations,
    results: Results,
    protocol: Protocol,
    jobs: int,
    merge: bool = False,
    allow_extra: bool = False,
) -> list[ObjectScore]:
    """Score every object of every sequence of a data set.

    Args:
        source: the annotations.
        results: the masks to score.
        protocol: what counts, and which results are required.
        jobs: number of processes; it does not change the scores.
        merge: all objects of a sequence count as one, in annotation and result (DAVIS-2016).
        allow_extra: results may also contain folders of other sequences.

    Returns:
        The objects' scores, in the order of the data set.

    Raises:
        UserError: nothing to score against, an unfit annotation or result, a frame without a result, or a result
            that belongs to no frame or sequence.
    """
    if jobs < 1:
        raise UserError(f"jobs is {jobs}; expected the number of processes, at least 1")
    extra = results.extra_folders(video.name for video in source.videos)
    if extra and not allow_extra:
        more = f" ({len(extra)} such folders)" if len(extra) > 1 else ""
        raise UserError(
            f"{results.path}/{extra[0]} belongs to no sequence of {source.name}{more}; expected only those of the "
            "split; remove it, score the split it belongs to, or allow it (--allow-extra)"
        )
    pairs = pair_up(source, results, merge)
    check_names(source, results, protocol.required, protocol.knows_frames)
    return score_sequences(pairs, protocol.rule, jobs)
