"""(1 + lambda): the parent, its offspring, and the length of the step."""

from __future__ import annotations

import numpy as np
import pytest
from label_logits import Scored

from bbtune.optimizers.base import Array
from bbtune.optimizers.one_plus_lambda import OnePlusLambda

SIGMA = 0.4


def strategy(population: int, dim: int = 10, seed: int = 0) -> OnePlusLambda:
    return OnePlusLambda(dim, population, SIGMA, np.random.default_rng(seed))


def step(asked: Array) -> float:
    """Length per number of the offspring from their parent."""
    return float((asked[1:] - asked[0]).std())


def ranked(asked: Array, better: int) -> Scored:
    """Losses by which so many offspring beat the parent."""
    return Scored(np.array([0.0, *(-1.0 if i < better else 1.0 for i in range(len(asked) - 1))]))


def test_the_first_parent_is_zero_and_its_offspring_are_normal_with_step_sigma() -> None:
    asked = strategy(2001).ask()
    np.testing.assert_array_equal(asked[0], np.zeros(10))
    assert step(asked) == pytest.approx(SIGMA, rel=0.02)


def test_the_best_of_all_is_the_next_parent_and_of_equals_the_old_one() -> None:
    optimizer = strategy(5)
    asked = optimizer.ask()
    optimizer.tell(Scored(np.array([3.0, 4.0, 1.0, 2.0, 1.5])))
    parent = optimizer.ask()[0]
    np.testing.assert_array_equal(parent, asked[2])
    optimizer.tell(Scored(np.full(5, 9.0)))  # another context: its loss has risen, and it is no worse than the others
    np.testing.assert_array_equal(optimizer.ask()[0], parent)


@pytest.mark.parametrize("population", [2, 21])
def test_the_step_grows_while_offspring_succeed_and_shrinks_while_none_does(population: int) -> None:
    for better, grows in [(population - 1, True), (0, False)]:
        optimizer = strategy(population, dim=100)
        for _ in range(60):
            optimizer.tell(ranked(optimizer.ask(), better))
        reached = step(optimizer.ask())
        assert reached > 1.5 * SIGMA if grows else reached < 0.95 * SIGMA


def test_of_twenty_offspring_the_step_stays_where_one_in_seven_succeeds() -> None:
    optimizer = strategy(21, dim=400)
    for better in 50 * [3, 3, 3, 2]:  # of twenty: 1 / 7.27, and the rule's target is 1 / 7.24
        optimizer.tell(ranked(optimizer.ask(), better))
    assert step(optimizer.ask()) == pytest.approx(SIGMA, rel=0.1)


@pytest.mark.parametrize("population", [2, 12])
def test_it_converges_on_a_sphere_and_says_that_it_has(population: int) -> None:
    optimizer = strategy(population, dim=5)
    for _ in range(4000):
        if optimizer.stop_reasons():
            break
        optimizer.tell(Scored(((optimizer.ask() - 0.7) ** 2).sum(axis=1)))
    assert set(optimizer.stop_reasons()) == {"step"}
    np.testing.assert_allclose(optimizer.best, np.full(5, 0.7), atol=1e-4)
