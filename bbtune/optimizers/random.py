"""Random search: the control that every other optimizer must beat."""

from __future__ import annotations

from bbtune.optimizers.base import Array, AskTell, Told


class RandomSearch(AskTell):
    """Independent draws from N(0, sigma^2), the first population of an evolution strategy for ever."""

    def _ask(self) -> Array:
        return self.sigma * self._rng.standard_normal((self.population_size, self.dim))

    def _tell(self, asked: Array, scores: Told, loss: Array) -> None:
        """Nothing is learnt."""
