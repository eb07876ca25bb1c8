"""The contract of ask and tell, for every optimizer."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from label_logits import Scored, make_problem

from bbtune.errors import OptimizerError
from bbtune.optimizers import OPTIMIZERS, check_optimizer_name, make_optimizer, nevergrad_names
from bbtune.optimizers.base import Array, Optimizer, Told
from bbtune.optimizers.restarts import Restarts
from bbtune.optimizers.structure import Structure
from bbtune.seeds import generator

NEVERGRAD = ["nevergrad:CMA", "nevergrad:DE", "nevergrad:PSO", "nevergrad:NGOpt"]
needs_nevergrad = pytest.mark.skipif(find_spec("nevergrad") is None, reason="the package nevergrad is not installed")
WITH_RESTARTS = ["restarts:cma", "restarts:gauss-newton"]
ON_A_PART = ["part:gauss-newton"]
STYLED = [*WITH_RESTARTS, *ON_A_PART]
OURS = [*OPTIMIZERS, *STYLED]
NAMES = [*OURS, *(pytest.param(name, marks=needs_nevergrad) for name in NEVERGRAD)]
INSTALLED = [*OURS, *(NEVERGRAD if find_spec("nevergrad") else [])]

DIM, POPULATION, SIGMA = 20, 12, 0.3
TARGET = np.linspace(-1.0, 1.0, DIM)
problem = cache(make_problem)
REACHES = {"random": 1.0, "nevergrad:DE": 0.5}  # share of the first loss that is left; others: 0.1


@dataclass(frozen=True)
class OnlyLosses:
    """Scores that hold losses and nothing else; looking at anything else fails."""

    loss: Array

    @property
    def logits(self) -> Any:
        raise AssertionError("an optimizer of losses looked at the logits")


def sphere(z: Array) -> Array:
    """Squared distances (P,) of z (P, D) from TARGET."""
    return ((z - TARGET[: z.shape[1]]) ** 2).sum(axis=1)


def make(name: str, seed: int = 1, dim: int = DIM, population: int = POPULATION, sigma: float = SIGMA) -> Optimizer:
    """The optimizer of that name; "restarts:NAME" has two restarts, "part:NAME" scores probes on some examples."""
    structure = None
    if name.endswith("gauss-newton"):
        structure = Structure(problem(DIM).objective, probe_examples=9 if name in ON_A_PART else None)

    def anew(restart: int, origin: Array | None = None) -> Optimizer:
        rng = generator(seed, restart)
        return make_optimizer(
            name.removeprefix("restarts:").removeprefix("part:"), dim, population, sigma, rng, structure
        )

    return Restarts(anew, 2) if name in WITH_RESTARTS else anew(0)


Score = Callable[[Optimizer, Array], Told]


def scores(optimizer: Optimizer, z: Array) -> Told:
    """Of z (P, D): a sphere, or label logits and their loss for who uses them."""
    return problem(z.shape[1]).scores(z, optimizer.upcoming.subset) if optimizer.uses_logits else OnlyLosses(sphere(z))


def flat(optimizer: Optimizer, z: Array) -> Told:
    """The same for every z."""
    return scores(optimizer, np.zeros_like(z))


def noise(optimizer: Optimizer, z: Array, rng: np.random.Generator) -> Told:
    """In no relation to z."""
    if not optimizer.uses_logits:
        return OnlyLosses(rng.standard_normal(len(z)))
    objective = problem(DIM).objective.of(optimizer.upcoming.subset)
    logits = rng.standard_normal((len(z), len(objective.labels), 3)).astype(np.float32)
    return Scored(objective(logits), logits)


def play(optimizer: Optimizer, generations: int, score: Score = scores) -> list[Array]:
    """The candidates of so many generations."""
    asked = []
    for _ in range(generations):
        asked.append(optimizer.ask())
        optimizer.tell(score(optimizer, asked[-1]))
    return asked


def left(optimizer: Optimizer, dim: int = DIM) -> float:
    """Share of the first loss that the best point has."""
    start, reached = (scores(optimizer, z[None]).loss[0] for z in (np.zeros(dim), optimizer.best))
    return float(reached / start)


def trace(name: str, seed: int) -> str:
    """SHA-256 of the candidates of five generations."""
    return hashlib.sha256(b"".join(z.tobytes() for z in play(make(name, seed), 5))).hexdigest()


@pytest.fixture(scope="module", autouse=True)
def _nevergrad_is_imported() -> None:
    """Nevergrad's own import draws global random numbers; what is judged here is its use."""
    if find_spec("nevergrad"):
        nevergrad_names()


