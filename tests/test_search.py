"""Optimizers composed over layers, against loss functions whose layers depend on each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bbtune.optimizers import OPTIMIZERS, make_optimizer
from bbtune.optimizers.base import Array
from bbtune.search import Accept, BestEver, BlockSearch, Improves, Proposal
from bbtune.seeds import generator

Loss = Callable[[Array], Array]
SIGMA = 0.3


def quadratic(seed: int, layers: int, dim: int) -> Loss:
    """Losses (P,) of z (P, L, D) in which every layer's optimum depends on the other layers."""
    rng = np.random.default_rng(seed)
    couple = rng.standard_normal((layers * dim, layers * dim))
    target = rng.standard_normal(layers * dim)
    return lambda z: np.array([((couple @ one.ravel() - target) ** 2).sum() for one in z])


def layerwise(layers: int) -> list[list[int]]:
    return [[layer] for layer in range(layers)]


def make_search(
    blocks: Sequence[Sequence[int]],
    dim: int,
    accept: Accept,
    name: str = "cma-diagonal",
    population: int = 5,
    seed: int = 0,
    sweeps: int | None = None,
    visit: int = 1,
) -> BlockSearch:
    def make(block: int, size: int) -> Any:
        return make_optimizer(name, size, population, SIGMA, generator(seed, "optimizer", block))

    return BlockSearch(blocks, dim, make, accept, sweeps, visit)


def turn(search: BlockSearch, loss: Loss) -> Proposal:
    """One ask and tell."""
    proposal = search.ask()
    search.tell(proposal, SimpleNamespace(loss=loss(proposal.z), logits=None))
    return proposal


@dataclass
class Scripted:
    """An optimizer that asks given candidates (P, D) and stops when it is told to."""

    asked: Array
    reasons: dict[str, object] = field(default_factory=dict)
    best: Array = field(default_factory=lambda: np.zeros(0))
    told: list[Array] = field(default_factory=list)

    @property
    def population_size(self) -> int:
        return len(self.asked)

    def ask(self) -> Array:
        return self.asked

    def tell(self, scores: Any) -> None:
        self.told.append(scores.loss)

    def stop_reasons(self) -> dict[str, object]:
        return self.reasons


def test_a_joint_search_changes_all_layers_at_once() -> None:
    search = make_search([[0, 1, 2]], 4, BestEver())
    proposal = search.ask()
    assert proposal.block == 0
    assert proposal.z.shape == (5, 3, 4)
    assert (proposal.z != 0).all()


def test_a_joint_search_asks_what_one_optimizer_of_all_numbers_asks() -> None:
    search, loss = make_search([[0, 1, 2]], 4, BestEver()), quadratic(0, 3, 4)
    alone = make_optimizer("cma-diagonal", 12, 5, SIGMA, generator(0, "optimizer", 0))
    for _ in range(4):
        expected = alone.ask()
        np.testing.assert_array_equal(turn(search, loss).z.reshape(5, 12), expected)
        alone.tell(SimpleNamespace(loss=loss(expected.reshape(5, 3, 4)), logits=None))


@pytest.mark.parametrize("accept", [Improves(), BestEver()])
def test_candidates_differ_from_the_incumbent_in_their_block_only(accept: Accept) -> None:
    blocks = [[0], [1, 3], [2]]
    search, loss = make_search(blocks, 2, accept), quadratic(1, 4, 2)
    for _ in range(13):
        incumbent = search.incumbent
        proposal = turn(search, loss)
        if proposal.block is None:
            continue
        others = [layer for layer in range(4) if layer not in blocks[proposal.block]]
        np.testing.assert_array_equal(proposal.z[:, others], np.broadcast_to(incumbent[others], (5, len(others), 2)))
        assert (proposal.z[:, blocks[proposal.block]] != incumbent[blocks[proposal.block]]).all()
        np.testing.assert_array_equal(search.incumbent[others], incumbent[others])


@pytest.mark.parametrize(
    ("accept", "visits"), [(Improves(), [None, 0, 1, 2, 0, 1, 2, 0]), (BestEver(), [0, 1, 2, 0, 1, 2, 0, 1])]
)
def test_blocks_are_visited_in_turn_from_the_bottom(accept: Accept, visits: list[int | None]) -> None:
    search, loss = make_search(layerwise(3), 2, accept), quadratic(0, 3, 2)
    assert [turn(search, loss).block for _ in visits] == visits


