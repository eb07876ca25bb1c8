"""The searcher of Optuna."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bbtune.hpo.searchers.base import STARTUP, Code, Searcher, needed


class OptunaSearcher(Searcher):
    """The tree-structured Parzen estimator of Optuna (Bergstra et al. 2011)."""

    def __init__(self, sizes: Sequence[int], seed: int, trials: int, concurrent: int) -> None:
        super().__init__(sizes, seed, trials, concurrent)
        with needed("optuna"):
            import optuna
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._optuna = optuna
        self._space = {f"{i}": self._distribution(size) for i, size in enumerate(self.sizes)}
        sampler = optuna.samplers.TPESampler(seed=int(self.rng.integers(2**31)), n_startup_trials=STARTUP)
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
