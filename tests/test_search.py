"""Optimizers composed over layers, against loss functions whose layers depend on each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from label_logits import Scored, make_problem

from bbtune.optimizers import OPTIMIZERS, make_optimizer
from bbtune.optimizers.base import Array, Upcoming
from bbtune.optimizers.structure import Structure
from bbtune.schedule import RecentGain, RoundRobin, WholeSweeps
from bbtune.search import Accept, BestEver, BlockSearch, Improves, Proposal, Pull
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
    structure: Structure | None = None,
) -> BlockSearch:
    def make(block: int, size: int) -> Any:
        return make_optimizer(name, size, population, SIGMA, generator(seed, "optimizer", block), structure)

    schedule = RoundRobin(len(blocks), visit) if sweeps is None else WholeSweeps(len(blocks), visit, sweeps=sweeps)
    return BlockSearch(blocks, dim, make, accept, schedule)


def turn(search: BlockSearch, loss: Loss) -> Proposal:
    """One ask and tell."""
    proposal = search.ask()
    search.tell(proposal, Scored(loss(proposal.z)))
    return proposal


@dataclass
class Scripted:
    """An optimizer that asks given candidates (P, D), and explores or stops when it is told to."""

    asked: Array
    reasons: dict[str, object] = field(default_factory=dict)
    best: Array = field(default_factory=lambda: np.zeros(0))
    told: list[Array] = field(default_factory=list)
    probing: bool = False
    uses_logits: bool = False

    @property
    def upcoming(self) -> Upcoming:
        return Upcoming(len(self.asked), probing=self.probing)

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
        alone.tell(Scored(loss(expected.reshape(5, 3, 4))))


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
            alone.tell(Scored(loss(z)))


@pytest.mark.parametrize("blocks", [[[0], [1, 3], [2]], [[2], [0], [3, 1]], [[5, 4], [9]]])
def test_first_is_the_lowest_index_of_the_block_and_known_before(blocks: list[list[int]]) -> None:
    layers = sum(len(block) for block in blocks)
    search, loss = make_search(blocks, 2, Improves(), visit=2), quadratic(1, layers, 2)
    for _ in range(9):
        expected = search.upcoming.first
        proposal = turn(search, loss)
        assert proposal.first == expected
        differ = np.flatnonzero((proposal.z != proposal.z[0]).any(axis=(0, 2)))
        assert proposal.first == (0 if proposal.block is None else differ[0])


def test_the_starting_point_is_scored_first_only_where_its_loss_is_needed() -> None:
    assert Improves().needs_start
    assert not BestEver().needs_start
    search = make_search(layerwise(2), 3, Improves())
    assert search.upcoming.size == 1
    proposal = turn(search, lambda z: np.array([2.5]))
    np.testing.assert_array_equal(proposal.z, np.zeros((1, 2, 3)))
    np.testing.assert_array_equal(search.incumbent, np.zeros((2, 3)))
    assert search.upcoming.size == 5
    assert make_search(layerwise(2), 3, BestEver()).upcoming.size == 5


def test_the_upcoming_size_is_that_of_the_next_proposal_for_blocks_of_any_population() -> None:
    sizes = [3, 5, 2]
    search = BlockSearch(layerwise(3), 1, lambda block, _: Scripted(np.ones((sizes[block], 1))), Improves())
    seen = []
    for _ in range(7):
        expected = search.upcoming.size
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
        search.tell(proposal, Scored(losses))
        np.testing.assert_array_equal(search.incumbent, before)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    layers=st.integers(1, 4),
    dim=st.integers(1, 3),
    joint=st.booleans(),
    name=st.sampled_from(sorted(set(OPTIMIZERS) - {"gauss-newton"})),
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


@pytest.mark.parametrize("accept", [Improves(), BestEver()])
def test_candidates_that_only_explore_change_no_incumbent(accept: Accept) -> None:
    asked = Scripted(np.array([[1.0], [2.0]]), best=np.array([9.0]), probing=True)
    search = BlockSearch([[0]], 1, lambda *_: asked, accept)
    if accept.needs_start:
        turn(search, lambda z: np.array([5.0]))
    proposal = turn(search, lambda z: np.array([4.0, 3.0]))
    assert proposal.probing
    assert not search.incumbent.any()
    assert len(asked.told) == 1  # the optimizer learns from them all the same
    asked.probing = False
    assert not turn(search, lambda z: np.array([4.0, 3.0])).probing
    assert search.incumbent.any()


@pytest.mark.parametrize("layers", [[4], [0, 2, 5]])
def test_gauss_newton_takes_up_steps_and_no_probes(layers: list[int]) -> None:
    problem, dim = make_problem(6 * len(layers)), 6
    structure = Structure(problem.objective, tuple(7 - layer for layer in layers))
    search = make_search([layers], dim, Improves(), "gauss-newton", 15, structure=structure)
    assert search.uses_logits
    probed = set()
    for _ in range(30):
        before, said = search.incumbent, search.upcoming
        proposal = search.ask()
        assert said == Upcoming(len(proposal.z), proposal.first, proposal.probing)
        assert (proposal.z[:, : proposal.first] == before[: proposal.first]).all()
        scores = problem.scores(proposal.z.reshape(len(proposal.z), -1))
        search.tell(proposal, scores)
        improves = not proposal.probing and scores.loss.min() < problem.loss(before.ravel())
        np.testing.assert_array_equal(search.incumbent, proposal.z[scores.loss.argmin()] if improves else before)
        probed |= {proposal.first} if proposal.probing else set()
    assert probed == set(range(len(layers)))
    assert problem.loss(search.incumbent.ravel()) < 0.01 * problem.loss(np.zeros(6 * len(layers)))


def test_a_search_reads_logits_where_one_of_its_optimizers_does() -> None:
    made = [Scripted(np.ones((2, 1))), Scripted(np.ones((2, 1)))]
    search = BlockSearch(layerwise(2), 1, lambda block, _: made[block], Improves())
    assert not search.uses_logits
    made[1].uses_logits = True
    assert search.uses_logits


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
        strategies[layer].tell(Scored(np.array(losses)))
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


# The search and its schedule.


@dataclass
class Noted(RoundRobin):
    """A round robin that notes what it hears."""

    heard: list[tuple[float, int]] = field(default_factory=list)

    def record(self, gain: float, layer_forwards: int) -> None:
        super().record(gain, layer_forwards)
        self.heard.append((gain, layer_forwards))


def heard(accept: Accept, losses: list[float], probing: bool = False) -> list[tuple[float, int]]:
    """What a schedule hears of a search with these lowest losses, each generation one dearer than the last."""
    schedule = Noted(1)
    made = Scripted(np.ones((2, 1)), best=np.ones(1), probing=probing)
    search = BlockSearch([[0]], 1, lambda *_: made, accept, schedule)
    for cost, loss in enumerate(losses):
        proposal = search.ask()
        search.tell(proposal, Scored(np.array([loss, loss + 1.0][: len(proposal.z)]), None, cost))
    return schedule.heard


def test_the_schedule_hears_what_part_of_the_loss_a_generation_took_away_and_its_cost() -> None:
    assert heard(Improves(), [4.0, 3.0, 3.5, 1.5, 1.5]) == [(0.25, 1), (0.0, 2), (0.5, 3), (0.0, 4)]


def test_generations_that_only_explore_gain_nothing_and_cost_the_same() -> None:
    assert heard(Improves(), [4.0, 3.0, 2.0], probing=True) == [(0.0, 1), (0.0, 2)]


@pytest.mark.parametrize("losses", [[0.0, 0.0, 0.0], [0.0, -1.0, -2.0]])
def test_a_loss_of_nothing_has_no_part_to_take_away(losses: list[float]) -> None:
    assert heard(Improves(), losses) == [(0.0, 1), (0.0, 2)]


def test_the_loss_of_no_start_has_no_part_to_take_away() -> None:
    assert heard(BestEver(), [4.0, 3.0]) == [(0.0, 0), (0.25, 1)]


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), visit=st.integers(1, 3))
def test_a_search_by_recent_gain_knows_size_and_first_before_it_asks(seed: int, visit: int) -> None:
    population = [3, 5, 2, 4]

    def search() -> BlockSearch:
        return BlockSearch(
            layerwise(4),
            2,
            lambda block, size: make_optimizer("random", size, population[block], SIGMA, generator(seed, block)),
            Improves(),
            RecentGain(4, visit, generator(seed, "schedule")),
        )

    loss, one, other, blocks = quadratic(seed, 4, 2), search(), search(), []
    for _ in range(1 + 12 * visit):
        upcoming = one.upcoming
        proposal = turn(one, loss)
        assert upcoming == Upcoming(len(proposal.z), proposal.first)
        np.testing.assert_array_equal(turn(other, loss).z, proposal.z)  # the same losses give the same choices
        blocks.append(proposal.block)
    assert blocks[1 : 1 + 4 * visit] == [block for block in range(4) for _ in range(visit)]


@pytest.mark.parametrize("name", ["cma-diagonal", "spsa"])
def test_a_pull_keeps_the_search_nearer_to_the_start(name: str) -> None:
    reached = []
    for pull in (None, Pull(50.0, SIGMA)):
        search = BlockSearch(
            [[0, 1]], 3, lambda _, size: make_optimizer(name, size, 9, SIGMA, generator(0)), Improves(), pull=pull
        )
        for _ in range(60):
            turn(search, quadratic(2, 2, 3))
        reached.append(float(np.linalg.norm(search.incumbent)))
    assert reached[1] < 0.8 * reached[0]
