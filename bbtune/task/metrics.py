"""Metrics of predicted labels, or of scores of answers, over any leading dimensions, and their intervals.

Written out rather than taken from scikit-learn, because the bootstrap asks for a thousand resamples at once;
the tests compare every value with scikit-learn's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bbtune.task.free_form import SCORES

Labels = NDArray[np.int64 | np.float64]  # numbers of labels; of answers in words their scores in [0, 1], truth 1
Values = NDArray[np.float64]

UNDECIDED = -1  # predicted where an answer names no label: wrong for every one


@dataclass(frozen=True)
class Metric:
    """A metric with what it needs to know of the labels.

    Args:
        name: ``accuracy``, ``macro_f1``, ``f1`` (of one label) or ``matthews``; of answers in words ``exact_match``,
            ``token_f1`` or ``regex``, the mean of the answers' scores.
        classes: number of labels C; 0 for answers in words.
        positive: the label of ``f1``.
    """

    name: str
    classes: int
    positive: int | None = None

    @property
    def free_form(self) -> bool:
        """Whether answers are words, each with a score of its own, and not labels."""
        return self.name in SCORES

    def __call__(self, truth: Labels, predicted: Labels) -> Values:
        """Value per leading index of arrays of labels, or of scores, of shape (..., N)."""
        if self.free_form:
            return np.asarray(predicted.mean(axis=-1), dtype=np.float64)
        return np.asarray(METRICS[self.name](self, truth, predicted), dtype=np.float64)


def _accuracy(_: Metric, truth: Labels, predicted: Labels) -> Values:
    return np.asarray((truth == predicted).mean(axis=-1))


def _f1_of(label: int, truth: Labels, predicted: Labels) -> Values:
    hits = ((truth == label) & (predicted == label)).sum(axis=-1)
    total = (truth == label).sum(axis=-1) + (predicted == label).sum(axis=-1)
    return np.asarray(2 * hits / np.maximum(total, 1))


def _f1(metric: Metric, truth: Labels, predicted: Labels) -> Values:
    if metric.positive is None:
        raise ValueError("f1 needs the positive label, got None")
    return _f1_of(metric.positive, truth, predicted)


def _macro_f1(metric: Metric, truth: Labels, predicted: Labels) -> Values:
    return np.asarray(np.mean([_f1_of(label, truth, predicted) for label in range(metric.classes)], axis=0))


def _matthews(metric: Metric, truth: Labels, predicted: Labels) -> Values:
    """Gorodkin's multi-class coefficient, 0 where it is undefined."""
    n = truth.shape[-1]
    true_counts = np.stack([(truth == c).sum(axis=-1) for c in range(metric.classes)], axis=-1)
    predicted_counts = np.stack([(predicted == c).sum(axis=-1) for c in range(metric.classes)], axis=-1)
    undecided = n - predicted_counts.sum(axis=-1)  # a class of its own
    covariance = (truth == predicted).sum(axis=-1) * n - (true_counts * predicted_counts).sum(axis=-1)
    # In floats: the product passes 2**63 from about 55,000 examples on.
    own = (predicted_counts**2).sum(axis=-1) + undecided**2
    spread = (n**2 - (true_counts**2).sum(axis=-1)).astype(float) * (n**2 - own)
    return np.asarray(np.where(spread > 0, covariance / np.sqrt(np.maximum(spread, 1)), 0.0))


METRICS: dict[str, Callable[[Metric, Labels, Labels], Values]] = {
    "accuracy": _accuracy,
    "macro_f1": _macro_f1,
    "f1": _f1,
    "matthews": _matthews,
}


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"

    def as_dict(self) -> dict[str, float]:
        return {"value": self.value, "low": self.low, "high": self.high}


_RESAMPLES = 2000
_SHARES = {"accuracy", "exact_match", "regex"}  # of examples that are right


def score_with_interval(metric: Metric, truth: Labels, predicted: Labels, rng: np.random.Generator) -> Estimate:
    """The metric and its 95 % interval: Wilson's for a share that is right, else a bootstrap over examples."""
    value = float(metric(truth, predicted))
    if metric.name in _SHARES:
        from scipy.stats import binomtest

        interval = binomtest(int((truth == predicted).sum()), len(truth)).proportion_ci(0.95, method="wilson")
        return Estimate(value, float(interval.low), float(interval.high))
    low, high = _bootstrap(lambda t, p: metric(t, p), (truth, predicted), rng)
    return Estimate(value, low, high)


def gain_with_interval(
    metric: Metric, truth: Labels, before: Labels, after: Labels, rng: np.random.Generator
) -> Estimate:
    """metric(after) - metric(before) on the same examples, with the paired percentile bootstrap interval."""

    def difference(t: Labels, b: Labels, a: Labels) -> Values:
        return np.asarray(metric(t, a) - metric(t, b))

    low, high = _bootstrap(difference, (truth, before, after), rng)
    return Estimate(float(difference(truth, before, after)), low, high)


def _bootstrap(statistic: Callable[..., Values], data: tuple[Labels, ...], rng: Any) -> tuple[float, float]:
    from scipy.stats import bootstrap

    value = float(statistic(*data))
    if len(data[0]) < 2:
        return value, value
    result = bootstrap(
        data,
        lambda *arrays, axis=-1: statistic(*arrays),
        n_resamples=_RESAMPLES,
        batch=100,
        paired=True,
        vectorized=True,
        method="percentile",
        rng=rng,
    )
    # Rare labels are absent from most resamples of a small test split, which can push all of them to one side.
    return min(value, float(result.confidence_interval.low)), max(value, float(result.confidence_interval.high))
