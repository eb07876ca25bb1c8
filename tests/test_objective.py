"""The loss of label logits, its slope and its curvature."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.special import log_softmax

from bbtune.objective import Objective

EXAMPLES, NUMBERS = 9, 5
CLASSES = pytest.mark.parametrize("classes", [2, 5])


def labels(classes: int) -> np.ndarray:
    return np.arange(EXAMPLES) % classes


def logits(classes: int, *candidates: int) -> np.ndarray:
    return 3 * np.random.default_rng(classes).standard_normal((*candidates, EXAMPLES, classes))


@CLASSES
def test_cross_entropy_is_the_mean_of_minus_the_log_probability_of_the_right_label(classes: int) -> None:
    x, right = logits(classes, 4), labels(classes)
    expected = -log_softmax(x, axis=-1)[:, np.arange(EXAMPLES), right].mean(axis=-1)
    np.testing.assert_allclose(Objective(right, "cross-entropy")(x), expected, rtol=1e-12)


@CLASSES
def test_hinge_sums_over_the_wrong_labels_what_they_lack_to_a_margin_of_two(classes: int) -> None:
    x, right = logits(classes, 4), labels(classes)
    lacking = [
        [
            sum(max(0.0, 2 + row[c] - row[y]) for c in range(classes) if c != y)
            for row, y in zip(one, right, strict=True)
        ]
        for one in x
    ]
    expected = np.mean(lacking, axis=1)
    np.testing.assert_allclose(Objective(right, "hinge")(x), expected, rtol=1e-12)


@pytest.mark.parametrize("kind", ["cross-entropy", "hinge"])
def test_losses_keep_the_shape_of_what_is_before_examples_and_classes(kind: str) -> None:
    objective, x = Objective(labels(3), kind), logits(3, 2, 4)
    assert objective(x).shape == (2, 4)
    np.testing.assert_array_equal(objective(x)[1, 2], objective(x[1, 2]))


def test_logits_of_a_thousand_neither_overflow_nor_lose_the_loss() -> None:
    x = np.array([[1000.0, 0.0], [1000.0, 0.0]], np.float32)
    assert Objective(np.array([0, 1]), "cross-entropy")(x) == pytest.approx(500.0)


def test_float32_logits_give_the_same_loss_bit_for_bit_in_any_company() -> None:
    x = logits(3, 6).astype(np.float32)
    objective = Objective(labels(3), "cross-entropy")
    np.testing.assert_array_equal(objective(x), [float(objective(one)) for one in x])


# Slope and curvature.


def random_slopes(classes: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((EXAMPLES, classes, NUMBERS))


def differences(value: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Central differences at 0 of a value or an array, along each number."""
    steps = 1e-5 * np.eye(NUMBERS)
    return np.array([(value(step) - value(-step)) / 2e-5 for step in steps])


def slope_differences(objective: Objective, base: np.ndarray, slopes: np.ndarray) -> np.ndarray:
    """Of the gradient that the objective tells."""
    return differences(lambda a: objective.expanded(base + slopes @ a, slopes)[0])


@CLASSES
def test_of_cross_entropy_they_are_those_of_finite_differences(classes: int) -> None:
    objective, base = Objective(labels(classes), "cross-entropy"), logits(classes)
    slopes = random_slopes(classes)
    gradient, hessian = objective.expanded(base, slopes)
    np.testing.assert_allclose(gradient, differences(lambda a: objective(base + slopes @ a)), atol=1e-8)
    np.testing.assert_allclose(hessian, slope_differences(objective, base, slopes), atol=1e-7)


@CLASSES
def test_of_the_hinge_loss_the_curvature_is_that_of_its_rounded_corners(classes: int) -> None:
    objective, base = Objective(labels(classes), "hinge"), logits(classes)
    slopes = random_slopes(classes)
    hessian = objective.expanded(base, slopes)[1]
    np.testing.assert_allclose(hessian, slope_differences(objective, base, slopes), atol=1e-6)


@CLASSES
def test_of_the_hinge_loss_the_slope_is_exact_away_from_the_corners(classes: int) -> None:
    right = labels(classes)
    base = np.full((EXAMPLES, classes), 40.0)  # every wrong label far over the margin, the last example far below it
    base[np.arange(EXAMPLES), right] = 0.0
    base[-1, right[-1]] = 80.0
    objective, slopes = Objective(right, "hinge"), random_slopes(classes)
    expected = differences(lambda a: objective(base + slopes @ a))
    np.testing.assert_allclose(objective.expanded(base, slopes)[0], expected, atol=1e-8)


@pytest.mark.parametrize("kind", ["cross-entropy", "hinge"])
@CLASSES
def test_the_curvature_is_never_negative(kind: str, classes: int) -> None:
    hessian = Objective(labels(classes), kind).expanded(logits(classes), random_slopes(classes))[1]
    np.testing.assert_allclose(hessian, hessian.T, rtol=1e-12)
    assert np.linalg.eigvalsh(hessian).min() > -1e-12


@pytest.mark.parametrize("kind", ["cross-entropy", "hinge"])
def test_a_shift_of_all_logits_of_an_example_changes_nothing(kind: str) -> None:
    objective, base = Objective(labels(3), kind), logits(3)
    slopes = random_slopes(3)
    shift = np.random.default_rng(1).standard_normal((EXAMPLES, 1))
    moved = objective.expanded(base + shift, slopes + shift[..., None])
    for found, expected in zip(moved, objective.expanded(base, slopes), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-12)