@pytest.mark.parametrize(
    ("accept", "visits"), [(Improves(), [None, 0, 0, 0, 1, 1, 1, 0, 0]), (BestEver(), [0, 0, 0, 1, 1, 1, 0, 0])]
)
def test_a_block_is_searched_so_many_generations_in_a_row(accept: Accept, visits: list[int | None]) -> None:
    search, loss = make_search(layerwise(2), 2, accept, visit=3), quadratic(0, 2, 2)
    assert [turn(search, loss).block for _ in visits] == visits


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), visit=st.integers(1, 4), accept=st.sampled_from([Improves(), BestEver()]))
def test_generations_in_a_row_of_one_block_are_those_of_its_optimizer_alone(
    seed: int, visit: int, accept: Accept
) -> None:
    loss = quadratic(seed, 2, 3)
    search = make_search(layerwise(2), 3, accept, seed=seed, visit=visit)
    if accept.needs_start:
        turn(search, loss)
    for block in (0, 1):
        alone = make_optimizer("cma-diagonal", 3, 5, SIGMA, generator(seed, "optimizer", block))
        for _ in range(visit):
            z = turn(search, loss).z
            np.testing.assert_array_equal(z[:, block], alone.ask())
            alone.tell(SimpleNamespace(loss=loss(z), logits=None))


@pytest.mark.parametrize("blocks", [[[0], [1, 3], [2]], [[2], [0], [3, 1]], [[5, 4], [9]]])
def test_first_is_the_lowest_index_of_the_block_and_known_before(blocks: list[list[int]]) -> None:
    layers = sum(len(block) for block in blocks)
    search, loss = make_search(blocks, 2, Improves(), visit=2), quadratic(1, layers, 2)
    for _ in range(9):
        expected = search.next_first
        proposal = turn(search, loss)
        assert proposal.first == expected
        differ = np.flatnonzero((proposal.z != proposal.z[0]).any(axis=(0, 2)))
        assert proposal.first == (0 if proposal.block is None else differ[0])


def test_the_starting_point_is_scored_first_only_where_its_loss_is_needed() -> None:
    assert Improves().needs_start
    assert not BestEver().needs_start
    search = make_search(layerwise(2), 3, Improves())
    assert search.next_size == 1
    proposal = turn(search, lambda z: np.array([2.5]))
    np.testing.assert_array_equal(proposal.z, np.zeros((1, 2, 3)))
    np.testing.assert_array_equal(search.incumbent, np.zeros((2, 3)))
    assert search.next_size == 5
    assert make_search(layerwise(2), 3, BestEver()).next_size == 5


def test_next_size_is_the_size_of_the_next_proposal_for_blocks_of_any_population() -> None:
    sizes = [3, 5, 2]
    search = BlockSearch(layerwise(3), 1, lambda block, _: Scripted(np.ones((sizes[block], 1))), Improves())
    seen = []
    for _ in range(7):
        expected = search.next_size
        seen.append(len(turn(search, lambda z: np.arange(len(z), dtype=float)).z))
        assert seen[-1] == expected
    assert seen == [1, 3, 5, 2, 3, 5, 2]


def test_every_optimizer_is_told_the_losses_of_its_own_block() -> None:
    made = [Scripted(np.full((2, 1), float(block + 1))) for block in range(3)]
    search = BlockSearch(layerwise(3), 1, lambda block, _: made[block], Improves())
    for number in range(7):
        turn(search, lambda z, n=number: np.full(len(z), float(n)))  # type: ignore[misc]
    assert [[losses[0] for losses in one.told] for one in made] == [[1.0, 4.0], [2.0, 5.0], [3.0, 6.0]]


def test_an_equal_loss_does_not_improve() -> None:
    search = BlockSearch([[0]], 2, lambda *_: Scripted(np.ones((3, 2))), Improves())
    turn(search, lambda z: np.full(len(z), 1.0))
    turn(search, lambda z: np.full(len(z), 1.0))
    assert not search.incumbent.any()
    turn(search, lambda z: np.array([1.0, 0.5, 1.0]))
    np.testing.assert_array_equal(search.incumbent, np.ones((1, 2)))


def test_improves_judges_by_the_present_context_and_not_by_old_losses() -> None:
    # The block's own best (loss 0) is refused here: it was had before the other block moved.
    asked = Scripted(np.array([[1.0], [2.0]]), best=np.array([9.0]))
    search = BlockSearch([[0]], 1, lambda *_: asked, Improves())
    turn(search, lambda z: np.array([5.0]))
    turn(search, lambda z: np.array([4.0, 3.0]))
    np.testing.assert_array_equal(search.incumbent, [[2.0]])


