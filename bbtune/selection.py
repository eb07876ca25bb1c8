"""What a search hands out: judged on dev, the best so far."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bbtune.evaluation.base import Scores


@dataclass(frozen=True)
class Judged:
    """Dev scores of an incumbent, and whether it is the best so far."""

    loss: float
    metric: float
    selected: bool


NOTHING_YET = Judged(np.inf, -np.inf, True)


def is_better(by: str, loss: float, metric: float, best: Judged) -> bool:
    """Whether dev scores rank above the best so far.

    Args:
        by: ``metric``, of equals the lower loss; ``loss``, of equals the higher metric; ``last`` for the latest.
        loss, metric: on dev.
        best: so far.
    """
    if by == "metric":
        return (metric, -loss) > (best.metric, -best.loss)
    return by == "last" or (-loss, metric) > (-best.loss, best.metric)


class Selection:
    """Judges what a search has found on dev, and keeps the best.

    What is judged is the mean of the last so many incumbents: single steps fit the noise of a few examples, each its
    own; the mean keeps what they share (Polyak and Juditsky 1992). The starting point is part of no mean.

    Args:
        z: (L, D), the starting point.
        by: rule of :func:`is_better`.
        average: number of incumbents in a mean.
        patience: judgements without a better one after which the search should stop; None for no such stop.
    """

    def __init__(
        self, z: NDArray[np.float64], by: str = "metric", average: int = 1, patience: int | None = None
    ) -> None:
        self.z = z
        self.best = NOTHING_YET
        self._by = by
        self._average = average
        self._patience = patience
        self._start = z
        self._incumbents: list[NDArray[np.float64]] = []
        self._judged: NDArray[np.float64] | None = None
        self._since_best = 0

    def next(self, incumbent: NDArray[np.float64]) -> tuple[NDArray[np.float64], int] | None:
        """What is to be judged, z (L, D), and the lowest layer in which it differs from the last; None if nothing is.

        Args:
            incumbent: (L, D) of the search.
        """
        if self._judged is None:
            self._judged = incumbent
            return incumbent, 0
        if (incumbent == (self._incumbents or [self._start])[-1]).all():
            return None
        self._incumbents = [*self._incumbents, incumbent][-self._average :]
        before, z = self._judged, np.mean(self._incumbents, axis=0)
        self._judged = z
        first = next((i for i in range(len(z)) if z[i].tobytes() != before[i].tobytes()), None)
        return None if first is None else (z, first)

    def judge(self, z: NDArray[np.float64], scores: Scores) -> Judged:
        """Take the dev scores of z."""
        loss, metric = float(scores.loss[0]), float(scores.metric[0])
        judged = Judged(loss, metric, is_better(self._by, loss, metric, self.best))
        self._since_best += 1
        if judged.selected:
            self.z, self.best, self._since_best = z, judged, 0
        return judged

    def stop_reason(self) -> str | None:
        """``selection.patience``, when it has run out."""
        return "selection.patience" if self._patience is not None and self._since_best >= self._patience else None
