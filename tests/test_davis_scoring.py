from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from pipeline.core.errors import UserError
from pipeline.scoring.boundary import boundary_f_of_bits, boundary_radius
from pipeline.scoring.davis import score_davis
from pipeline.scoring.packed_masks import pack_object, pad_to_words
from pipeline.scoring.sequence import ObjectScore
from pipeline.scoring.statistics import frame_statistics
from pipeline.scoring.summary import by_sequence, per_object_csv, summarise, table
from pipeline.scoring.workers import score_sequences
from pipeline.scoring.youtubevos import score_youtubevos
from tests.fixtures.scoring.drawn import Case, as_pair, blank, box, cases, moving, still
from tests.support.whole_masks import boundary_f, jaccard

OFFICIAL = json.loads((Path(__file__).parent / "fixtures/scoring/official.json").read_text())


@pytest.mark.parametrize("name", list(cases()))
def test_equals_the_official_scorer(name: str) -> None:
    case = cases()[name]
    scores = score_davis(as_pair(name, case))
    official = {
        int(key.rpartition("_")[2]): v for key, v in OFFICIAL["objects"].items() if key.rpartition("_")[0] == name
    }
    assert [s.object_id for s in scores] == list(official)
    for score in scores:
        per_frame_j, per_frame_f, j, f = official[score.object_id]
        assert (score.j.mean, score.j.recall, score.j.decay) == pytest.approx(j, abs=1e-9)
        assert (score.f.mean, score.f.recall, score.f.decay) == pytest.approx(f, abs=1e-9)
        for at, (annotation, result) in enumerate(zip(case.annotation[1:-1], case.result[1:-1], strict=True)):
            truth, guess = annotation == score.object_id, result == score.object_id
            assert jaccard(truth, guess) == pytest.approx(per_frame_j[at], abs=1e-9)
            assert boundary_f(truth, guess) == pytest.approx(per_frame_f[at], abs=1e-9)


@pytest.mark.parametrize("frames", list(OFFICIAL["lengths"]))
def test_figures_of_any_number_of_frames(frames: str) -> None:
    figures = frame_statistics([((37 * t) % 101) / 101 for t in range(int(frames))])
    assert (figures.mean, figures.recall, figures.decay) == pytest.approx(OFFICIAL["lengths"][frames], abs=1e-9)


def test_perfect_result() -> None:
    case = moving(40, 60, 6)
    for score in score_davis(as_pair("a", Case(case.annotation, case.annotation)), copy_first=True):
        assert (score.j.mean, score.j.recall, score.j.decay, score.f.mean, score.jf) == (1, 1, 0, 1, 1)
        assert score.copy_first is not None and score.copy_first < 1


def test_copy_first_is_what_scoring_a_copy_gives() -> None:
    case = cases()["missing-object"]
    copied = Case(case.annotation, [case.annotation[0]] * len(case.annotation))
    beside = score_davis(as_pair("a", case), copy_first=True)
    alone = score_davis(as_pair("a", copied))
    assert [s.copy_first for s in beside] == pytest.approx([s.jf for s in alone])
    assert all(s.copy_first is None for s in alone)


def test_renaming_objects_renames_figures() -> None:
    case = moving(50, 80, 5)

    def swap(mask: np.ndarray) -> np.ndarray:
        return np.array([0, 2, 1], np.uint8)[mask]

    swapped = Case([swap(m) for m in case.annotation], [swap(m) for m in case.result])
    first, second = score_davis(as_pair("a", case)), score_davis(as_pair("a", swapped))
    assert [(s.j, s.f) for s in first] == [(s.j, s.f) for s in reversed(second)]


def test_merged_objects_are_their_union() -> None:
    case = cases()["void"]
    merged = score_davis(as_pair("a", case, merge=True))
    one = Case(
        [((m > 0) & (m < 255)).astype(np.uint8) for m in case.annotation],
        [(m > 0).astype(np.uint8) for m in case.result],
    )
    assert merged == score_davis(as_pair("a", one))
    grey = Case(one.annotation, [m * 255 for m in one.result])  # as DAVIS-2016 results are stored
    assert merged == score_davis(as_pair("a", grey, merge=True))


@pytest.mark.parametrize("frames", [1, 2])
def test_sequences_too_short_to_score_are_refused(frames: int) -> None:
    with pytest.raises(UserError, match=r"short has \d annotated frames; expected at least 3"):
        score_davis(as_pair("short", moving(20, 30, frames)))


def test_unfit_results_are_named() -> None:
    case = moving(30, 40, 4)
    small = Case(case.annotation, [m[:, :-1] for m in case.result])
    with pytest.raises(UserError, match=r"results/a/00001\.png is 39x30; expected 40x30"):
        score_davis(as_pair("a", small))
    many = Case(case.annotation, [*case.result[:2], box(case.result[2], 0, 2, 0, 2, 3), case.result[3]])
    with pytest.raises(UserError, match=r"results/a/00002\.png has the id 3; expected ids 0 to 2"):
        score_davis(as_pair("a", many))
    with pytest.raises(UserError, match="no object"):
        score_davis(as_pair("a", still(blank(5, 5), blank(5, 5))))
    with pytest.raises(UserError, match="annotation 00001 is 39x30, the first one 40x30"):
        score_davis(as_pair("a", Case([case.annotation[0], *small.result[1:]], small.result)))


