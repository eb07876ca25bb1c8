"""Numbers as a report writes them."""

from __future__ import annotations

from bbtune.task.metrics import Estimate, Metric

_SHARES = {
    "accuracy": "share of texts that got the right label",
    "exact_match": "share of answers that are exactly the expected one",
    "regex": "share of answers that fit the expected pattern",
}
_OTHERS = {
    "macro_f1": "F1, which counts both missed and wrongly given labels, as a mean over labels",
    "f1": "F1, which counts both missed and wrongly given texts of one label",
    "matthews": "Matthews' correlation of labels given and true ones: 0 for guessing, 100 for all right",
    "token_f1": "overlap of an answer's words with those of the expected one, as a mean over texts",
}
METRICS = _SHARES | _OTHERS


def points(value: float, signed: bool = False) -> str:
    """A score on a scale of 100."""
    return f"{100 * value:+.1f}" if signed else f"{100 * value:.1f}"


def score(value: float, metric: Metric) -> str:
    """A score with its unit, where it is a share."""
    return f"{points(value)} %" if metric.name in _SHARES else points(value)


def with_interval(estimate: Estimate, signed: bool = False) -> str:
    """``63.3 [58.2, 68.1]``."""
    value, low, high = (points(number, signed) for number in (estimate.value, estimate.low, estimate.high))
    return f"{value} [{low}, {high}]"


def count(number: float, one: str, more: str = "") -> str:
    """``1 text``, ``1,200 texts``."""
    return f"{number:,} {one if number == 1 else more or one + 's'}"
