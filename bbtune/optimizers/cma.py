"""CMA-ES by pycma, with full and with diagonal covariance (Hansen 2016, arXiv 1604.00772)."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from bbtune.objective import Objective
from bbtune.optimizers.base import Array, AskTell, Told


class CMAES(AskTell):
    """CMA-ES with the full covariance matrix."""

    _diagonal = False

    def __init__(
        self,
        dim: int,
        population_size: int,
        sigma: float,
        rng: np.random.Generator,
        objective: Objective | None = None,
    ) -> None:
        super().__init__(dim, population_size, sigma, rng, objective)
        options: dict[str, Any] = {
            "popsize": population_size,
            "CMA_diagonal": self._diagonal,
            "seed": np.nan,  # no global seeding: numbers come from our own generator
            "randn": lambda *shape: rng.standard_normal(shape),
            "signals_filename": "",  # pycma would read, and evaluate, a file of the working folder
            "verbose": -10,
        }
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of plotting libraries and of pycma's own default options
            import cma

            self._strategy = cma.CMAEvolutionStrategy(np.zeros(dim), sigma, options)

    def _ask(self) -> Array:
        return np.array(self._strategy.ask())

    def _tell(self, asked: Array, scores: Told, loss: Array) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a flat population is told by stop_reasons, not by a warning
            self._strategy.tell([row.copy() for row in asked], loss.tolist())

    def stop_reasons(self) -> dict[str, object]:
        """pycma's termination conditions that hold."""
        return dict(self._strategy.stop())


class DiagonalCMAES(CMAES):
    """CMA-ES with a diagonal covariance matrix (sep-CMA-ES), which a few hundred evaluations can learn."""

    _diagonal = True
