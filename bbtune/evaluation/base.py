"""The evaluator contract: a pure function from z to scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from bbtune.cost import Spent
from bbtune.objective import Subset
from bbtune.task.metrics import Labels, Metric

Split = Literal["train", "dev"]


@dataclass(frozen=True)
class Scores:
    """What one call of an evaluator returns for P candidates on N examples.

    Attributes:
        loss: (P,), mean over examples.
        metric: (P,), the task's metric.
        logits: (P, N, C) label logits; None when read back from a journal that did not keep them.
        examples: texts run through the model, P * N.
        layer_forwards: texts times layers that ran, as :meth:`bbtune.cost.Sizes.layer_forwards` counts them.
        spent: what an API was paid for them.
        elapsed_s: seconds of the run when the call returned, earlier sessions included.
        unix_ms: time of day then.
    """

    loss: NDArray[np.float64]
    metric: NDArray[np.float64]
    logits: NDArray[np.float32] | None
    examples: int
    layer_forwards: int
    elapsed_s: float = 0.0
    unix_ms: int = 0
    spent: Spent = field(default_factory=Spent)


@dataclass(frozen=True)
class Marks:
    """What P candidates get on each of N examples.

    Attributes:
        losses: (P, N).
        predicted: (P, N), the label that is predicted, or the score of an answer in words.
    """

    losses: NDArray[np.float64]
    predicted: Labels


class Evaluator(Protocol):
    """Scores candidates on the train or dev split; the test split cannot be reached through it."""

    def evaluate(
        self,
        z: NDArray[np.float64],
        split: Split,
        deadline: float | None = None,
        first: int = 0,
        subset: Subset | None = None,
    ) -> Scores:
        """Scores of z (P, L, D), which depend on z, split and subset alone.

        Args:
            deadline: on the clock of :func:`time.monotonic`; passing it raises DeadlineReached, a cap on money
                BudgetReached.
            first: index, into the tuned layers, of the lowest layer in which the candidates may differ. The layers
                below need to run only once; their states may be kept from a call that had the same numbers there.
            subset: examples of the split to score on; None for all.
        """


class Pool(Protocol):
    """Runs methods of workers, in this process or in others."""

    def run(self, method: str, calls: Sequence[tuple[object, ...]], deadline: float | None = None) -> list[Any]:
        """Results of ``method(*call)`` for each call, in the order of the calls."""

    def each(self, method: str) -> list[Any]:
        """Results of ``method()`` of every worker that is there."""

    def close(self) -> None:
        """Free what the pool holds."""


def label_metric(metric: Metric, logits: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """The metric (...,) of label logits (..., N, C)."""
    predicted = logits.argmax(axis=-1)
    return metric(np.broadcast_to(labels, predicted.shape), predicted)
