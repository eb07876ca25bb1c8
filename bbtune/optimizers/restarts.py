"""Begin anew where an optimizer has come to its end."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bbtune.objective import Rows
from bbtune.optimizers.base import Array, Optimizer, Told, read_only


class Restarts:
    """An optimizer that, when it gives a reason to stop, is made anew around the best point so far.

    Args:
        make: number of the restart, 0 for the first -> an optimizer that starts at 0.
        restarts: after so many the optimizer may stop.
    """

    def __init__(self, make: Callable[[int], Optimizer], restarts: int) -> None:
        self._make = make
        self._restarts = restarts
        self._made = 0
        self._optimizer = make(0)
        self._origin = self._best = self._optimizer.best  # 0
        self._best_loss = np.inf
        self._asked = self._best[None]

    @property
    def uses_logits(self) -> bool:
        """Whether tell reads the label logits."""
        return self._optimizer.uses_logits

    @property
    def population_size(self) -> int:
        """Candidates P of the next generation."""
        return self._optimizer.population_size

    @property
    def first(self) -> int:
        """Index of the lowest layer of z in which the candidates of the next generation differ."""
        return self._optimizer.first

    @property
    def probing(self) -> bool:
        """Whether the next generation only explores: none of its candidates is meant to be taken up."""
        return self._optimizer.probing

    @property
    def rows(self) -> Rows | None:
        """Train examples that the next generation is to be scored on; None for all."""
        return self._optimizer.rows

    @property
    def best(self) -> Array:
        """The point (D,) with the lowest loss on all examples told so far, restarts or not; 0 before the first tell."""
        return self._best

    def ask(self) -> Array:
        """Candidates (P, D), read-only."""
        self._asked = read_only(self._origin + self._optimizer.ask())
        return self._asked

    def tell(self, scores: Told) -> None:
        """Take the scores of the last ask, and begin anew if they end the optimizer."""
        partial = self.rows is not None
        self._optimizer.tell(scores)
        winner = int(scores.loss.argmin())
        if not partial and scores.loss[winner] < self._best_loss:
            self._best, self._best_loss = read_only(self._asked[winner].copy()), float(scores.loss[winner])
        if self._made < self._restarts and self._optimizer.stop_reasons():
            self._made += 1
            self._optimizer, self._origin = self._make(self._made), self._best

    def stop_reasons(self) -> dict[str, object]:
        """Why the last optimizer would stop; empty while it, or a restart, would go on."""
        return self._optimizer.stop_reasons()
