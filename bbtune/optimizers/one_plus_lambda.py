"""The (1 + lambda) evolution strategy with the 1/5 success rule (Rechenberg 1973).

The rule for lambda offspring is that of Igel, Hansen and Roth 2007, "Covariance matrix adaptation for multi-objective
optimization", algorithm 2 and table 1, without the covariance matrix.
"""

from __future__ import annotations

import numpy as np

from bbtune.optimizers.base import Array, AskTell, Told
from bbtune.optimizers.structure import Structure

_LEAST_STEP = 1e-6  # in units of sigma


class OnePlusLambda(AskTell):
    """Asks the parent and ``population_size - 1`` offspring ``parent + step * N(0, I)``; the best becomes the parent.

    The parent is scored again in each generation, because in a search over blocks its loss changes with the others.
    The step grows while more offspring than about one in five beat the parent, and shrinks while fewer do. A population
    of 2 is the (1 + 1) strategy.
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
        offspring = population_size - 1
        self._parent = np.zeros(dim)
        self._step = sigma
        self._target = 1 / (5 + np.sqrt(offspring) / 2)  # share of offspring that should beat the parent
        self._share = self._target  # smoothed
        self._rate = self._target * offspring / (2 + self._target * offspring)
        self._damping = 1 + dim / (2 * offspring)

    def _ask(self) -> Array:
        steps = self._step * self._rng.standard_normal((self.population_size - 1, self.dim))
        return np.concatenate([self._parent[None], self._parent + steps])

    def _tell(self, asked: Array, scores: Told, loss: Array) -> None:
        beat = float((loss[1:] < loss[0]).mean())
        self._share = (1 - self._rate) * self._share + self._rate * beat
        self._step *= float(np.exp((self._share - self._target) / (self._damping * (1 - self._target))))
        self._parent = asked[loss.argmin()]

    def stop_reasons(self) -> dict[str, object]:
        """The step, once it is so small that no offspring differs from the parent."""
        return {"step": self._step} if self._step < _LEAST_STEP * self.sigma else {}
