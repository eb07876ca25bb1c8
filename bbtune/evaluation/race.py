"""Racing: candidates are scored block by block, and those that are clearly worse than the best drop out."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from bbtune.evaluation.base import Marks
from bbtune.seeds import generator
from bbtune.task.metrics import Labels, Metric

Values = NDArray[np.float64]
Mark = Callable[[Sequence[int], Sequence[int]], Marks]

_CLEARLY = 2.0  # standard errors of the paired difference
_LEAST = 8  # examples; of fewer the spread of the differences may be nothing by chance


class Race:
    """Blocks of examples in an order of their own, a paired test after each (CAPO, arXiv 2504.16005, section 3.3).

    Args:
        block: examples of a block.
        seed: of their order.
    """

    def __init__(self, block: int, seed: int) -> None:
        self._block = block
        self._seed = seed

    def run(self, mark: Mark, candidates: int, truth: Labels, metric: Metric) -> tuple[Values, Values, int]:
        """Losses (P,), metrics (P,) and the number of texts that were scored.

        A candidate that dropped out has the loss of the best plus its mean difference from it so far, and the metric
        of the examples that it was scored on.

        Args:
            mark: marks (P', N') of some candidates on some examples, by index.
            candidates: P.
            truth: (N,), what a perfect prediction is.
            metric: of the task.
        """
        order = generator(self._seed, "race", len(truth)).permutation(len(truth))
        losses = np.full((candidates, len(truth)), np.nan)
        predicted = np.zeros((candidates, len(truth)))
        alive = np.arange(candidates)
        for start in range(0, len(truth), self._block):
            some = np.sort(order[start : start + self._block])
            marks = mark(alive.tolist(), some.tolist())
            losses[np.ix_(alive, some)] = marks.losses
            predicted[np.ix_(alive, some)] = marks.predicted
            alive = alive[~_clearly_worse(losses[alive][:, order[: start + self._block]])]
        return _completed(losses), _metrics(metric, predicted, losses, truth), int(np.isfinite(losses).sum())


def _clearly_worse(losses: Values) -> NDArray[np.bool_]:
    """Which of the candidates (P, N) are worse than the best by more than chance explains."""
    best = losses.mean(axis=1).argmin()
    difference = losses - losses[best]
    if difference.shape[1] < _LEAST:
        return np.zeros(len(losses), dtype=np.bool_)
    error = difference.std(axis=1, ddof=1) / np.sqrt(difference.shape[1])
    return np.asarray(difference.mean(axis=1) > _CLEARLY * error)


def _completed(losses: Values) -> Values:
    """Mean losses (P,) of losses (P, N) that hold nan where a candidate was no longer scored."""
    whole = np.isfinite(losses).all(axis=1)
    best = losses[whole][losses[whole].mean(axis=1).argmin()]
    return np.asarray(best.mean() + np.nanmean(losses - best, axis=1))


def _metrics(metric: Metric, predicted: Values, losses: Values, truth: Labels) -> Values:
    rows = zip(predicted, np.isfinite(losses), strict=True)
    return np.array([float(metric(truth[known], row[known])) for row, known in rows])