@pytest.fixture(scope="module")
def traces_of_a_fresh_process() -> dict[str, str]:
    here = str(Path(__file__).parents[1])
    environment = {**os.environ, "PYTHONHASHSEED": "4242", "PYTHONPATH": here}
    done = subprocess.run(
        [sys.executable, __file__, *INSTALLED], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@pytest.mark.parametrize("name", NAMES)
class TestEveryOptimizer:
    def test_asks_a_finite_population_that_cannot_be_written_to(self, name: str) -> None:
        optimizer = make(name)
        for _ in range(4):
            size = optimizer.upcoming.size
            z = optimizer.ask()
            assert z.shape == (size, DIM)
            assert 1 <= size <= POPULATION
            assert z.dtype == np.float64
            assert np.isfinite(z).all()
            assert len(np.unique(z, axis=0)) == len(z)
            with pytest.raises(ValueError, match="read-only"):
                z[0, 0] = 1.0
            optimizer.tell(scores(optimizer, z))

    def test_says_before_it_asks_what_it_will_ask(self, name: str) -> None:
        optimizer = make(name)
        for _ in range(4):
            said = optimizer.upcoming
            z = optimizer.ask()
            assert said == optimizer.upcoming
            assert said.size == len(z)
            optimizer.tell(scores(optimizer, z))

    def test_refuses_a_second_ask_before_the_tell(self, name: str) -> None:
        optimizer = make(name)
        optimizer.ask()
        with pytest.raises(OptimizerError, match=r"expected tell\(\) after ask\(\)"):
            optimizer.ask()

    def test_refuses_a_tell_that_nothing_was_asked_for(self, name: str) -> None:
        optimizer = make(name)
        with pytest.raises(OptimizerError, match=r"expected ask\(\) before tell\(\)"):
            optimizer.tell(OnlyLosses(np.zeros(optimizer.upcoming.size)))
        play(optimizer, 1)
        with pytest.raises(OptimizerError, match=r"expected ask\(\) before tell\(\)"):
            optimizer.tell(OnlyLosses(np.zeros(optimizer.upcoming.size)))

    def test_refuses_losses_of_another_shape_and_says_which_it_wants(self, name: str) -> None:
        optimizer = make(name)
        size = optimizer.upcoming.size
        optimizer.ask()
        for shape in [(size - 1,), (size + 1,), (size, 1), ()]:
            with pytest.raises(OptimizerError) as caught:
                optimizer.tell(OnlyLosses(np.zeros(shape)))
            assert f"({size},)" in str(caught.value)
            assert str(caught.value).endswith(f"got {shape}")

    @pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
    def test_a_refused_loss_changes_nothing(self, name: str, wrong: float) -> None:
        refused, other = make(name), make(name)
        z, same = refused.ask(), other.ask()
        broken = sphere(z)
        broken[-1] = wrong
        with pytest.raises(OptimizerError, match="expected finite losses"):
            refused.tell(OnlyLosses(broken))
        assert not refused.best.any()
        refused.tell(scores(refused, z))
        other.tell(scores(other, same))
        np.testing.assert_array_equal(refused.best, other.best)
        np.testing.assert_array_equal(refused.ask(), other.ask())

    def test_best_is_the_candidate_with_the_lowest_loss_on_all_examples_ever_told(self, name: str) -> None:
        optimizer, rng = make(name), np.random.default_rng(5)
        np.testing.assert_array_equal(optimizer.best, np.zeros(DIM))
        seen: list[tuple[float, Array]] = []
        for _ in range(6):
            z = optimizer.ask()
            told, some = noise(optimizer, z, rng), optimizer.upcoming.subset is not None
            optimizer.tell(told)
            seen += [] if some else zip(told.loss.tolist(), z, strict=True)
            np.testing.assert_array_equal(optimizer.best, min(seen, key=lambda pair: pair[0])[1])
            with pytest.raises(ValueError, match="read-only"):
                optimizer.best[0] = 1.0

    def test_the_same_seed_gives_the_same_candidates_in_a_fresh_process(
        self, name: str, traces_of_a_fresh_process: dict[str, str]
    ) -> None:
        assert trace(name, 1) == traces_of_a_fresh_process[name]
        assert trace(name, 2) != traces_of_a_fresh_process[name]

    def test_global_random_numbers_are_neither_drawn_nor_seeded(self, name: str) -> None:
        before = repr(np.random.get_state(legacy=False)), random.getstate()  # noqa: NPY002 the state under test
        play(make(name), 4)
        assert repr(np.random.get_state(legacy=False)) == before[0]  # noqa: NPY002
        assert random.getstate() == before[1]

    def test_two_in_one_process_do_not_disturb_each_other(self, name: str) -> None:
        alone = play(make(name), 4)
        first, second = make(name), make(name, seed=2)
        score = partial(noise, rng=np.random.default_rng(0))
        for expected in alone:
            z, other = first.ask(), second.ask()
            np.testing.assert_array_equal(z, expected)
            first.tell(scores(first, z))
            second.tell(score(second, other))

    def test_lowers_the_loss_in_twenty_dimensions(self, name: str) -> None:
        optimizer = make(name)
        play(optimizer, 130)
        assert left(optimizer) < REACHES.get(name, 0.1)

    def test_goes_on_to_ask_finite_candidates_when_all_losses_are_equal(self, name: str) -> None:
        asked = play(make(name), 6, flat)
        assert all(np.isfinite(z).all() for z in asked)

    def test_has_no_reason_to_stop_at_the_start(self, name: str) -> None:
        assert make(name).stop_reasons() == {}

    @pytest.mark.parametrize(
        ("dim", "population", "sigma"), [(0, 4, 0.1), (-1, 4, 0.1), (3, 1, 0.1), (3, 4, 0.0), (3, 4, np.nan)]
    )
    def test_refuses_sizes_that_make_no_sense(self, name: str, dim: int, population: int, sigma: float) -> None:
        with pytest.raises(OptimizerError, match=f"got {dim}, {population} and {sigma}"):
            make(name, dim=dim, population=population, sigma=sigma)


@pytest.mark.parametrize("name", OURS)
def test_one_number_can_be_optimised_too(name: str) -> None:
    optimizer = make(name, dim=1)
    play(optimizer, 20)
    assert optimizer.best.shape == (1,)
    assert left(optimizer, dim=1) < 0.25


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("population", [2, 3, 4, 5])
def test_small_populations_serve(name: str, population: int) -> None:
    optimizer = make(name, population=population)
    asked = play(optimizer, 60)
    assert all(np.isfinite(z).all() and len(z) <= max(4, population + 1) for z in asked)
    assert left(optimizer) < 1.0


def test_an_unknown_name_is_told_with_the_known_ones_and_the_closest() -> None:
    with pytest.raises(OptimizerError) as caught:
        make_optimizer("cma-diagonl", 3, 4, 0.1, np.random.default_rng(0))
    assert all(name in str(caught.value) for name in OPTIMIZERS)
    assert "got 'cma-diagonl'; did you mean \"cma-diagonal\"?" in str(caught.value)


@needs_nevergrad
def test_an_unknown_name_of_nevergrad_is_told_with_the_closest() -> None:
    with pytest.raises(OptimizerError, match=r"got 'nevergrad:NGOptt'; did you mean \"NGOpt\"\?"):
        check_optimizer_name("nevergrad:NGOptt")


@needs_nevergrad
@pytest.mark.parametrize("name", ["nevergrad:Cobyla", "nevergrad:SQP"])
def test_an_optimizer_that_cannot_ask_populations_is_refused_by_its_name(name: str) -> None:
    with pytest.raises(OptimizerError, match=f"{name} asks one point at a time, expected one that asks populations"):
        check_optimizer_name(name)
    with pytest.raises(OptimizerError, match="asks one point at a time"):
        make_optimizer(name, 3, 4, 0.1, np.random.default_rng(0))


def test_without_nevergrad_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nevergrad", None)
    with pytest.raises(OptimizerError, match="pip install nevergrad"):
        check_optimizer_name("nevergrad:CMA")


if __name__ == "__main__":
    sys.stdout.write(json.dumps({name: trace(name, 1) for name in sys.argv[1:]}))
