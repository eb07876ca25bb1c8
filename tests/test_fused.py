"""Searches side by side that are handed out as their mean."""

from __future__ import annotations

import numpy as np
import pytest
from label_logits import make_problem

from bbtune.fused import FusedSearch
from bbtune.objective import Objective
from bbtune.optimizers import make_optimizer
from bbtune.optimizers.structure import Structure
from bbtune.search import BlockSearch, Improves
from bbtune.seeds import generator

LAYERS, DIM = 3, 4
PROBLEM = make_problem(LAYERS * DIM, bend=0.5)


def member(seed: int, name: str) -> BlockSearch:
    def make(block, size):
        structure = Structure(PROBLEM.objective, (3, 2, 1), probe_examples=6 if name.endswith("on a part") else None)
        return make_optimizer(name.split()[0], size, 12, 0.2, generator(seed, "optimizer"), structure)

    return BlockSearch([list(range(LAYERS))], DIM, make, Improves())


def play(search, turns: int) -> list:
    asked = []
    for _ in range(turns):
        asked.append((search.upcoming.size, search.upcoming.first, proposal := search.ask()))
        search.tell(proposal, PROBLEM.scores(proposal.z.reshape(len(proposal.z), -1), proposal.subset))
    return asked


@pytest.mark.parametrize("name", ["gauss-newton", "gauss-newton on a part", "cma-diagonal", "spsa"])
def test_each_member_asks_what_it_asks_alone(name):
    together = play(FusedSearch([member(0, name), member(1, name)]), 24)
    alone = [play(member(seed, name), 24) for seed in (0, 1)]
    told = [proposal.z.tobytes() for _, _, proposal in together if proposal.z.any()]  # all share the start
    for asked in alone:
        mine = [proposal.z.tobytes() for _, _, proposal in asked if proposal.z.any()]
        shared = [z for z in told if z in set(mine)]
        assert shared == mine[: len(shared)]
        assert len(shared) > 6


def test_the_incumbent_is_the_mean_of_the_members():
    members = [member(0, "gauss-newton"), member(1, "gauss-newton")]
    fused = FusedSearch(members)
    play(fused, 30)
    first, second = (one.incumbent for one in members)
    assert not (first == second).all()
    np.testing.assert_array_equal(fused.incumbent, (first + second) / 2)


def test_a_member_that_has_not_moved_is_not_part_of_the_mean():
    members = [member(0, "gauss-newton"), member(1, "gauss-newton")]
    fused = FusedSearch(members)
    while not members[0].incumbent.any():
        play(fused, 1)
    assert not members[1].incumbent.any()
    np.testing.assert_array_equal(fused.incumbent, members[0].incumbent)


def test_sizes_and_layers_are_known_before_the_ask():
    for size, first, proposal in play(FusedSearch([member(0, "gauss-newton"), member(1, "gauss-newton")]), 20):
        assert size == len(proposal.z)
        assert first == proposal.first
        assert (proposal.z[:, :first] == proposal.z[:1, :first]).all()


def test_it_stops_when_all_members_would():
    flat = Objective(PROBLEM.objective.labels, "cross-entropy")

    def make(block, size):
        return make_optimizer("gauss-newton", size, 6, 0.2, generator(block), Structure(flat))

    fused = FusedSearch([BlockSearch([[0]], DIM, make, Improves()) for _ in range(2)])
    turns = 0
    while not fused.stop_reasons():
        proposal = fused.ask()
        scores = PROBLEM.scores(np.zeros((len(proposal.z), LAYERS * DIM)))
        fused.tell(proposal, scores)
        turns += 1
        assert turns < 100
    assert "converged" in fused.stop_reasons()
