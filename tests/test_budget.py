"""What a budget of memory does to a video: smaller steps, at worst fewer frames in the memory, never another error."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch

from pipeline.core.errors import UserError
from pipeline.core.kernels import onednn
from pipeline.dstm.network import DSTM
from pipeline.inference.budget import Plan, Work, make_plan
from pipeline.inference.config import InferConfig
from tests.support.toy_inference import CONFIG, CPU, PLAIN, TTA, labels, make_network, video

CUDA = torch.device("cuda")
HD = Work(height=1080, width=1920, objects=3, scales=(1.0,), views=1)
WANTED = replace(CONFIG, lookahead=16, chunk=256, memory_gb=64.0)


def test_a_large_budget_gives_all_that_is_wanted() -> None:
    plan = make_plan(make_network(), WANTED, HD, CUDA)
    assert (plan.lookahead, plan.batch) == (16, 3) and plan.slots > 20
    assert plan.chunk(256, slots=1) == 256
    assert make_plan(make_network(), replace(WANTED, memory_frames=7), HD, CUDA).slots == 7


def test_on_a_cpu_objects_pass_one_by_one() -> None:
    assert make_plan(make_network(), WANTED, HD, CPU).batch == 1


def held(plan: Plan) -> tuple[float, ...]:
    """What grows with the budget: frames, memory, and the query pixels read at a time."""
    return plan.lookahead, plan.slots, plan.batch * plan.rows


def test_less_memory_never_gives_more() -> None:
    network = make_network()
    many = Work(1080, 1920, 40, (1.0, 1.3), 2)
    for work, budgets in ((HD, (64.0, 8.0, 3.0, 1.0)), (many, (60.0, 40.0, 30.0, 22.0))):
        plans = [make_plan(network, replace(WANTED, memory_gb=gb), work, CUDA) for gb in budgets]
        for more, less in pairwise(plans):
            assert less.batch <= more.batch
            assert all(a <= b for a, b in zip(held(less), held(more)))
        first, last = plans[0], plans[-1]
        assert last.batch < first.batch and all(a < b for a, b in zip(held(last), held(first)))
    half = make_plan(network, replace(WANTED, memory_gb=8.0), HD, CUDA, share=0.5)
    assert half == make_plan(network, replace(WANTED, memory_gb=4.0), HD, CUDA)


@pytest.mark.parametrize(
    ("gigabytes", "more"),
    [
        (10.0, {"objects": 40}),
        (10.0, {"height": 2160, "width": 3840}),
        (10.0, {"scales": (1.5,)}),
        (10.0, {"scales": (1.0, 1.3)}),
        (10.0, {"views": 2}),
        (60.0, {"objects": 40, "scales": (1.0, 1.3), "views": 2}),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else f"{value:.0f}",
)
def test_more_work_never_gives_more(gigabytes: float, more: dict[str, Any]) -> None:
    """What a video asks for beyond another takes frames out of its memory, and nothing else gains from it."""
    network, config = make_network(), replace(WANTED, memory_gb=gigabytes)
    plan, less_work = make_plan(network, config, replace(HD, **more), CUDA), make_plan(network, config, HD, CUDA)
    assert plan.slots < less_work.slots
    assert all(a <= b for a, b in zip(held(plan), held(less_work)))


def test_bf16_counts_as_what_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half the bytes of fp32 where bfloat16 is computed, all of them on a CPU that computes float32 instead."""
    network = make_network()
    fp32, bf16 = (replace(WANTED, precision=precision, memory_gb=3.0) for precision in ("fp32", "bf16"))
    assert make_plan(network, bf16, HD, CUDA).slots > 1.5 * make_plan(network, fp32, HD, CUDA).slots
    monkeypatch.setattr(onednn, "_BF16", False)
    assert make_plan(network, bf16, HD, CPU) == make_plan(network, fp32, HD, CPU)
    assert make_plan(network, bf16, HD, CUDA) != make_plan(network, fp32, HD, CUDA)


