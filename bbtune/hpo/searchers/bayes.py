"""Bayesian optimization."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bbtune.hpo.searchers.base import STARTUP, Code, Searcher, needed, quiet

_KAPPA = 2.576  # of the upper confidence bound: the library's own


class BayesianSearcher(Searcher):
    """A Gaussian process and its upper confidence bound (bayesian-optimization), which know continuous numbers alone.

    A whole number is told as the share of the way that it has, a choice as one number for each of its values, of which
    the largest counts. What is still running is taken to score what the others do on average, so that the next code
    lies elsewhere.
    """

    def __init__(self, sizes: Sequence[int], seed: int, trials: int, concurrent: int) -> None:
        super().__init__(sizes, seed, trials, concurrent)
        with needed("bayesian-optimization"):
            import bayes_opt
        self._library = bayes_opt
        self._axes = [(i, k) for i, size in enumerate(self.sizes) for k in range(size or 1)]
        self._told: list[tuple[Code, float]] = []
        self._open: dict[int, Code] = {}

    def ask(self, number: int) -> Code:
        """At random first, then where the bound is highest."""
        code = self.random_code()
        seed = np.random.RandomState(int(self.rng.integers(2**32)))
        if len(self._told) + len(self._open) >= STARTUP and self._told:
            code = self._best_bound(seed)
        self._open[number] = code
        return code

    def tell(self, number: int, code: Code, score: float) -> None:
        """Kept for the next process."""
        self._open.pop(number, None)
        self._told.append((code, score))

    def _best_bound(self, seed: np.random.RandomState) -> Code:
        bounds = {_axis(axis): (0.0, 1.0) for axis in range(len(self._axes))}
        optimizer = self._library.BayesianOptimization(
            f=None, pbounds=bounds, verbose=0, random_state=seed, allow_duplicate_points=True
        )
        mean = float(np.mean([score for _, score in self._told]))
        with quiet():
            for code, score in [*self._told, *((code, mean) for code in self._open.values())]:
                optimizer.register({_axis(a): value for a, value in enumerate(self._spread(code))}, score)
            found = optimizer.suggest(self._library.UtilityFunction(kind="ucb", kappa=_KAPPA))
        return self._gathered([float(found[_axis(axis)]) for axis in range(len(self._axes))])

    def _spread(self, code: Code) -> list[float]:
        return [float(code[i] == k) if self.sizes[i] else code[i] for i, k in self._axes]

    def _gathered(self, point: Sequence[float]) -> Code:
        parts: list[list[float]] = [[] for _ in self.sizes]
        for (i, _), value in zip(self._axes, point, strict=True):
            parts[i].append(value)
        return tuple(float(np.argmax(part)) if size else part[0] for part, size in zip(parts, self.sizes, strict=True))


def _axis(number: int) -> str:
    """A name that sorts by its number, as the library sorts names."""
    return f"{number:04d}"
