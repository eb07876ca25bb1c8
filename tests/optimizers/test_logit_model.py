"""The minimisers of the loss of linear logits, within radii, against a solver that knows nothing of ours."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import NonlinearConstraint, minimize

from bbtune.objective import Objective
from bbtune.optimizers.base import Array
from bbtune.optimizers.logit_model import LogitModel

EXAMPLES = 30
BOTH = pytest.mark.parametrize("kind", ["cross-entropy", "hinge"])
CLASSES = pytest.mark.parametrize("classes", [2, 4])
RADII = np.array([1.0, 0.5, 0.25])


def model_of(objective, logits, slopes) -> LogitModel:
    """The model of the loss alone."""
    count = slopes.shape[2]
    return LogitModel(objective, logits, slopes, np.zeros(count), np.zeros((count, count)))


def parts(kind: str, classes: int, numbers: int = 5) -> tuple[Objective, Array, Array]:
    """Objective, logits (N, C) and slopes (N, C, m) of examples that no a can all make right."""
    rng = np.random.default_rng(classes)
    labels = np.arange(EXAMPLES) % classes
    return (
        Objective(labels, kind),
        rng.standard_normal((EXAMPLES, classes)),
        rng.standard_normal((EXAMPLES, classes, numbers)),
    )


def reference(objective: Objective, logits: Array, slopes: Array, radius: float) -> float:
    """The least loss within a radius."""

    def loss(a: Array) -> float:
        return float(objective(logits + slopes @ a))

    within = NonlinearConstraint(lambda a: a @ a, 0, radius**2)
    starts = [np.zeros(slopes.shape[2]), *0.1 * radius * np.eye(slopes.shape[2])]
    found = [minimize(loss, start, method="SLSQP", constraints=within) for start in starts]
    return min(loss(one.x * min(1.0, radius / np.linalg.norm(one.x))) for one in found)


@CLASSES
def test_of_cross_entropy_the_minima_within_small_radii_are_those_of_scipy(classes: int) -> None:
    objective, logits, slopes = parts("cross-entropy", classes)
    radii = 0.1 * RADII
    found = model_of(objective, logits, slopes).minima(radii)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), radii, rtol=1e-9)  # the loss still falls at the border
    for a, radius in zip(found, radii, strict=True):
        least = reference(objective, logits, slopes, radius)
        assert objective(logits + slopes @ a) == pytest.approx(least, abs=1e-5)


@CLASSES
def test_of_the_hinge_loss_they_come_near_because_its_corners_are_rounded(classes: int) -> None:
    objective, logits, slopes = parts("hinge", classes)
    radii = 0.1 * RADII
    found = model_of(objective, logits, slopes).minima(radii)
    for a, radius in zip(found, radii, strict=True):
        least, start = reference(objective, logits, slopes, radius), float(objective(logits))
        assert objective(logits + slopes @ a) - least < 0.05 * (start - least)


@BOTH
@CLASSES
def test_a_longer_radius_never_gives_a_higher_loss_of_the_model(kind: str, classes: int) -> None:
    objective, logits, slopes = parts(kind, classes, numbers=12)
    radii = np.geomspace(0.01, 1.0, 8)
    losses = [float(objective(logits + slopes @ a)) for a in model_of(objective, logits, slopes).minima(radii)]
    assert losses == sorted(losses, reverse=True)


@CLASSES
def test_a_minimum_nearer_than_the_greatest_radius_shortens_all_by_the_same_factor(classes: int) -> None:
    objective, logits, slopes = parts("cross-entropy", classes)
    free = minimize(lambda a: float(objective(logits + slopes @ a)), np.zeros(5)).x
    found = model_of(objective, logits, slopes).minima(100 * RADII)
    np.testing.assert_allclose(found[0], free, rtol=1e-2)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), np.linalg.norm(found[0]) * RADII, rtol=1e-6)


@BOTH
def test_slopes_of_nothing_leave_everything_where_it_is(kind: str) -> None:
    objective, logits, slopes = parts(kind, 3)
    np.testing.assert_array_equal(model_of(objective, logits, 0 * slopes).minima(RADII), np.zeros((3, 5)))


@BOTH
def test_examples_that_can_all_be_made_right_give_long_steps_and_no_overflow(kind: str) -> None:
    objective, logits, slopes = parts(kind, 3, numbers=2 * EXAMPLES)
    found = model_of(objective, logits, slopes).minima(10 * RADII)
    assert np.isfinite(found).all()
    assert np.linalg.norm(found, axis=1).max() <= 10 * (1 + 1e-9)
    assert objective(logits + slopes @ found[0]) < 0.05 * objective(logits)


@BOTH
def test_more_numbers_than_examples_and_repeated_directions_are_no_trouble(kind: str) -> None:
    objective, logits, slopes = parts(kind, 2)
    twice = np.concatenate([slopes, slopes], axis=2)
    found = model_of(objective, logits, twice).minima(0.1 * RADII)
    np.testing.assert_allclose(found[:, :5], found[:, 5:], rtol=1e-3, atol=1e-6)


def test_a_pull_and_a_bend_are_part_of_what_is_minimised() -> None:
    rng = np.random.default_rng(0)
    objective, logits = Objective(np.arange(6) % 3, "cross-entropy"), rng.standard_normal((6, 3))
    slopes = rng.standard_normal((6, 3, 4))
    pull, bend = rng.standard_normal(4), 2.0 * np.eye(4)

    def value(a):
        return float(objective(logits + slopes @ a)) + pull @ a + a @ bend @ a / 2

    found = LogitModel(objective, logits, slopes, pull, bend).minima(np.array([100.0]))[0]
    for step in 0.01 * rng.standard_normal((20, 4)):
        assert value(found) <= value(found + step)
