"""Any optimizer of Nevergrad by its name, over discrete choices."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np

from bbtune.errors import OptimizerError
from bbtune.optimizers.nevergrad import nevergrad_names
from bbtune.text_search.base import Candidate, TextSearch
from bbtune.text_search.choices import Choices

DEFAULT = "DiscreteLenglerOnePlusOne"  # what Nevergrad's own NGOpt takes for discrete choices

_BUDGET = 1_000  # Nevergrad's portfolio optimizers choose their members by it


class NevergradTextSearch(TextSearch):
    """Adapter of ``nevergrad.optimizers.registry[name]`` over unordered choices.

    What the optimizer asks again it is told at once, from memory.

    Args:
        name: in Nevergrad's registry.
        choices: the space; of its instructions those that were given.
        population: P.
        rng: private generator.

    Raises:
        OptimizerError: if the optimizer does not take such a space or population.
    """

    tries = 4  # an ask takes milliseconds

    def __init__(self, name: str, choices: Choices, population: int, rng: np.random.Generator) -> None:
        super().__init__(choices, population, rng)
        nevergrad_names()  # says what to install where the package is missing
        with _quiet(), _global_numbers_kept():
            import nevergrad

            unordered = [nevergrad.p.TransitionChoice(size, ordered=False) for size in self._sizes]
            space = nevergrad.p.Tuple(*unordered)
            space.value = self._incumbent
            space.random_state = np.random.RandomState(int(rng.integers(2**32)))
            try:
                make = nevergrad.optimizers.registry[name]
                self._optimizer = make(parametrization=space, budget=_BUDGET, num_workers=population)
            except Exception as error:  # assertions and errors of many libraries
                raise OptimizerError(
                    f"nevergrad:{name} does not search choices with a population of {population} ({error}); "
                    f"take another, such as nevergrad:{DEFAULT}"
                ) from error
        self._refuses = nevergrad.errors.TellNotAskedNotSupportedError
        self._points: dict[Candidate, list[Any]] = {}

    def _propose(self, wanted: int) -> Iterator[Candidate]:
        self._points = {}
        while True:
            with _quiet():
                point = self._optimizer.ask()
                candidate = tuple(int(number) for number in point.value)
                if candidate in self._levels:
                    self._optimizer.tell(point, self._levels[candidate])
                else:
                    self._points.setdefault(candidate, []).append(point)
            yield candidate

    def _learn(self, asked: Sequence[Candidate]) -> None:
        with _quiet():
            for candidate in asked[1:]:
                points = self._points.get(candidate) or [self._optimizer.parametrization.spawn_child(candidate)]
                with suppress(self._refuses):  # a candidate that was not asked for, and that it cannot use
                    for point in points:
                        self._optimizer.tell(point, self._levels[candidate])


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _global_numbers_kept() -> Iterator[None]:
    """Unordered choices are copied when they are made, and each copy draws a seed that nothing uses."""
    state = np.random.get_state()  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(state)  # noqa: NPY002
