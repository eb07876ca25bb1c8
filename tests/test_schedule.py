"""Whose turn it is, for gains that are given."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from bbtune.schedule import RecentGain, RoundRobin, Schedule, WholeSweeps
from bbtune.seeds import generator

BLOCKS = 4
Gain = Callable[[int, int], float]  # of a block at its visit of that number


def turns(
    schedule: Schedule, count: int, gain: Gain = lambda block, number: 0.0, cost: Gain = lambda *_: 1
) -> list[int]:
    """The blocks of so many generations."""
    visits: Counter[int] = Counter()
    found = []
    for _ in range(count):
        block = schedule.block
        assert schedule.block == block  # looking changes nothing
        found.append(block)
        schedule.record(gain(block, visits[block]), int(cost(block, visits[block])))
        visits[block] += 1
    return found


def recent_gain(blocks: int = BLOCKS, visit: int = 1, seed: int = 0) -> RecentGain:
    return RecentGain(blocks, visit, generator(seed, "schedule"))


@pytest.mark.parametrize(("visit", "expected"), [(1, [0, 1, 2, 0, 1, 2, 0]), (2, [0, 0, 1, 1, 2, 2, 0])])
def test_round_robin_takes_blocks_in_turn_whatever_they_gain(visit: int, expected: list[int]) -> None:
    schedule = RoundRobin(3, visit)
    assert turns(schedule, 7, gain=lambda block, _: float(block == 1)) == expected
    assert schedule.stop_reasons() == {}


def test_whole_sweeps_are_a_round_robin_that_ends() -> None:
    schedule = WholeSweeps(3, 2, sweeps=2)
    for expected in 2 * [0, 0, 1, 1, 2, 2]:
        assert schedule.stop_reasons() == {}
        assert turns(schedule, 1) == [expected]
    assert schedule.stop_reasons() == {"sweeps": 2}


@pytest.mark.parametrize("visit", [1, 3])
def test_recent_gain_begins_with_every_block_once_from_the_bottom(visit: int) -> None:
    begun = turns(recent_gain(visit=visit), BLOCKS * visit, gain=lambda block, _: 1.0 / (1 + block))
    assert begun == [block for block in range(BLOCKS) for _ in range(visit)]


def test_it_then_stays_with_the_block_that_gains_most_and_looks_at_others_now_and_then() -> None:
    after = Counter(turns(recent_gain(), 1000, gain=lambda block, _: 0.5 if block == 2 else 0.1)[BLOCKS:])
    assert 0.9 < after[2] / (1000 - BLOCKS) < 0.96  # nine in ten, and its share of the tenth
    assert all(after[block] > 5 for block in range(BLOCKS))


def test_a_gain_counts_by_what_it_cost() -> None:
    after = Counter(turns(recent_gain(), 300, gain=lambda *_: 0.2, cost=lambda block, _: 10 - 2 * block)[BLOCKS:])
    assert after.most_common(1)[0][0] == 3  # the upper layers are the cheap ones


def test_it_leaves_a_block_that_no_longer_gains_for_the_next_best() -> None:
    def used_up(block: int, number: int) -> float:
        return [0.5, 0.4, 0.3, 0.0][block] if number < 10 else 0.0

    found = turns(recent_gain(), 60, used_up)
    mostly = [Counter(found[start : start + 8]).most_common(1)[0][0] for start in (BLOCKS, BLOCKS + 12, BLOCKS + 24)]
    assert mostly == [0, 1, 2]


def test_where_nothing_gains_it_goes_round() -> None:
    found = turns(recent_gain(), 400)
    assert all(80 < count < 120 for count in Counter(found).values())


def test_a_visit_is_so_many_generations_in_a_row_and_gains_what_all_of_them_gain() -> None:
    last_only = iter(range(10_000))
    found = turns(recent_gain(visit=3), 300, gain=lambda block, _: float(next(last_only) % 3 == 2) * (block == 1))
    assert all(len(set(found[start : start + 3])) == 1 for start in range(0, 300, 3))
    assert Counter(found[3 * BLOCKS :]).most_common(1)[0][0] == 1


def test_the_same_gains_give_the_same_turns_and_another_seed_others() -> None:
    rng = np.random.default_rng(0)
    gains = rng.random((BLOCKS, 300)) * rng.integers(0, 2, (BLOCKS, 300))
    one, same, other = (turns(recent_gain(seed=seed), 300, lambda b, n: float(gains[b, n])) for seed in (0, 0, 1))
    assert one == same
    assert one != other


def test_one_block_has_every_turn() -> None:
    assert turns(recent_gain(blocks=1), 50, lambda *_: 0.1) == 50 * [0]
