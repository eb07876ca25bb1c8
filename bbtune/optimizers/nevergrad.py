"""Any optimizer of Nevergrad by its name."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from bbtune.errors import OptimizerError
from bbtune.optimizers.base import Array, AskTell, Told

_BUDGET = 10_000  # Nevergrad's portfolio optimizers choose their members by it


class Nevergrad(AskTell):
    """Adapter of ``nevergrad.optimizers.registry[name]``, started at 0 with step sigma."""

    def __init__(self, name: str, dim: int, population_size: int, sigma: float, rng: np.random.Generator) -> None:
        super().__init__(dim, population_size, sigma, rng)
        nevergrad = _nevergrad()
        space = nevergrad.p.Array(init=np.zeros(dim)).set_mutation(sigma=sigma)
        space.random_state = np.random.RandomState(int(rng.integers(2**32)))
        make = nevergrad.optimizers.registry[name]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._optimizer = make(parametrization=space, budget=_BUDGET, num_workers=population_size)
        self._points: list[Any] = []

    def _ask(self) -> Array:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._points = [self._optimizer.ask() for _ in range(self.population_size)]
        return np.array([point.value for point in self._points])

    def _tell(self, asked: Array, scores: Told, loss: Array) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for point, value in zip(self._points, loss, strict=True):
                self._optimizer.tell(point, float(value))


def nevergrad_names() -> list[str]:
    """Names of all optimizers that Nevergrad registers."""
    return sorted(_nevergrad().optimizers.registry)


def asks_populations(name: str) -> bool:
    """Whether an optimizer of Nevergrad can ask several points before the first is told."""
    return not getattr(_nevergrad().optimizers.registry[name], "no_parallelization", False)


def _nevergrad() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import nevergrad
    except ModuleNotFoundError as error:
        raise OptimizerError("nevergrad:NAME needs the package nevergrad; pip install nevergrad") from error
    return nevergrad
