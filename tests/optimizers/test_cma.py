"""CMA-ES is pycma's, number for number."""

from __future__ import annotations

import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from bbtune.optimizers import make_optimizer
from bbtune.optimizers.base import Array, Optimizer

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import cma

DIM, POPULATION, SIGMA, GENERATIONS = 6, 8, 0.3, 25


def sphere(z: Array) -> Array:
    return ((z - 0.7) ** 2).sum(axis=1)


def play(optimizer: Optimizer, generations: int = GENERATIONS) -> Array:
    asked = []
    for _ in range(generations):
        asked.append(optimizer.ask())
        optimizer.tell(SimpleNamespace(loss=sphere(asked[-1]), logits=None))
    return np.array(asked)


def ours(name: str, seed: int = 11) -> Optimizer:
    return make_optimizer(name, DIM, POPULATION, SIGMA, np.random.default_rng(seed))


def pycma(diagonal: bool) -> Array:
    """Candidates (G, P, D) of pycma, driven directly."""
    rng = np.random.default_rng(11)
    options = {
        "popsize": POPULATION,
        "seed": np.nan,
        "randn": lambda *shape: rng.standard_normal(shape),
        "CMA_diagonal": diagonal,
        "verbose": -9,
    }
    strategy = cma.CMAEvolutionStrategy(DIM * [0.0], SIGMA, options)
    asked = []
    for _ in range(GENERATIONS):
        points = strategy.ask()
        asked.append(points)
        strategy.tell(points, sphere(np.array(points)).tolist())
    return np.array(asked)


@pytest.mark.parametrize(("name", "diagonal"), [("cma", False), ("cma-diagonal", True)])
def test_the_candidates_are_those_of_pycma_with_the_same_private_numbers(name: str, diagonal: bool) -> None:
    np.testing.assert_array_equal(play(ours(name)), pycma(diagonal))


def test_the_diagonal_one_goes_another_way() -> None:
    full, diagonal = play(ours("cma")), play(ours("cma-diagonal"))
    np.testing.assert_allclose(full[0], diagonal[0], rtol=1e-4)  # both start from the identity
    assert not np.allclose(full[-1], diagonal[-1])


@pytest.mark.parametrize("name", ["cma", "cma-diagonal"])
def test_the_first_population_is_normal_around_zero_with_step_sigma(name: str) -> None:
    z = make_optimizer(name, 200, 50, SIGMA, np.random.default_rng(0)).ask()
    assert abs(z.mean()) < 0.01
    assert z.std() == pytest.approx(SIGMA, rel=0.05)


def test_convergence_is_told_by_stop_reasons() -> None:
    optimizer = ours("cma")
    play(optimizer, 50)
    assert optimizer.stop_reasons() == {}
    play(optimizer, 250)
    assert optimizer.stop_reasons()


def test_a_signals_file_in_the_working_folder_has_no_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cma_signals.in").write_text("{'timeout': 0, 'tolfun': 1e9}")
    monkeypatch.chdir(tmp_path)
    optimizer = ours("cma")
    play(optimizer, 5)
    assert optimizer.stop_reasons() == {}
    assert [path.name for path in tmp_path.iterdir()] == ["cma_signals.in"]  # nor does pycma leave files there
