"""Gauss-Newton on label logits: what one iteration asks, what it gains, and what follows when it gains nothing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from label_logits import Problem, Scored, make_problem
from scipy.optimize import minimize

from bbtune.errors import OptimizerError
from bbtune.objective import Subset
from bbtune.optimizers import make_optimizer
from bbtune.optimizers.base import Array
from bbtune.optimizers.gauss_newton import GaussNewton
from bbtune.optimizers.structure import Structure

SIGMA, LAYERS, WIDTH, POPULATION = 0.5, 4, 10, 20
DIM = LAYERS * WIDTH
KINDS = ["cross-entropy", "hinge"]


def gauss_newton(
    problem: Problem, dim: int, population: int, costs: tuple[int, ...] = (1,), examples: int | None = None
) -> GaussNewton:
    structure = Structure(problem.objective, costs, probe_examples=examples)
    return GaussNewton(dim, population, SIGMA, np.random.default_rng(0), structure)


def by_layers(problem: Problem, costs: tuple[int, ...] = (4, 3, 2, 1)) -> GaussNewton:
    """Five probes of each layer at first."""
    return gauss_newton(problem, DIM, POPULATION, costs)


@dataclass
class Generation:
    """What was asked, and what the optimizer had said of it."""

    asked: Array
    probing: bool
    first: int
    subset: Subset | None


def generation(optimizer: GaussNewton, problem: Problem, worse: float = 0.0) -> Generation:
    """One ask and tell; the losses are told so much higher."""
    said = optimizer.upcoming
    asked = optimizer.ask()
    scores = problem.scores(asked, said.subset)
    optimizer.tell(Scored(scores.loss + worse, scores.logits))
    return Generation(asked, said.probing, said.first, said.subset)


def probes(optimizer: GaussNewton, problem: Problem) -> list[Generation]:
    """All generations of probes of an iteration; before the first, that of the centre."""
    found = [generation(optimizer, problem)]
    while optimizer.upcoming.probing:
        found.append(generation(optimizer, problem))
    return found


def iterate(optimizer: GaussNewton, problem: Problem) -> None:
    """Go on to where new probes are asked."""
    probes(optimizer, problem)
    while not optimizer.upcoming.probing:
        generation(optimizer, problem)


def lengths(steps: Array, directions: Array) -> Array:
    """Of steps (k, D), in units of the directions (m, D) that they are made of."""
    return np.linalg.norm(steps @ np.linalg.pinv(directions), axis=1)


def least(problem: Problem, dim: int) -> float:
    """The minimum of a convex loss (D small), by a solver that knows nothing of ours."""
    start, loss = np.zeros(dim), lambda z: float(problem.objective(problem.logits(z[None])[0]))
    for _ in range(3):
        start = minimize(loss, start, method="Powell", options={"xtol": 1e-6, "ftol": 1e-9}).x
    return loss(start)


# What it gains.


@pytest.mark.parametrize("classes", [2, 4])
def test_logits_that_are_linear_are_solved_in_a_few_iterations(classes: int) -> None:
    problem = make_problem(6, classes, ease=0.0)
    optimizer, lowest = gauss_newton(problem, 6, 8), least(problem, 6)
    assert problem.loss(np.zeros(6)) > lowest + 0.1
    for _ in range(4):
        iterate(optimizer, problem)
    assert problem.loss(optimizer.best) == pytest.approx(lowest, abs=1e-3)


@pytest.mark.parametrize("classes", [2, 4])
def test_of_the_hinge_loss_the_corners_are_rounded_so_it_comes_near(classes: int) -> None:
    problem = make_problem(6, classes, "hinge", ease=0.0)
    optimizer, lowest = gauss_newton(problem, 6, 8), least(problem, 6)
    for _ in range(4):
        iterate(optimizer, problem)
    first = problem.loss(np.zeros(6))
    assert problem.loss(optimizer.best) - lowest < 0.05 * (first - lowest)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("bend", [1.0, 4.0])
def test_the_best_step_is_taken_if_it_lowers_the_loss_and_no_probe_is(kind: str, classes: int, bend: float) -> None:
    problem, point = make_problem(DIM, classes, kind, bend), np.zeros(DIM)
    optimizer, first = by_layers(problem), problem.loss(np.zeros(DIM))
    for _ in range(60):
        now = generation(optimizer, problem)
        if now.probing:  # outside its layer, a probe is the point where the optimizer stands
            here = np.arange(DIM) // WIDTH == now.first
            np.testing.assert_array_equal(
                now.asked[:, ~here], np.broadcast_to(point[~here], (len(now.asked), DIM - WIDTH))
            )
        else:
            point = min([point, *now.asked], key=problem.loss)  # min takes the first of equals
    assert problem.loss(point) < 0.1 * first
    assert problem.loss(optimizer.best) <= problem.loss(point)


@pytest.mark.parametrize("population", [2, 3, 7])
def test_few_candidates_are_enough(population: int) -> None:
    problem, dim = make_problem(6), 6
    optimizer = gauss_newton(problem, dim, population)
    for _ in range(20):
        iterate(optimizer, problem)
    assert problem.loss(optimizer.best) < 0.5 * problem.loss(np.zeros(dim))


# What it asks.


def test_an_iteration_probes_the_layers_from_the_bottom_up_and_then_tries_three_steps() -> None:
    problem = make_problem(DIM)
    optimizer = by_layers(problem)
    found = [generation(optimizer, problem) for _ in range(6)]
    assert [now.probing for now in found] == [False, True, True, True, True, False]
    assert [now.first for now in found] == [0, 0, 1, 2, 3, 0]
    assert [len(now.asked) for now in found] == [1, 5, 5, 5, 5, 3]  # the centre goes before
    np.testing.assert_array_equal(found[0].asked[0], np.zeros(DIM))
    assert sum(len(now.asked) for now in probes(optimizer, problem)) == POPULATION


def test_of_more_layers_than_a_fifth_of_the_population_some_are_probed_together() -> None:
    problem = make_problem(DIM)
    optimizer = gauss_newton(problem, DIM, 12, costs=(8, 7, 6, 5, 4, 3, 2, 1))
    found = probes(optimizer, problem)[1:]
    assert [now.first for now in found] == [0, 4]
    differ = [np.flatnonzero((now.asked != 0).any(axis=0)) for now in found]
    np.testing.assert_array_equal(differ, [np.arange(DIM // 2), np.arange(DIM // 2, DIM)])


@pytest.mark.parametrize("layers", [1, 2, 4])
def test_probes_are_random_and_equally_long_whatever_part_they_are_in(layers: int) -> None:
    problem, dim = make_problem(200), 200
    found = probes(gauss_newton(problem, dim, 20, layers * (1,)), problem)
    near = np.concatenate([now.asked for now in found[1:]])
    np.testing.assert_allclose(np.linalg.norm(near, axis=1), 0.03 * SIGMA * np.sqrt(dim), rtol=0.3)
    cosines = near @ near.T / np.outer(*2 * [np.linalg.norm(near, axis=1)])
    assert np.abs(cosines - np.eye(20)).max() < 0.6


def sensitive(layer: int) -> Problem:
    """Of all layers one matters, but for a little."""
    all_of_them = make_problem(DIM, ease=0.0)
    weights = np.where(np.arange(DIM) // WIDTH == layer, 1.0, 0.01)
    return Problem(all_of_them.objective, lambda z: all_of_them.logits(weights * z))


@pytest.mark.parametrize("layer", range(LAYERS))
def test_where_the_loss_is_steep_more_probes_go_and_everywhere_at_least_one(layer: int) -> None:
    problem = sensitive(layer)
    optimizer = by_layers(problem, costs=LAYERS * (1,))
    iterate(optimizer, problem)
    counts = [len(now.asked) for now in probes(optimizer, problem)]
    assert sum(counts) == POPULATION
    assert counts[layer] >= 15
    assert min(counts) >= 1


def test_where_candidates_are_cheap_more_probes_go() -> None:
    all_of_them = make_problem(DIM, ease=0.0)
    same = Problem(all_of_them.objective, lambda z: all_of_them.logits(np.tile(z.reshape(-1, 4, WIDTH).sum(1), 4)))
    found = []
    for costs in [(1, 1, 1, 1), (400, 400, 400, 1)]:
        optimizer = by_layers(same, costs)
        iterate(optimizer, same)
        found.append([len(now.asked) for now in probes(optimizer, same)])
    assert found[1][3] > found[0][3]
    assert found[1][3] > max(found[1][:3])
    assert [sum(counts) for counts in found] == [POPULATION, POPULATION]


# On a part of the examples.


def test_probes_are_scored_on_a_part_of_the_examples_of_every_label_and_steps_on_all() -> None:
    problem = make_problem(DIM, 4, examples=40)
    optimizer = gauss_newton(problem, DIM, POPULATION, (4, 3, 2, 1), examples=8)
    rounds = []
    for _ in range(2):
        found = [*probes(optimizer, problem), generation(optimizer, problem)]
        rounds.append({now.subset for now in found if len(now.asked) > 1 and now.probing})
        assert {now.subset for now in found if not now.probing} == {None}
    ((first,), (second,)) = rounds  # one part for all probes of a round
    assert first is not None
    assert second is not None
    for subset in (first, second):
        assert sorted(subset) == list(subset)
        assert np.bincount(problem.objective.labels[list(subset)]).tolist() == [2, 2, 2, 2]
    assert first != second


def test_the_centre_and_the_best_point_are_of_losses_on_all_examples() -> None:
    problem = make_problem(DIM, examples=30, bend=1.0)
    optimizer = gauss_newton(problem, DIM, POPULATION, (4, 3, 2, 1), examples=6)
    whole = []
    for _ in range(60):
        now = generation(optimizer, problem)
        whole += [] if now.subset else list(now.asked)
        assert problem.loss(optimizer.best) == min(problem.loss(z) for z in whole)
    assert problem.loss(optimizer.best) < 0.2 * problem.loss(np.zeros(DIM))


def test_a_round_that_gains_nothing_is_followed_by_probes_on_twice_as_many_examples_up_to_all() -> None:
    problem = make_problem(DIM, examples=30)
    optimizer = gauss_newton(problem, DIM, POPULATION, (4, 3, 2, 1), examples=6)
    seen = []
    for _ in range(4):
        subsets = [now.subset for now in probes(optimizer, problem) if len(now.asked) > 1]
        seen.append(None if subsets[0] is None else len(subsets[0]))
        while not optimizer.upcoming.probing:
            generation(optimizer, problem, worse=50.0)
    assert seen == [6, 12, 24, None]


def test_it_does_not_end_before_probes_have_seen_all_examples() -> None:
    problem = make_problem(DIM, examples=120)
    optimizer, seen = gauss_newton(problem, DIM, POPULATION, (4, 3, 2, 1), examples=1), []
    while not optimizer.stop_reasons():
        subsets = [now.subset for now in probes(optimizer, problem) if len(now.asked) > 1]
        seen.append(None if subsets[0] is None else len(subsets[0]))
        while not optimizer.upcoming.probing:
            generation(optimizer, problem, worse=50.0)
    assert seen == [1, 2, 4, 8, 16, 32, 64, None]


@pytest.mark.parametrize("l2", [0.0, 2.0])
def test_where_another_point_is_its_origin_the_pull_is_towards_0_all_the_same(l2: float) -> None:
    problem, origin = make_problem(6, ease=0.0), np.linspace(0.5, -0.5, 6)
    moved = Problem(problem.objective, lambda z: problem.logits(z + origin))
    reached = []
    for of, start in [(problem, None), (moved, origin)]:
        structure, shift = Structure(of.objective, l2=l2, origin=start), 0.0 if start is None else start
        optimizer = GaussNewton(6, 8, SIGMA, np.random.default_rng(0), structure)
        for _ in range(60):
            asked = optimizer.ask()
            scores, pull = of.scores(asked), l2 / 2 * (((asked + shift) / SIGMA) ** 2).mean(axis=1)
            optimizer.tell(Scored(scores.loss + pull, scores.logits))
            if optimizer.stop_reasons():
                break
        assert optimizer.stop_reasons()
        reached.append(optimizer.best + shift)
    np.testing.assert_allclose(reached[0], reached[1], atol=2e-2)


def test_as_many_examples_as_there_are_is_the_same_as_no_limit() -> None:
    problem = make_problem(DIM, examples=30)
    limited, free = (gauss_newton(problem, DIM, POPULATION, (4, 3, 2, 1), n) for n in (30, None))
    for _ in range(30):
        one, other = generation(limited, problem), generation(free, problem)
        assert one.subset is None
        np.testing.assert_array_equal(one.asked, other.asked)


# The trust radius.


def test_steps_are_as_long_as_twice_once_and_half_the_trust_radius_which_starts_at_a_half() -> None:
    problem = make_problem(DIM)
    optimizer = by_layers(problem)
    directions = np.concatenate([now.asked for now in probes(optimizer, problem)])[1:] / 0.03
    steps = generation(optimizer, problem).asked
    np.testing.assert_allclose(lengths(steps, directions), [1.0, 0.5, 0.25], rtol=1e-6)


def test_the_radius_follows_the_step_taken_and_without_one_shrinks_twice_before_new_and_longer_probes() -> None:
    problem = make_problem(DIM)
    optimizer = by_layers(problem)
    probes(optimizer, problem)
    taken = generation(optimizer, problem).asked[0]  # the longest: far from the minimum, the longer the better
    directions = (np.concatenate([now.asked for now in probes(optimizer, problem)]) - taken) / 0.03
    for expected in ([2.0, 1.0, 0.5], [2 / 8, 1 / 8, 0.5 / 8]):
        steps = generation(optimizer, problem, worse=50.0).asked - taken
        np.testing.assert_allclose(lengths(steps, directions), expected, rtol=1e-6)
    longer = (np.concatenate([now.asked for now in probes(optimizer, problem)]) - taken) / 0.06
    assert np.linalg.norm(longer, axis=1).mean() == pytest.approx(SIGMA * np.sqrt(DIM), rel=0.2)
    steps = generation(optimizer, problem).asked - taken
    np.testing.assert_allclose(lengths(steps, longer), [0.12, 0.06, 0.03], rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_flat_problem_ends_with_the_radius_as_the_reason(kind: str) -> None:
    flat = make_problem(DIM, kind=kind)
    flat = Problem(flat.objective, lambda z: np.zeros((len(z), len(flat.objective.labels), 3)))
    optimizer = by_layers(flat)
    for _ in range(6 * (LAYERS + 2)):
        assert optimizer.stop_reasons() == {}
        assert np.isfinite(generation(optimizer, flat).asked).all()
        if optimizer.stop_reasons():
            break
    assert optimizer.stop_reasons() == {"radius": pytest.approx(0.06 / 8**2)}


@pytest.mark.parametrize("digit", [0.05, 0.25])
def test_longer_probes_see_through_the_rounding_of_the_logits(digit: float) -> None:
    smooth = make_problem(DIM, bend=0.3)
    rough = Problem(smooth.objective, lambda z: digit * np.round(smooth.logits(z) / digit))
    optimizer = by_layers(rough)
    for _ in range(60 * (LAYERS + 1)):
        generation(optimizer, rough)
        if optimizer.stop_reasons():
            break
    assert smooth.loss(optimizer.best) < 0.1 * smooth.loss(np.zeros(DIM))


def test_at_the_minimum_it_ends_by_itself() -> None:
    problem = make_problem(6, ease=0.0)
    optimizer = gauss_newton(problem, 6, 8)
    for _ in range(30):
        iterate(optimizer, problem)
        if optimizer.stop_reasons():
            break
    assert set(optimizer.stop_reasons()) == {"radius"}


# What it refuses.


def test_without_the_labels_of_the_train_examples_it_cannot_be_made() -> None:
    with pytest.raises(OptimizerError, match=r"needs the labels of the train examples, got none; pass structure to"):
        make_optimizer("gauss-newton", 6, 8, SIGMA, np.random.default_rng(0))


def test_scores_without_logits_are_refused_in_words() -> None:
    problem = make_problem(6)
    optimizer = gauss_newton(problem, 6, 8)
    loss = problem.scores(optimizer.ask()).loss
    with pytest.raises(OptimizerError, match=r"needs label logits \(P, N, C\), all finite, got none; use spsa"):
        optimizer.tell(Scored(loss))


def test_logits_that_are_not_finite_are_refused_in_words() -> None:
    problem = make_problem(6)
    optimizer = gauss_newton(problem, 6, 8)
    scores = problem.scores(optimizer.ask())
    scores.logits[0, 0, 0] = -np.inf
    with pytest.raises(OptimizerError, match="got some that are not finite"):
        optimizer.tell(scores)
