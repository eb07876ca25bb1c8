"""Searchers: inside the space, each with a generator of its own, told whatever was scored."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bbtune.errors import OptimizerError
from bbtune.hpo.searchers import SEARCHERS, BayesianSearcher
from bbtune.hpo.searchers.base import Code

SIZES = (0, 3, 0)


def score(code: Code) -> float:
    """Best at 0.3, choice 1, 0.8."""
    return -((code[0] - 0.3) ** 2) - 0.1 * (code[1] != 1) - (code[2] - 0.8) ** 2


def asked(name: str, seed: int, count: int, sizes: tuple[int, ...] = SIZES) -> list[Code]:
    """Codes of a searcher that is told each score before it is asked again, and one that it did not ask for."""
    searcher = SEARCHERS[name](sizes, seed, count, 1)
    searcher.tell(0, tuple(0.0 for _ in sizes), -1.0)
    found = []
    for number in range(1, count + 1):
        code = searcher.ask(number)
        found.append(code)
        searcher.tell(number, code, score(code) if len(sizes) == 3 else code[0])
    return found


@pytest.mark.parametrize("name", SEARCHERS)
@settings(max_examples=10, deadline=None)
@given(sizes=st.lists(st.integers(2, 5) | st.just(0), min_size=1, max_size=4), seed=st.integers(0, 10))
def test_every_code_lies_inside_the_space(name: str, sizes: list[int], seed: int) -> None:
    for code in asked(name, seed, 9, tuple(sizes)):
        assert len(code) == len(sizes)
        for value, size in zip(code, sizes, strict=True):
            assert value in range(size) if size else 0 <= value <= 1


@pytest.mark.parametrize("name", SEARCHERS)
def test_the_same_seed_gives_the_same_codes_whatever_else_draws(name: str) -> None:
    first = asked(name, 5, 10)
    np.random.seed(1)  # noqa: NPY002, a global generator that nobody may read
    assert asked(name, 5, 10) == first
    assert asked(name, 6, 10) != first


@pytest.mark.parametrize("name", SEARCHERS)
def test_several_can_be_open_at_a_time(name: str) -> None:
    searcher = SEARCHERS[name](SIZES, 3, 12, 3)
    found = []
    for number in range(1, 13, 3):
        codes = [searcher.ask(number + i) for i in range(3)]
        for i in (2, 0):  # one of three never has a score
            searcher.tell(number + i, codes[i], score(codes[i]))
        found += codes
    assert len(set(found)) >= 8  # Nevergrad repeats itself at times


@pytest.mark.parametrize("name", ["optuna", "bayes"])
def test_a_model_of_the_scores_finds_better_codes_than_chance(name: str) -> None:
    def mean(name: str) -> float:
        return float(np.mean([score(code) for seed in range(5) for code in asked(name, seed, 25)[15:]]))

    assert mean(name) > mean("random") + 0.05


def test_a_choice_is_one_number_for_each_value_to_the_gaussian_process() -> None:
    searcher = BayesianSearcher(SIZES, 0, 5, 1)
    spread = searcher._spread((0.25, 2.0, 0.75))
    assert spread == [0.25, 0.0, 0.0, 1.0, 0.75]
    assert searcher._gathered(spread) == (0.25, 2.0, 0.75)


@pytest.mark.parametrize(
    ("name", "module", "package"),
    [("optuna", "optuna", "optuna"), ("nevergrad", "nevergrad", "nevergrad"), ("bayes", "bayes_opt", "bayesian-optim")],
)
def test_a_missing_library_is_told(name: str, module: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(OptimizerError, match=rf"needs the package {package}.*pip install 'bbtune\[hpo\]'"):
        SEARCHERS[name](SIZES, 0, 5, 1)