def test_processes_change_nothing() -> None:
    pairs = [as_pair(name, moving(40, 60, frames)) for name, frames in (("a", 4), ("b", 9), ("c", 6))]
    rule = partial(score_davis, copy_first=True)
    alone, together = score_sequences(pairs, rule, jobs=1), score_sequences(pairs, rule, jobs=3)
    assert alone == together
    assert [s.sequence for s in alone] == ["a", "a", "b", "b", "c", "c"]


def test_a_fault_in_a_process_reaches_the_user() -> None:
    fine, faulty = moving(30, 40, 4), moving(30, 40, 5)
    faulty.result[2] = faulty.result[2][1:]
    with pytest.raises(UserError, match=r"results/b/00002\.png is 40x29"):
        score_sequences([as_pair("a", fine), as_pair("b", faulty)], score_davis, jobs=2)


def test_late_objects_count_from_the_frame_after_their_first() -> None:
    truth, guess = blank(30, 70), blank(30, 70)
    truth, guess = box(truth, 2, 12, 2, 20, 1), box(guess, 2, 12, 4, 20, 1)
    truth_late, guess_late = box(truth, 14, 28, 40, 66, 2), box(guess, 16, 28, 40, 66, 2)
    case = Case([truth, truth_late, truth_late, truth], [truth, guess, guess_late, guess])
    early, late = score_youtubevos(as_pair("a", case, first_seen={1: "00000", 2: "00001"}))
    radius = boundary_radius(30, 70)
    bits = [pack_object(pad_to_words(m), 2) for m in (truth_late, guess_late)]
    # frames 2 and 3 count for it; in frame 3 neither mask shows it
    assert late.j.mean == pytest.approx((12 * 26 / (14 * 26) + 1) / 2)
    assert late.f.mean == pytest.approx((boundary_f_of_bits(bits[0], bits[1], 70, radius) + 1) / 2)
    assert early.j.mean == pytest.approx(10 * 16 / (10 * 18))  # frames 1 to 3, the last one too


def test_late_objects_copied() -> None:
    early = box(blank(30, 70), 2, 12, 2, 20, 1)
    both = box(early, 14, 28, 40, 66, 2)
    case = Case([early, both, both], [early, both, both])
    scores = score_youtubevos(as_pair("a", case, first_seen={1: "00000", 2: "00001"}), copy_first=True)
    assert [s.copy_first for s in scores] == [1, 1]


def test_an_object_without_a_frame_to_score_is_refused() -> None:
    case = still(box(blank(9, 9), 1, 5, 1, 5, 1), blank(9, 9))
    with pytest.raises(UserError, match="object 2 first appears in the last"):
        score_youtubevos(as_pair("a", case, first_seen={1: "00000", 2: "00002"}))
    with pytest.raises(UserError, match="no object"):
        score_youtubevos(as_pair("a", case))


def scored(sequence: str, object_id: int, kind: str, j: float, f: float) -> ObjectScore:
    return ObjectScore(sequence, object_id, kind, frame_statistics([j, j]), frame_statistics([f, f]), 0.25)


def test_summary_by_hand() -> None:
    scores = [scored("a", 1, "single", 0.8, 0.6), scored("b", 1, "multi", 0.4, 0.2), scored("b", 2, "multi", 0.6, 0.4)]
    figures = summarise(scores)
    assert figures["J&F"] == pytest.approx((0.6 + 0.4) / 2)
    assert figures["J"] == {"mean": pytest.approx(0.6), "recall": pytest.approx(2 / 3), "decay": 0}
    assert figures["F"]["mean"] == pytest.approx(0.4)
    assert figures["copy_first"] == {"J&F": 0.25}
    assert figures["by_kind"] == {"single": pytest.approx(0.7), "multi": pytest.approx(0.4)}
    assert list(figures) == ["J&F", "J", "F", "copy_first", "by_kind"]
    assert by_sequence(scores)["b"] == {"J&F": pytest.approx(0.4), "J": pytest.approx(0.5), "F": pytest.approx(0.3)}
    with pytest.raises(UserError, match="no object"):
        summarise([])


def test_tables() -> None:
    scores = [scored("a", 1, "single", 0.8, 0.6), scored("b", 1, "multi", 0.4, 0.2), scored("b", 2, "multi", 0.6, 0.4)]
    lines = per_object_csv(scores).splitlines()
    assert lines[0] == "sequence,object,kind,J-mean,J-recall,J-decay,F-mean,F-recall,F-decay,J&F,copy_first_J&F"
    assert lines[1].startswith("a,1,single,0.8,1.0,0.0,0.6,1.0,0.0,0.7")
    assert len(lines) == 4
    text = table(scores).splitlines()
    assert text[0].split() == ["sequence,", "object", "J&F", "J", "J-rec", "J-dec", "F", "F-rec", "F-dec"]
    assert "b                 40.0  50.0   50.0    0.0  30.0    0.0    0.0" in text
    assert text[-1] == "3 objects in 2 sequences; values in percent"
