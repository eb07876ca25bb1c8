"""SPSA against what its formula says."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from bbtune.optimizers.base import Array
from bbtune.optimizers.spsa import SPSA

SLOPE = np.array([3.0, -2.0, 1.0, -1.0, 2.0])
SIGMA = 0.4


def spsa(population: int, seed: int) -> SPSA:
    return SPSA(len(SLOPE), population, SIGMA, np.random.default_rng(seed))


def first_step(population: int, seed: int) -> Array:
    """Where the centre (D,) lies after one generation on a linear function."""
    optimizer = spsa(population, seed)
    optimizer.tell(SimpleNamespace(loss=optimizer.ask() @ SLOPE + 5.0, logits=None))
    return optimizer.ask()[0]


@pytest.mark.parametrize(("asked", "used"), [(2, 3), (3, 3), (4, 3), (5, 5), (19, 19), (20, 19), (21, 21)])
def test_the_population_is_rounded_down_to_an_odd_number_three_at_least(asked: int, used: int) -> None:
    optimizer = spsa(asked, 0)
    assert optimizer.upcoming.size == used
    assert optimizer.ask().shape == (used, len(SLOPE))


def test_the_candidates_are_the_centre_and_pairs_that_mirror_each_other() -> None:
    optimizer = spsa(9, 0)
    for _ in range(3):
        z = optimizer.ask()
        np.testing.assert_allclose(z[1:5] + z[5:], 2 * np.broadcast_to(z[0], (4, len(SLOPE))), atol=1e-15)
        assert np.abs(z[1:] - z[0]).max() < SIGMA  # probes stay well inside a step of sigma
        optimizer.tell(SimpleNamespace(loss=z @ SLOPE, logits=None))


def test_the_search_starts_at_zero() -> None:
    np.testing.assert_array_equal(spsa(9, 0).ask()[0], np.zeros(len(SLOPE)))


def test_the_first_step_goes_downhill_in_every_coordinate_on_average() -> None:
    steps = np.array([first_step(5, seed) for seed in range(300)])
    downhill = -steps * np.sign(SLOPE)
    assert (downhill.mean(axis=0) > 0.02 * SIGMA).all()


def test_with_many_pairs_the_first_step_goes_downhill_in_every_coordinate() -> None:
    np.testing.assert_array_equal(np.sign(first_step(2001, 0)), -np.sign(SLOPE))


def test_a_step_of_adam_is_no_longer_than_its_length_per_coordinate() -> None:
    np.testing.assert_allclose(np.abs(first_step(21, 0)), 0.25 * SIGMA, rtol=1e-6)


def test_adding_a_constant_to_all_losses_changes_nothing() -> None:
    one, other = spsa(9, 0), spsa(9, 0)
    for _ in range(4):
        z, same = one.ask(), other.ask()
        np.testing.assert_allclose(z, same, atol=1e-9)
        one.tell(SimpleNamespace(loss=z @ SLOPE, logits=None))
        other.tell(SimpleNamespace(loss=same @ SLOPE + 64.0, logits=None))