def test_chunks_shrink_as_the_memory_grows() -> None:
    plan = Plan(lookahead=1, batch=1, slots=100, rows=640.0)
    assert [plan.chunk(256, slots) for slots in (1, 2, 4, 10, 1000)] == [256, 256, 160, 64, 16]


def test_a_budget_too_small_is_refused_in_one_line() -> None:
    with pytest.raises(UserError, match=r"3 objects at 1920x1080 need .* GB, and there are 0\.1 \(infer"):
        make_plan(make_network(), replace(WANTED, memory_gb=0.1), HD, CPU)


def smallest(network: DSTM, config: InferConfig, work: Work, slots: int) -> float:
    """The smallest budget in GiB, to a thousandth of it, that lets a video on a CPU keep some frames."""
    low, high = 1e-6, 1.0
    while high > 1.001 * low:
        middle = (low * high) ** 0.5
        try:
            enough = make_plan(network, replace(config, memory_gb=middle), work, CPU).slots >= slots
        except UserError:
            enough = False
        low, high = (low, middle) if enough else (middle, high)
    return high


def test_a_tight_budget_changes_nothing_but_the_memory(capsys: pytest.CaptureFixture[str]) -> None:
    """Just enough for three frames in the memory: the result of `memory_frames: 3`, and one line that says so."""
    frames, mask = video(14)
    network = make_network()
    work = Work(40, 56, 2, (1.0,), 1)
    budget = smallest(network, CONFIG, work, slots=3)
    assert make_plan(network, replace(CONFIG, memory_gb=budget), work, CPU).slots == 3
    found = labels(network, frames, {0: mask}, PLAIN, memory_every=1, memory_gb=budget)
    assert capsys.readouterr().out.count("allows 3 frames in the memory: thinned") == 1
    expected = labels(network, frames, {0: mask}, PLAIN, memory_every=1, memory_frames=3)
    assert "thinned" not in capsys.readouterr().out, "memory_frames is the user's own choice"
    assert (found == expected).mean() > 0.999
    assert (labels(network, frames, {0: mask}, PLAIN, memory_every=1) == expected).mean() < 0.999


def test_smaller_steps_give_the_same_masks(capsys: pytest.CaptureFixture[str]) -> None:
    """Nine frames at two scales, mirrored, of which four are remembered: that much room, and much more."""
    frames, mask = video(9)
    network = make_network()
    config = replace(CONFIG, chunk=1000)  # so that the budget alone decides
    work = Work(40, 56, 2, config.scales, 2)
    gigabytes = {"tight": smallest(network, config, work, slots=4), "ample": 1.0}
    tight, ample = (make_plan(network, replace(config, memory_gb=gb), work, CPU) for gb in gigabytes.values())
    assert tight.lookahead < ample.lookahead
    assert 4 <= tight.slots < ample.slots
    places = (40 // 8) * (56 // 8)  # of the smaller of the two scales
    assert tight.chunk(config.chunk, slots=4) < places and ample.chunk(config.chunk, slots=4) == config.chunk
    found, expected = (
        labels(network, frames, {0: mask}, TTA, chunk=config.chunk, memory_gb=gb) for gb in gigabytes.values()
    )
    assert "thinned" not in capsys.readouterr().out
    assert all((expected[1:] == k).mean() > 0.02 for k in range(3)), "the toy must be lively to tell"
    assert (found == expected).mean() > 0.999


def test_views_count() -> None:
    """Three scales, mirrored: about eight times the pixels, and room for about an eighth of the frames."""
    network = make_network()
    plain = make_plan(network, WANTED, HD, CUDA)
    tta = make_plan(network, WANTED, replace(HD, scales=(1.0, 1.15, 1.3), views=2), CUDA)
    factor = 2 * (1 + 1.15**2 + 1.3**2)
    assert 0.8 < factor * tta.slots / plain.slots < 1.05
