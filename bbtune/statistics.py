"""Statistics of comparisons: intervals, paired tests, and the correction of p-values for their number.

Resamples of test examples are drawn once per test split, so that all methods and seeds share them (R rows of
predictions, B resamples, N examples).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bbtune.seeds import generator
from bbtune.task.metrics import Labels, Metric, Values

LEVEL = 0.05
RESAMPLES = 10_000
_FLIPS = 99_999  # of the signs
_AT_ONCE = 1_000_000  # labels of a batch of resamples
_TIE = 1e-12  # sums in another order differ by less


@dataclass(frozen=True)
class Effect:
    """A score or a difference with its 95 % interval, and the two-sided p-value of it being 0."""

    value: float
    low: float
    high: float
    p: float


@dataclass(frozen=True)
class Sampled:
    """The score of one run, or a difference of two, on its test split and on resamples (B,) of that."""

    value: float
    resampled: Values

    def __sub__(self, other: Sampled) -> Sampled:
        return Sampled(self.value - other.value, self.resampled - other.resampled)


def holm(ps: Sequence[float]) -> list[float]:
    """p-values corrected for their number (Holm 1979)."""
    order = sorted(range(len(ps)), key=lambda i: ps[i])
    steps = np.maximum.accumulate([(len(ps) - rank) * ps[i] for rank, i in enumerate(order)] or [0.0])
    corrected = {i: min(1.0, float(step)) for i, step in zip(order, steps, strict=False)}
    return [corrected[i] for i in range(len(ps))]


def rank_test(differences: Values) -> float:
    """p of Wilcoxon's signed-rank test of differences (n,)."""
    from scipy.stats import wilcoxon

    return float(wilcoxon(differences).pvalue) if differences.any() else 1.0


def sign_flip_test(differences: Values) -> float:
    """p of the mean of differences (n,) under all signs of them, or many."""
    from scipy.stats import permutation_test

    if len(differences) < 2 or not differences.any():
        return 1.0
    options = {"permutation_type": "samples", "vectorized": True, "n_resamples": _FLIPS, "rng": generator(0, "flips")}
    return float(permutation_test((differences,), np.mean, **options).pvalue)


def interval(values: Sequence[float] | Values) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the mean of values (n,)."""
    distinct, counts = np.unique(np.asarray(values, dtype=float), return_counts=True)
    draws = generator(0, "bootstrap").multinomial(counts.sum(), counts / counts.sum(), size=RESAMPLES)
    low, high = np.percentile(draws @ distinct / counts.sum(), [2.5, 97.5])
    return float(low), float(high)


def resample(
    metric: Metric, truth: Labels, predicted: Sequence[Labels], split: str = "test", resamples: int = RESAMPLES
) -> list[Sampled]:
    """Scores of several predictions on a test split, and on the same resamples of its examples.

    Args:
        metric: any.
        truth: labels, or scores of answers in words, (N,).
        predicted: R arrays of the same (N,).
        split: names the draw; the same name and N give the same resamples.
        resamples: B.
    """
    smallest: Any = np.int8 if metric.classes <= 127 else np.int32  # a quarter of the time of int64
    smallest = np.float64 if metric.free_form else smallest
    small_truth, rows = truth.astype(smallest), [row.astype(smallest) for row in predicted]
    rng, n = generator(0, "examples", split), len(truth)
    batch = max(1, _AT_ONCE // n)
    found: NDArray[np.float64] = np.empty((len(rows), resamples))
    for begin in range(0, resamples, batch):
        picked = rng.integers(n, size=(min(batch, resamples - begin), n), dtype=np.int32)
        drawn = small_truth[picked]
        for i, row in enumerate(rows):
            found[i, begin : begin + batch] = metric(drawn, row[picked])
    return [Sampled(float(metric(truth, row)), values) for row, values in zip(predicted, found, strict=True)]


def paired_bootstrap(metric: Metric, truth: Labels, one: Labels, other: Labels, resamples: int = RESAMPLES) -> Effect:
    """metric(one) - metric(other) over resamples of the examples that both labelled; label arrays are (N,)."""
    first, second = resample(metric, truth, [one, other], resamples=resamples)
    return effect_of(first - second)


def effect_of(sampled: Sampled) -> Effect:
    """Percentile interval and p of one cell.

    p is the share of resamples that lie as far from the value as 0 does, (1 + count) / (1 + B); Efron and Tibshirani
    (1993), chapter 16.
    """
    low, high = np.percentile(sampled.resampled, [2.5, 97.5])
    value = sampled.value
    count = int((np.abs(sampled.resampled - value) >= abs(value) - _TIE).sum())
    # Rare labels are absent from most resamples of a small test split, which can push all of them to one side.
    return Effect(value, min(value, float(low)), max(value, float(high)), (1 + count) / (1 + len(sampled.resampled)))


def hierarchical_bootstrap(tasks: Mapping[str, Sequence[Sampled]]) -> Effect:
    """The mean over tasks of the mean over seeds, with an interval over test examples and seeds; the tasks are given.

    Examples are resampled, those of a split for all its seeds at once. Seeds are not: all of three have the same sign
    by chance one time in four, and no resample of them would doubt it. Their part is drawn from Student's t instead,
    with the variance of the mean over seeds that the cells show, added up over tasks, and Welch's and Satterthwaite's
    degrees of freedom. What examples do to each seed alone is a part of that variance already, and is taken out of the
    resamples. As few seeds can lie close together by luck, the interval is never narrower, nor p lower, than the
    examples alone make it. A task with one seed has no spread over seeds: there the seed is taken as given.

    Args:
        tasks: cells by task, one per seed; B is the same in all.
    """
    parts = [_task_part(cells) for cells in tasks.values()]
    value = float(np.mean([part.value for part in parts]))
    examples = effect_of(Sampled(value, value + np.mean([part.deviation for part in parts], axis=0)))
    variances = np.array([part.variance for part in parts]) / len(parts) ** 2
    if (total := float(variances.sum())) == 0:
        return examples
    weights = [v**2 / part.freedom for v, part in zip(variances, parts, strict=True) if v > 0]
    spread = generator(0, "seeds").standard_t(total**2 / np.sum(weights), size=len(parts[0].deviation))
    shared = np.mean([part.deviation * part.shared for part in parts], axis=0)
    both = effect_of(Sampled(value, value + shared + np.sqrt(total) * spread))
    low, high = min(both.low, examples.low), max(both.high, examples.high)
    return Effect(value, low, high, max(both.p, examples.p))


@dataclass(frozen=True)
class _TaskPart:
    """Of one task.

    Attributes:
        value: mean over its seeds; deviation: of that mean (B,), by examples.
        shared: factor of the deviation that leaves what the examples do to all seeds alike.
        variance: of the mean, by seeds; freedom: degrees of freedom of that.
    """

    value: float
    deviation: Values
    shared: float
    variance: float
    freedom: int


def _task_part(cells: Sequence[Sampled]) -> _TaskPart:
    seeds = len(cells)
    values, resampled = np.array([cell.value for cell in cells]), np.stack([cell.resampled for cell in cells])
    value, mean = float(values.mean()), resampled.mean(axis=0)
    deviation = mean - value
    if seeds == 1:
        return _TaskPart(value, deviation, 1.0, 0.0, 0)
    own = ((resampled - mean - (values - value)[:, None]) ** 2).sum(axis=0).mean() / (seeds - 1)
    whole = deviation.var()
    shared = float(np.sqrt(max(0.0, 1 - own / seeds / whole))) if whole > 0 else 1.0
    return _TaskPart(value, deviation, shared, float(values.var(ddof=1)) / seeds, seeds - 1)
