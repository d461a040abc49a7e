"""Propagation from frame to frame: which frames are remembered, and what follows from them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pipeline.core.errors import UserError
from pipeline.dstm.memory import read_memory, stack_slots
from pipeline.inference import track
from pipeline.inference.config import InferConfig
from pipeline.inference.frames import Frame
from pipeline.inference.memory_bank import MemoryBank, Schedule
from pipeline.inference.prepared import prepare
from pipeline.inference.propagate import propagate
from tests.support.tiny_archives import make_toy
from tests.support.toy_inference import CONFIG, CPU, PLAIN, frames_of, labels, make_network, naive, video


def first_every_previous(t: int, every: int) -> list[int]:
    """Frames that STM remembers when it segments frame t."""
    return sorted({i for i in range(t) if i % every == 0} | {t - 1})


def overlap(found: NDArray[np.uint8], expected: NDArray[np.uint8], number: int) -> float:
    """Intersection over union of one class over a whole video."""
    one, other = found == number, expected == number
    return float((one & other).sum() / (one | other).sum())


def held(every: int, limit: int, length: int, given: frozenset[int] = frozenset()) -> Iterator[tuple[int, list[int]]]:
    """(t, frames held when frame t is segmented), sorted."""
    schedule = Schedule(every, limit)
    for t in range(1, length):
        schedule.add(t - 1, t - 1 in given)
        yield t, sorted(schedule.frames)


@pytest.mark.parametrize("every", [1, 3, 5])
def test_first_every_nth_and_previous(every: int) -> None:
    for t, frames in held(every, 0, 40):
        assert frames == first_every_previous(t, every)


@pytest.mark.parametrize("limit", [2, 3, 4, 7, 10])
@pytest.mark.parametrize("every", [1, 5])
def test_limit_keeps_first_and_previous_and_thins_evenly(limit: int, every: int) -> None:
    for t, frames in held(every, limit, 400):
        assert len(frames) <= limit
        assert frames[0] == 0 and frames[-1] == t - 1
        if len(first_every_previous(t, every)) <= limit - 1:
            assert frames == first_every_previous(t, every)
        else:
            assert len(frames) >= limit - 1
        kept = [f for f in frames if f % every == 0]
        gaps = np.diff(kept)
        if len(gaps) > 1:
            assert gaps[:-1].max() <= 2 * gaps[:-1].min()


def test_limit_by_hand() -> None:
    """Four frames: three kept ones and the previous; 1 goes first, then every second of what is left."""
    assert [frames for _, frames in held(1, 4, 9)] == [
        [0],
        [0, 1],
        [0, 1, 2],
        [0, 1, 2, 3],  # 3 came: 1 goes, overwritten by the next
        [0, 2, 3, 4],
        [0, 2, 4, 5],
        [0, 2, 4, 6],
        [0, 4, 6, 7],
    ]


def test_frames_that_bring_objects_stay() -> None:
    given = frozenset({0, 7, 11})
    for t, frames in held(5, 0, 30, given):
        assert set(frames) == set(first_every_previous(t, 5)) | {f for f in given if f < t}
    for t, frames in held(5, 5, 200, given):
        assert len(frames) <= 5 and {f for f in given if f < t} <= set(frames)
    late = frozenset(range(0, 40, 2))  # more of them than there is room for
    assert all(len(frames) <= 4 and frames[0] == 0 and frames[-1] == t - 1 for t, frames in held(5, 4, 60, late))


def test_bank_holds_what_was_written() -> None:
    """The block against a dictionary, through growth and overwriting."""
    for limit, doubling in ((0, False), (0, True), (5, False), (5, True)):
        schedule = Schedule(2, limit)
        bank, written = MemoryBank(schedule, limit or 100, doubling), {}
        for frame in range(50):
            key, value = torch.full((1, 2, 3, 2, 2), float(frame)), torch.full((1, 2, 4, 2, 2), -float(frame))
            written[frame] = (key, value)
            bank.write(frame, key, value, given=False)
            memory = bank.read()
            assert memory.key.shape == (1, 2, 3, len(schedule.frames), 2, 2)
            for slot, held_frame in enumerate(schedule.frames):
                torch.testing.assert_close(memory.key[:, :, :, slot], written[held_frame][0])
                torch.testing.assert_close(memory.value[:, :, :, slot], written[held_frame][1])


@pytest.mark.parametrize(("max_slots", "capacities"), [(5, {5}), (11, {8, 11}), (40, {8, 16, 32, 40})])
def test_room_to_grow_does_not_change_what_is_read(max_slots: int, capacities: set[int]) -> None:
    """Blocks that double, never beyond `max_slots`, compared with blocks without room, read by a query."""
    generator = torch.Generator().manual_seed(0)
    exact, roomy = (MemoryBank(Schedule(1, max_slots), max_slots, doubling) for doubling in (False, True))
    query = torch.randn(2, 3, 2, 2, generator=generator)
    seen = set()
    torch.use_deterministic_algorithms(True)  # what is not written yet is NaN
    try:
        for frame in range(50):
            key, value = (torch.randn(1, 2, c, 2, 2, generator=generator) for c in (3, 4))
            reads = []
            for bank in (exact, roomy):
                bank.write(frame, key, value, given=False)
                memory = bank.read()
                reads.append(read_memory(query, memory.key.flatten(0, 1), memory.value.flatten(0, 1), scale=True))
            torch.testing.assert_close(reads[1], reads[0])
            held = [part.untyped_storage().nbytes() // (4 * 2 * c * 4) for part, c in zip(memory, (3, 4))]
            assert held[0] == held[1] >= memory.key.shape[3]
            seen.add(held[0])
    finally:
        torch.use_deterministic_algorithms(False)
    assert seen == capacities


@pytest.mark.parametrize("n_objects", [1, 3])
@pytest.mark.parametrize(("height", "width"), [(40, 56), (45, 61)])
def test_equals_the_naive_propagation(n_objects: int, height: int, width: int) -> None:
    frames, mask = video(9, n_objects, height, width)
    network = make_network()
    expected = naive(network, frames, {0: mask}, n_objects, lambda t: first_every_previous(t, 3), [(1.0, False)])
    assert all((expected[1:] == k).mean() > 0.02 for k in range(n_objects + 1)), "the toy must be lively to tell"
    found = labels(network, frames, {0: mask})
    assert found.dtype == np.uint8 and found.shape == expected.shape
    assert (found == expected).mean() > 0.999


def test_equals_the_naive_propagation_with_a_limit() -> None:
    frames, mask = video(14)
    network = make_network()
    kept = dict(held(1, 4, 14))
    expected = naive(network, frames, {0: mask}, 2, lambda t: kept[t], [(1.0, False)])
    assert (labels(network, frames, {0: mask}, memory_every=1, memory_frames=4) == expected).mean() > 0.999
    assert (labels(network, frames, {0: mask}, memory_every=1) == expected).mean() < 0.999, "the limit must matter here"


def test_late_objects() -> None:
    """A late object takes its mask at its frame, never comes before, and its frame is remembered."""
    toy = make_toy(10, 2, 40, 56)
    frames, network = frames_of(toy), make_network()
    masks = {
        0: np.where(toy.masks[0] == 1, 1, 0).astype(np.uint8),
        4: np.where(toy.masks[4] == 2, 2, 0).astype(np.uint8),
    }
    found = labels(network, frames, masks)
    kept = [first_every_previous(t, 3) + ([4] if t > 5 else []) for t in range(10)]
    expected = naive(network, frames, masks, 2, lambda t: kept[t], [(1.0, False)])
    assert (found == expected).mean() > 0.999
    assert not (found[:4] == 2).any()
    assert (found[4][masks[4] == 2] == 2).all()
    assert (found[5:] == 2).any()


def test_nothing_before_the_first_mask() -> None:
    toy = make_toy(8, 2, 40, 56)
    frames, network = frames_of(toy), make_network()
    found = labels(network, frames, {3: toy.masks[3]})
    assert not found[:3].any()
    assert (found[3:] == labels(network, frames[3:], {0: toy.masks[3]})).mean() > 0.999


def test_permuting_objects_permutes_the_result() -> None:
    frames, mask = video(8, 3)
    network = make_network()
    permutation = np.array([0, 30, 2, 7], np.uint8)  # also ids with gaps
    found = labels(network, frames, {0: permutation[mask]})
    assert (found == permutation[labels(network, frames, {0: mask})]).mean() > 0.999
    assert set(np.unique(found)) <= {0, 2, 7, 30}


def test_void_counts_as_background() -> None:
    frames, mask = video(5)
    network = make_network()
    marked = mask.copy()
    marked[0, :9] = 255
    np.testing.assert_array_equal(labels(network, frames, {0: marked}), labels(network, frames, {0: mask}))


@pytest.mark.parametrize("changes", [{"lookahead": 1}, {"lookahead": 32}, {"chunk": 1000}])
def test_how_it_is_computed_does_not_matter(changes: dict[str, int]) -> None:
    frames, mask = video(7)
    network = make_network()
    assert (labels(network, frames, {0: mask}, PLAIN, **changes) == labels(network, frames, {0: mask})).mean() > 0.999


def test_how_the_memory_grows_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, where the blocks double: 13 frames remembered in blocks of 8 and 16."""
    frames, mask = video(14)
    network = make_network()
    expected = labels(network, frames, {0: mask}, memory_every=1)
    grown = []

    def roomy(schedule: Schedule, max_slots: int, doubling: bool) -> MemoryBank:
        grown.append(doubling)
        return MemoryBank(schedule, max_slots, doubling=True)

    monkeypatch.setattr(track, "MemoryBank", roomy)
    assert (labels(network, frames, {0: mask}, memory_every=1) == expected).mean() > 0.999
    assert grown == [False]


