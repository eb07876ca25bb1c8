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
    from cma.restricted_gaussian_sampler import GaussVkDSampler

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


def pycma(name: str) -> Array:
    """Candidates (G, P, D) of pycma, driven directly."""
    rng = np.random.default_rng(11)

    def randn(*shape: int) -> Array:
        return rng.standard_normal(shape)

    options = {"popsize": POPULATION, "seed": np.nan, "randn": randn, "verbose": -9}
    options |= {"CMA_diagonal": name == "cma-diagonal"}
    if name == "cma-vkd":
        options = GaussVkDSampler.extend_cma_options({**options, "CMA_sampler_options": {"randn": randn}})
    strategy = cma.CMAEvolutionStrategy(DIM * [0.0], SIGMA, options)
    asked = []
    for _ in range(GENERATIONS):
        points = strategy.ask()
        asked.append(points)
        strategy.tell(points, sphere(np.array(points)).tolist())
    return np.array(asked)


@pytest.mark.parametrize("name", ["cma", "cma-diagonal", "cma-vkd"])
def test_the_candidates_are_those_of_pycma_with_the_same_private_numbers(name: str) -> None:
    np.testing.assert_array_equal(play(ours(name)), pycma(name))


@pytest.mark.parametrize(("asked", "used"), [(2, 4), (3, 4), (4, 4), (5, 5), (20, 20)])
def test_vkd_rounds_a_small_population_up_to_four(asked: int, used: int) -> None:
    optimizer = make_optimizer("cma-vkd", DIM, asked, SIGMA, np.random.default_rng(0))
    assert optimizer.upcoming.size == used
    assert optimizer.ask().shape == (used, DIM)


def test_vkd_learns_a_direction_that_a_diagonal_cannot() -> None:
    along = np.ones(20) / np.sqrt(20)

    def cigar(z: Array) -> Array:  # long in a direction in which no single number lies
        part = (z - 0.7) @ along
        return 1e3 * (((z - 0.7) ** 2).sum(axis=1) - part**2) + part**2

    losses = {}
    for name in ("cma-diagonal", "cma-vkd"):
        optimizer = make_optimizer(name, 20, 12, SIGMA, np.random.default_rng(0))
        for _ in range(300):
            z = optimizer.ask()
            optimizer.tell(SimpleNamespace(loss=cigar(z), logits=None))
        losses[name] = cigar(optimizer.best[None])[0]
    assert losses["cma-vkd"] < 0.01 * losses["cma-diagonal"]


def test_the_diagonal_one_goes_another_way() -> None:
    full, diagonal = play(ours("cma")), play(ours("cma-diagonal"))
    np.testing.assert_allclose(full[0], diagonal[0], rtol=1e-4)  # both start from the identity
    assert not np.allclose(full[-1], diagonal[-1])


@pytest.mark.parametrize("name", ["cma", "cma-diagonal", "cma-vkd"])
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
