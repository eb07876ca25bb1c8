"""An optimizer made anew where it came to its end."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from label_logits import Scored, make_problem

from bbtune.optimizers import make_optimizer
from bbtune.optimizers.base import Array, Optimizer, Upcoming
from bbtune.optimizers.restarts import Restarts
from bbtune.optimizers.structure import Structure
from bbtune.seeds import generator

DIM = 3


def two_bowls(z: Array) -> Array:
    """A bowl near 0 and a wider and deeper one at 2."""
    near, far = (((z - at) ** 2).sum(axis=1) for at in (0.2, 2.0))
    return np.minimum(near + 1.0, 0.2 * far)


@dataclass
class Short:
    """Asks two points beside 0 and stops after so many generations."""

    number: int
    generations: int = 2
    told: int = 0
    best: Array = field(default_factory=lambda: np.zeros(DIM))
    uses_logits: bool = False
    upcoming: Upcoming = field(default_factory=lambda: Upcoming(2))

    def ask(self) -> Array:
        return np.array([np.full(DIM, 1.0 + self.number), np.full(DIM, -1.0)])

    def tell(self, scores: Any) -> None:
        self.told += 1

    def stop_reasons(self) -> dict[str, object]:
        return {"short": self.number} if self.told >= self.generations else {}


def with_restarts(restarts: int) -> tuple[Restarts, list[Short]]:
    made: list[Short] = []

    def make(number: int, origin: Array | None) -> Optimizer:
        assert (origin is None) == (number == 0)
        made.append(Short(number))
        return made[-1]

    return Restarts(make, restarts), made


def tell(optimizer: Restarts, *losses: float) -> Array:
    """What was asked."""
    asked = optimizer.ask()
    optimizer.tell(Scored(np.array(losses)))
    return asked


def test_an_optimizer_at_its_end_is_made_anew_around_the_best_point() -> None:
    optimizer, made = with_restarts(1)
    first = tell(optimizer, 5.0, 7.0)
    np.testing.assert_array_equal(first, [np.full(DIM, 1.0), np.full(DIM, -1.0)])
    assert len(made) == 1
    tell(optimizer, 6.0, 6.0)
    assert len(made) == 2
    assert optimizer.stop_reasons() == {}
    np.testing.assert_array_equal(optimizer.best, first[0])
    np.testing.assert_array_equal(tell(optimizer, 9.0, 9.0), first[0] + [np.full(DIM, 2.0), np.full(DIM, -1.0)])
    np.testing.assert_array_equal(optimizer.best, first[0])  # the best is of all, not of the last


def test_after_its_restarts_it_may_stop_and_gives_the_last_reason() -> None:
    optimizer, made = with_restarts(2)
    for _ in range(2 * 3):
        assert optimizer.stop_reasons() == {}
        tell(optimizer, 1.0, 2.0)
    assert [one.number for one in made] == [0, 1, 2]
    assert optimizer.stop_reasons() == {"short": 2}
    tell(optimizer, 1.0, 2.0)  # a search over blocks goes on asking while others have not stopped
    assert len(made) == 3


def test_until_its_first_end_it_is_the_optimizer_itself() -> None:
    alone = make_optimizer("cma", DIM, 8, 0.3, generator(0, 0))
    wrapped = Restarts(lambda number, _: make_optimizer("cma", DIM, 8, 0.3, generator(0, number)), 3)
    for _ in range(20):
        z = alone.ask()
        np.testing.assert_array_equal(wrapped.ask(), z)
        for one in (alone, wrapped):
            one.tell(Scored(two_bowls(z)))
        np.testing.assert_array_equal(wrapped.best, alone.best)


def reached(seed: int, restarts: int) -> float:
    """The lowest loss of CMA-ES in the two bowls."""
    optimizer = Restarts(lambda number, _: make_optimizer("cma", DIM, 8, 0.6, generator(seed, number)), restarts)
    while not optimizer.stop_reasons():
        optimizer.tell(Scored(two_bowls(optimizer.ask())))
    return float(two_bowls(optimizer.best[None])[0])


def test_restarts_can_leave_a_bowl_that_a_search_was_caught_in() -> None:
    seeds = range(3)
    caught = [seed for seed in seeds if reached(seed, 0) > 0.5]
    assert caught
    assert len([seed for seed in seeds if reached(seed, 5) > 0.5]) < len(caught)


def test_gauss_newton_made_anew_scores_its_new_centre_first() -> None:
    problem = make_problem(6, ease=0.0)

    def make(number: int, origin: Array | None) -> Optimizer:
        structure = Structure(problem.objective, origin=origin)
        return make_optimizer("gauss-newton", 6, 8, 0.5, generator(0, number), structure)

    optimizer = Restarts(make, 1)
    assert optimizer.uses_logits
    around: list[Array] = []
    while not optimizer.stop_reasons():
        best, alone = optimizer.best, optimizer.upcoming == Upcoming(1)
        asked = optimizer.ask()
        if alone and (asked[0] == best).all():
            around.append(best)
        optimizer.tell(problem.scores(asked))
    assert len(around) == 2  # 0, and the minimum that the first one found
    assert problem.loss(around[1]) < problem.loss(around[0])
