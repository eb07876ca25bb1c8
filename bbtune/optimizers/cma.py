"""CMA-ES by pycma, with full, diagonal and low-rank covariance (Hansen 2016, arXiv 1604.00772)."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from bbtune.optimizers.base import Array, AskTell, Told, population_asked
from bbtune.optimizers.structure import Structure


class CMAES(AskTell):
    """CMA-ES with the full covariance matrix."""

    _name = "cma"

    def __init__(
        self,
        dim: int,
        population_size: int,
        sigma: float,
        rng: np.random.Generator,
        structure: Structure | None = None,
    ) -> None:
        super().__init__(dim, population_size, sigma, rng, structure)
        self.population_size = population_asked(self._name, population_size)

        def randn(*shape: int) -> Array:
            return rng.standard_normal(shape)

        options: dict[str, Any] = {
            "popsize": self.population_size,
            "seed": np.nan,  # no global seeding: numbers come from our own generator
            "randn": randn,
            "signals_filename": "",  # pycma would read, and evaluate, a file of the working folder
            "verbose": -10,
        }
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of plotting libraries and of pycma's own default options
            import cma

            self._strategy = cma.CMAEvolutionStrategy(np.zeros(dim), sigma, options | self._covariance(randn))

    def _covariance(self, randn: Callable[..., Array]) -> dict[str, Any]:
        """Options of pycma that decide the form of the covariance matrix."""
        return {"CMA_diagonal": False}

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

    def _covariance(self, randn: Callable[..., Array]) -> dict[str, Any]:
        return {"CMA_diagonal": True}


class VkDCMAES(CMAES):
    """CMA-ES with a diagonal matrix and k directions beside it, k adapted: for thousands of numbers in one search.

    VkD-CMA-ES (Akimoto and Hansen 2016, GECCO and PPSN). Two candidates of a generation mirror each other and tell the
    step size; with at least two more, the population is rounded up to 4.
    """

    _name = "cma-vkd"

    def _covariance(self, randn: Callable[..., Array]) -> dict[str, Any]:
        from cma.restricted_gaussian_sampler import GaussVkDSampler

        return dict(GaussVkDSampler.extend_cma_options({"CMA_sampler_options": {"randn": randn}}))