@pytest.mark.parametrize("n_objects", [1, 2, 3])
def test_bf16_stays_close(n_objects: int) -> None:
    """Each class over the frames after the given one; measured 0.86 and more. A first mask that stays gets 0.12."""
    frames, mask = video(8, n_objects)
    network = make_network()
    found = labels(prepare(network, "bf16"), frames, {0: mask}, precision="bf16")[1:]
    expected = labels(network, frames, {0: mask})[1:]
    for k in range(n_objects + 1):
        assert overlap(found, expected, k) > 0.75, k
        if k:
            assert overlap(np.broadcast_to(mask, expected.shape), expected, k) < 0.3, "the toy must move to tell"


def test_objects_one_by_one_or_together() -> None:
    """What fits in the budget at a time does not matter, whichever objects have appeared."""
    toy = make_toy(6, 3, 40, 56)
    network = make_network()
    frames = torch.from_numpy(toy.frames).permute(0, 3, 1, 2).float() / 255
    depth = torch.from_numpy(toy.depths)[:, None]
    masks = torch.rand(2, 4, 40, 56, generator=torch.Generator().manual_seed(0)).softmax(dim=1)
    with torch.inference_mode():
        for objects in (None, torch.tensor([[True, False, True], [True, True, True]])):
            found = []
            for batch in (None, 1, 2):
                memory = stack_slots([network.memorize(frames[:2], depth[:2], masks, objects, batch)])
                query = network.encode_query(frames[2:4], depth[2:4])
                found.append(network.segment(query, memory, objects, batch=batch))
            torch.testing.assert_close(found[1], found[0], atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(found[2], found[0], atol=1e-4, rtol=1e-4)


def test_frames_are_taken_as_needed() -> None:
    frames, mask = video(9)
    taken = 0

    def source() -> Iterator[Frame]:
        nonlocal taken
        for frame in frames:
            taken += 1
            yield frame

    masks = propagate(make_network(), source(), {0: mask}, PLAIN, replace(CONFIG, lookahead=3), CPU)
    next(masks)
    assert taken == 3
    assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled(), (
        "no mode of torch leaks out of the generator"
    )


def test_without_depth() -> None:
    frames, mask = video(4)
    found = labels(make_network(depth=False), [Frame(f.rgb, None) for f in frames], {0: mask})
    assert found.shape == (4, 40, 56)


def test_unfit_input() -> None:
    frames, mask = video(4)
    network = make_network()
    cases = [
        (frames, {0: np.zeros_like(mask)}, "no object"),
        (frames, {0: mask[:, :-2]}, "mask of frame 0 is 54x40, its frame 56x40"),
        (frames, {0: mask, 9: mask}, "frame 9, but the video has 4 frames"),
        (frames[:2] + [Frame(frames[2].rgb[:-1], frames[2].depth)], {0: mask}, "frame 2 is 56x39, the first one 56x40"),
        ([Frame(f.rgb, None) for f in frames], {0: mask}, "no depth map"),
        ([Frame(f.rgb, np.zeros((3, 3), np.float32)) for f in frames], {0: mask}, "depth map of frame 0 is 3x3"),
    ]
    for given_frames, masks, message in cases:
        with pytest.raises(UserError, match=message):
            labels(network, given_frames, masks)


@pytest.mark.parametrize(
    "change", [{"memory_every": 0}, {"memory_frames": 1}, {"memory_gb": -1.0}, {"scales": ()}, {"scales": (1.0, -1.0)}]
)
def test_unfit_config(change: dict[str, int]) -> None:
    with pytest.raises(UserError, match=next(iter(change))):
        replace(CONFIG, **change)  # type: ignore[arg-type]
    assert isinstance(CONFIG, InferConfig)
