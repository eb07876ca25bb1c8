"""Begin anew where an optimizer has come to its end."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bbtune.optimizers.base import Array, Optimizer, Told, Upcoming, read_only


class Restarts:
    """An optimizer that, when it gives a reason to stop, is made anew around the best point so far.

    Args:
        make: (number of the restart, 0 for the first; point (D,) where it begins, None for 0) -> an optimizer that
            starts at 0, which stands for that point.
        restarts: after so many the optimizer may stop.
    """

    def __init__(self, make: Callable[[int, Array | None], Optimizer], restarts: int) -> None:
        self._make = make
        self._restarts = restarts
        self._made = 0
        self._optimizer = make(0, None)
        self._origin = self._best = self._optimizer.best  # 0
        self._best_loss = np.inf
        self._asked = self._best[None]

    @property
    def uses_logits(self) -> bool:
        """Whether tell reads the label logits."""
        return self._optimizer.uses_logits

    @property
    def upcoming(self) -> Upcoming:
        """What the next generation will be."""
        return self._optimizer.upcoming

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
        partial = self.upcoming.subset is not None
        self._optimizer.tell(scores)
        winner = int(scores.loss.argmin())
        if not partial and scores.loss[winner] < self._best_loss:
            self._best, self._best_loss = read_only(self._asked[winner].copy()), float(scores.loss[winner])
        if self._made < self._restarts and self._optimizer.stop_reasons():
            self._made += 1
            self._optimizer, self._origin = self._make(self._made, self._best), self._best

    def stop_reasons(self) -> dict[str, object]:
        """Why the last optimizer would stop; empty while it, or a restart, would go on."""
        return self._optimizer.stop_reasons()