def test_writing_to_what_was_handed_out_does_not_move_the_incumbent() -> None:
    search, loss = make_search(layerwise(2), 2, Improves()), quadratic(0, 2, 2)
    for _ in range(4):
        before = search.incumbent
        search.incumbent[:] = 7.0
        np.testing.assert_array_equal(search.incumbent, before)
        proposal = search.ask()
        losses = np.full(len(proposal.z), 1e9) if proposal.block is not None else loss(proposal.z)
        proposal.z[:] = 7.0
        np.testing.assert_array_equal(search.incumbent, before)
        search.tell(proposal, SimpleNamespace(loss=losses, logits=None))
        np.testing.assert_array_equal(search.incumbent, before)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    layers=st.integers(1, 4),
    dim=st.integers(1, 3),
    joint=st.booleans(),
    name=st.sampled_from(sorted(OPTIMIZERS)),
    population=st.integers(2, 8),
)
def test_improves_never_raises_the_true_loss_of_the_incumbent(
    seed: int, layers: int, dim: int, joint: bool, name: str, population: int
) -> None:
    loss = quadratic(seed, layers, dim)
    blocks = [list(range(layers))] if joint else layerwise(layers)
    search = make_search(blocks, dim, Improves(), name, population, seed)
    before = loss(search.incumbent[None])[0]
    for _ in range(3 * layers + 1):
        proposal = turn(search, loss)
        after = loss(search.incumbent[None])[0]
        assert after <= before
        assert after == min(before, loss(proposal.z).min())  # nor is an improvement left lying
        before = after


def algorithm_1(loss: Loss, visits: Sequence[int], dim: int, population: int, seed: int) -> list[Array]:
    """BBTv2's algorithm 1, transcribed: the prompt (L, D) after every generation; ``visits`` are their layers."""
    layers = max(visits) + 1
    make = OPTIMIZERS["cma"]
    strategies = [make(dim, population, SIGMA, generator(seed, "optimizer", layer)) for layer in range(layers)]
    best: list[tuple[float, Array]] = [(np.inf, np.zeros(dim))] * layers
    prompt, visited = np.zeros((layers, dim)), []
    for layer in visits:
        candidates = strategies[layer].ask()
        losses = []
        for candidate in candidates:
            prompt[layer] = candidate
            losses.append(float(loss(prompt[None])[0]))
        strategies[layer].tell(SimpleNamespace(loss=np.array(losses), logits=None))
        for one, candidate in zip(losses, candidates, strict=True):
            if one < best[layer][0]:
                best[layer] = (one, candidate)
        prompt[layer] = best[layer][1]
        visited.append(prompt.copy())
    return visited


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), layers=st.integers(1, 4), population=st.integers(4, 8), visit=st.integers(1, 3))
@example(seed=0, layers=3, population=4, visit=1)  # the order of the paper
def test_best_ever_in_whole_sweeps_is_algorithm_1_of_bbtv2(seed: int, layers: int, population: int, visit: int) -> None:
    loss = quadratic(seed, layers, 3)
    search = make_search(layerwise(layers), 3, BestEver(), "cma", population, seed, sweeps=4, visit=visit)
    visited = []
    while not search.stop_reasons():
        turn(search, loss)
        visited.append(search.incumbent)
    visits = 4 * [layer for layer in range(layers) for _ in range(visit)]
    np.testing.assert_array_equal(visited, algorithm_1(loss, visits, 3, population, seed))


def test_best_ever_can_raise_the_true_loss_which_is_why_it_is_not_the_default() -> None:
    loss = quadratic(3, 4, 2)
    search = make_search(layerwise(4), 2, BestEver(), "cma", 5)
    true = []
    for _ in range(40):
        turn(search, loss)
        true.append(loss(search.incumbent[None])[0])
    assert (np.diff(true) > 0).any()


@pytest.mark.parametrize(("accept", "first"), [(Improves(), 1), (BestEver(), 0)])
def test_whole_sweeps_end_after_the_last_layer_of_the_last_sweep(accept: Accept, first: int) -> None:
    search, loss = make_search(layerwise(3), 2, accept, sweeps=2), quadratic(0, 3, 2)
    for _ in range(first + 6):
        assert search.stop_reasons() == {}
        turn(search, loss)
    assert search.stop_reasons() == {"sweeps": 2}


@pytest.mark.parametrize(("accept", "first"), [(Improves(), 1), (BestEver(), 0)])
def test_whole_sweeps_count_every_generation_of_a_visit(accept: Accept, first: int) -> None:
    search, loss = make_search(layerwise(3), 2, accept, sweeps=2, visit=4), quadratic(0, 3, 2)
    for _ in range(first + 2 * 3 * 4):
        assert search.stop_reasons() == {}
        turn(search, loss)
    assert search.stop_reasons() == {"sweeps": 2}


def test_no_sweep_at_all_ends_before_the_first_generation() -> None:
    assert make_search(layerwise(3), 2, BestEver(), sweeps=0).stop_reasons() == {"sweeps": 0}


def test_the_search_has_converged_only_when_every_optimizer_has() -> None:
    made = [Scripted(np.ones((2, 1))) for _ in range(2)]
    search = BlockSearch(layerwise(2), 1, lambda block, _: made[block], Improves())
    assert search.stop_reasons() == {}
    made[1].reasons = {"tolx": 1e-9}
    assert search.stop_reasons() == {}
    made[0].reasons = {"tolfun": 1e-9}
    assert search.stop_reasons() == {"converged": [{"tolfun": 1e-9}, {"tolx": 1e-9}]}
