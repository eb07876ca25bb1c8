"""Racing: candidates are scored block by block, and those that are clearly worse than the best drop out."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from bbtune.objective import Objective
from bbtune.seeds import generator
from bbtune.task.metrics import Metric

Values = NDArray[np.float64]
Score = Callable[[Sequence[int], Sequence[int]], NDArray[np.float32]]

_CLEARLY = 2.0  # standard errors of the paired difference


class Race:
    """Blocks of examples in an order of their own, a paired test after each (CAPO, arXiv 2504.16005, section 3.3).

    Args:
        block: examples of a block.
        seed: of their order.
    """

    def __init__(self, block: int, seed: int) -> None:
        self._block = block
        self._seed = seed

    def run(self, score: Score, candidates: int, objective: Objective, metric: Metric) -> tuple[Values, Values, int]:
        """Losses (P,), metrics (P,) and the number of texts that were scored.

        A candidate that dropped out has the loss of the best plus its mean difference from it so far, and the metric
        of the examples that it was scored on.

        Args:
            score: label logits (P', N', C) of some candidates on some examples, by index.
            candidates: P.
            objective: of the examples N.
        """
        labels = objective.labels
        order = generator(self._seed, "race", len(labels)).permutation(len(labels))
        losses = np.full((candidates, len(labels)), np.nan)
        hits = np.zeros((candidates, len(labels)))
        alive = np.arange(candidates)
        for start in range(0, len(labels), self._block):
            some = np.sort(order[start : start + self._block])
            logits = score(alive.tolist(), some.tolist())
            losses[np.ix_(alive, some)] = Objective(labels[some], objective.kind).each(logits)
            hits[np.ix_(alive, some)] = logits.argmax(axis=-1)
            alive = alive[~_clearly_worse(losses[alive][:, order[: start + self._block]])]
        return _completed(losses), _metrics(metric, hits, losses, labels), int(np.isfinite(losses).sum())


def _clearly_worse(losses: Values) -> NDArray[np.bool_]:
    """Which of the candidates (P, N) are worse than the best by more than chance explains."""
    best = losses.mean(axis=1).argmin()
    difference = losses - losses[best]
    if difference.shape[1] < 2:
        return np.zeros(len(losses), dtype=np.bool_)
    error = difference.std(axis=1, ddof=1) / np.sqrt(difference.shape[1])
    return np.asarray(difference.mean(axis=1) > _CLEARLY * error)


def _completed(losses: Values) -> Values:
    """Mean losses (P,) of losses (P, N) that hold nan where a candidate was no longer scored."""
    whole = np.isfinite(losses).all(axis=1)
    best = losses[whole][losses[whole].mean(axis=1).argmin()]
    return np.asarray(best.mean() + np.nanmean(losses - best, axis=1))


def _metrics(metric: Metric, predicted: Values, losses: Values, labels: NDArray[np.int64]) -> Values:
    found = []
    for row, known in zip(predicted, np.isfinite(losses), strict=True):
        found.append(float(metric(labels[known], row[known].astype(np.int64))))
    return np.array(found)
