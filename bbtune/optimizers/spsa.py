"""Two-sided random-direction gradient estimates (Spall 1992; Nesterov and Spokoiny 2017) with Adam."""

from __future__ import annotations

import numpy as np

from bbtune.optimizers.base import Array, AskTell, Told, population_asked
from bbtune.optimizers.structure import Structure

_PROBE = 0.1  # distance of the two-sided differences, in units of sigma
_STEP = 0.25  # Adam's step per coordinate, in units of sigma
_BETA1, _BETA2, _EPSILON = 0.9, 0.99, 1e-12


class SPSA(AskTell):
    """Asks the centre and pairs ``centre ± probe * u`` with u from N(0, I), and steps by Adam.

    The population is rounded down to an odd number, 3 at least.
    """

    def __init__(
        self,
        dim: int,
        population_size: int,
        sigma: float,
        rng: np.random.Generator,
        structure: Structure | None = None,
    ) -> None:
        super().__init__(dim, population_size, sigma, rng, structure)
        self.population_size = population_asked("spsa", population_size)
        self._centre = np.zeros(dim)
        self._moment1 = np.zeros(dim)
        self._moment2 = np.zeros(dim)
        self._steps = 0

    def _ask(self) -> Array:
        directions = self._rng.standard_normal((self.population_size // 2, self.dim))
        probes = self.sigma * _PROBE * directions
        return np.concatenate([self._centre[None], self._centre + probes, self._centre - probes])

    def _tell(self, asked: Array, scores: Told, loss: Array) -> None:
        pairs = self.population_size // 2
        probes = asked[1 : pairs + 1] - asked[0]
        slopes = (loss[1 : pairs + 1] - loss[pairs + 1 :]) / (2 * (self.sigma * _PROBE) ** 2)
        gradient = (slopes[:, None] * probes).mean(axis=0)
        self._steps += 1
        self._moment1 = _BETA1 * self._moment1 + (1 - _BETA1) * gradient
        self._moment2 = _BETA2 * self._moment2 + (1 - _BETA2) * gradient**2
        mean = self._moment1 / (1 - _BETA1**self._steps)
        spread = np.sqrt(self._moment2 / (1 - _BETA2**self._steps))
        self._centre = self._centre - self.sigma * _STEP * mean / (spread + _EPSILON)
