"""Searchers over a space, by name: ask for a code of settings, be told its score. All maximise.

A code has a number for each field: a share of the way from 0 to 1, or the place of a choice. Each searcher has a
generator of its own and no state but what it was asked and told, so that the same calls give the same codes.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from bbtune.errors import OptimizerError
from bbtune.seeds import generator

Code = tuple[float, ...]
_STARTUP = 6  # codes at random before a model of the scores is worth anything
_KAPPA = 2.576  # of the upper confidence bound: the library's own


class Searcher(ABC):
    """Proposes codes.

    Args:
        sizes: of each field its number of choices, 0 for a number.
        seed: of everything random.
        trials: that will be asked for, about.
        concurrent: of them at a time.
    """

    def __init__(self, sizes: Sequence[int], seed: int, trials: int, concurrent: int) -> None:
        self.sizes = tuple(sizes)
        self.rng = generator(seed, "hpo")
        self.trials = trials
        self.concurrent = concurrent

    @abstractmethod
    def ask(self, number: int) -> Code:
        """The next code; the number names it."""

    def tell(self, number: int, code: Code, score: float) -> None:  # noqa: B027, a searcher may learn nothing
        """The score of a code, which may be one that was not asked for."""

    def random_code(self) -> Code:
        """Each field for itself."""
        return tuple(float(self.rng.integers(size)) if size else float(self.rng.random()) for size in self.sizes)


class RandomSearcher(Searcher):
    """Every code is as probable as any other; what the other searchers must beat."""

    def ask(self, number: int) -> Code:
        """One at random."""
        return self.random_code()


class OptunaSearcher(Searcher):
    """The tree-structured Parzen estimator of Optuna (Bergstra et al. 2011)."""

    def __init__(self, sizes: Sequence[int], seed: int, trials: int, concurrent: int) -> None:
        super().__init__(sizes, seed, trials, concurrent)
        with _needed("optuna"):
            import optuna
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._optuna = optuna
        self._space = {f"{i}": self._distribution(size) for i, size in enumerate(self.sizes)}
        sampler = optuna.samplers.TPESampler(seed=int(self.rng.integers(2**31)), n_startup_trials=_STARTUP)
        self._study = optuna.create_study(direction="maximize", sampler=sampler)
        self._open: dict[int, Any] = {}

    def ask(self, number: int) -> Code:
        """By the estimator."""
        trial = self._study.ask(self._space)
        self._open[number] = trial
        return tuple(float(trial.params[name]) for name in self._space)

    def tell(self, number: int, code: Code, score: float) -> None:
        """Close the trial of that number; of one that was not asked for, add it."""
        if (trial := self._open.pop(number, None)) is not None:
            self._study.tell(trial, score)
            return
        params = {
            name: int(value) if size else value for name, value, size in zip(self._space, code, self.sizes, strict=True)
        }
        self._study.add_trial(self._optuna.trial.create_trial(params=params, distributions=self._space, value=score))

    def _distribution(self, size: int) -> Any:
        kinds = self._optuna.distributions
        return kinds.CategoricalDistribution(tuple(range(size))) if size else kinds.FloatDistribution(0.0, 1.0)


class NevergradSearcher(Searcher):
    """NGOpt of Nevergrad, which picks an evolution strategy for the fields and the number of trials."""

    def __init__(self, sizes: Sequence[int], seed: int, trials: int, concurrent: int) -> None:
        super().__init__(sizes, seed, trials, concurrent)
        with _needed("nevergrad"):
            import nevergrad
        fields = {f"{i}": self._field(nevergrad, size) for i, size in enumerate(self.sizes)}
        self._space = nevergrad.p.Dict(**fields)
        self._space.random_state = np.random.RandomState(int(self.rng.integers(2**32)))
        make = nevergrad.optimizers.registry["NGOpt"]
        with _quiet():
            self._optimizer = make(parametrization=self._space, budget=max(2, trials), num_workers=concurrent)
        self._open: dict[int, Any] = {}

    def ask(self, number: int) -> Code:
        """By the strategy."""
        with _quiet():
            found = self._optimizer.ask()
        self._open[number] = found
        return tuple(float(found.value[f"{i}"]) for i in range(len(self.sizes)))

    def tell(self, number: int, code: Code, score: float) -> None:
        """Minimise the negative score."""
        found = self._open.pop(number, None)
        with _quiet():
            if found is None:
                value = {
                    f"{i}": int(x) if size else x for i, (x, size) in enumerate(zip(code, self.sizes, strict=True))
                }
                found = self._space.spawn_child(new_value=value)
            self._optimizer.tell(found, -score)

    @staticmethod
    def _field(nevergrad: Any, size: int) -> Any:
        return nevergrad.p.Choice(list(range(size))) if size else nevergrad.p.Scalar(lower=0.0, upper=1.0)


class BayesianSearcher(Searcher):
    """A Gaussian process and its upper confidence bound (bayesian-optimization), which know continuous numbers alone.

    A whole number is told as the share of the way that it has, a choice as one number for each of its values, of which
    the largest counts. What is still running is taken to score what the others do on average, so that the next code
    lies elsewhere.
    """

    def __init__(self, sizes: Sequence[int], seed: int, trials: int, concurrent: int) -> None:
        super().__init__(sizes, seed, trials, concurrent)
        with _needed("bayesian-optimization"):
            import bayes_opt
        self._library = bayes_opt
        self._axes = [(i, k) for i, size in enumerate(self.sizes) for k in range(size or 1)]
        self._told: list[tuple[Code, float]] = []
        self._open: dict[int, Code] = {}

    def ask(self, number: int) -> Code:
        """At random first, then where the bound is highest."""
        code = self.random_code()
        seed = np.random.RandomState(int(self.rng.integers(2**32)))
        if len(self._told) + len(self._open) >= _STARTUP and self._told:
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
        with _quiet():
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


SEARCHERS: dict[str, type[Searcher]] = {
    "random": RandomSearcher,
    "optuna": OptunaSearcher,
    "nevergrad": NevergradSearcher,
    "bayes": BayesianSearcher,
}


def _axis(number: int) -> str:
    """A name that sorts by its number, as the library sorts names."""
    return f"{number:04d}"


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _needed(package: str) -> Iterator[None]:
    try:
        with _quiet():
            yield
    except ModuleNotFoundError as error:
        raise OptimizerError(f"this searcher needs the package {package}; pip install 'bbtune[hpo]'") from error
