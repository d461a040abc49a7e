"""Sequences scored in parallel processes; each process holds one frame of one sequence at a time."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import partial

from pipeline.core.errors import UserError
from pipeline.core.runtime import progress
from pipeline.scoring.sequence import ObjectScore, SequencePair

Rule = Callable[[SequencePair], list[ObjectScore]]

_pairs: Sequence[SequencePair] = ()  # in a worker: inherited from the parent, because open archives cannot be pickled


def score_sequences(pairs: Sequence[SequencePair], rule: Rule, jobs: int) -> list[ObjectScore]:
    """Score a data set.

    Args:
        pairs: the sequences.
        rule: what to do with one: `score_davis` or `score_youtubevos`, with its options bound.
        jobs: number of processes; 1: no other process is started.

    Returns:
        The objects' scores, in the order of `pairs`.

    Raises:
        UserError: an unfit annotation or result; no sequence is left out.
    """
    jobs = min(jobs, len(pairs))
    if jobs <= 1 or "fork" not in multiprocessing.get_all_start_methods():
        done = [rule(pair) for pair in progress(pairs, len(pairs), "scoring")]
        return [score for scores in done for score in scores]
    pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("fork"), _adopt, (pairs,))
    try:
        # the longest first, so that no process is left with a long one at the end
        order = sorted(range(len(pairs)), key=lambda at: -len(pairs[at].frames))
        futures: dict[Future[list[ObjectScore]], int] = {pool.submit(partial(_score, rule), at): at for at in order}
        found = {futures[done]: done.result() for done in progress(as_completed(futures), len(pairs), "scoring")}
    except BrokenProcessPool:
        raise UserError("a scoring process was killed (out of memory?); rerun with fewer --jobs") from None
    finally:
        pool.shutdown(cancel_futures=True)
    return [score for at in range(len(pairs)) for score in found[at]]


def _adopt(pairs: Sequence[SequencePair]) -> None:
    """Keep what this process inherited; the parent handles Ctrl-C."""
    global _pairs
    _pairs = pairs
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _score(rule: Rule, at: int) -> list[ObjectScore]:
    return rule(_pairs[at])
