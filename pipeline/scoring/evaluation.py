"""A whole set scored: the one function behind the `score` stage and the `evaluate` command."""

from __future__ import annotations

from pipeline.core.errors import UserError
from pipeline.scoring.results import Results
from pipeline.scoring.sequence import Annotations, ObjectScore, pair_up
from pipeline.scoring.workers import Rule, score_sequences


def score_set(
    source: Annotations, results: Results, rule: Rule, jobs: int, merge: bool = False, allow_extra: bool = False
) -> list[ObjectScore]:
    """Score every object of every sequence of a set.

    Args:
        source: the annotations.
        results: the masks to score.
        rule: `score_davis` or `score_youtubevos`, its options bound.
        jobs: processes; the figures do not depend on it.
        merge: all objects of a sequence count as one, in annotation and result (DAVIS-2016).
        allow_extra: let results hold folders of other sequences too.

    Returns:
        The objects' figures, in the order of the set.

    Raises:
        UserError: nothing to score against, an unfit annotation or result, or a surplus folder.
    """
    if jobs < 1:
        raise UserError(f"jobs is {jobs}; expected the number of processes, at least 1")
    extra = results.extra_folders(video.name for video in source.videos)
    if extra and not allow_extra:
        more = f" ({len(extra)} such folders)" if len(extra) > 1 else ""
        raise UserError(
            f"{results.path}/{extra[0]} belongs to no sequence of {source.name}{more}; expected only those of the "
            "split; remove it or score the split it belongs to"
        )
    return score_sequences(pair_up(source, results, merge), rule, jobs)
