"""Metrics against scikit-learn, and their intervals."""

import warnings

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from bbtune.task.metrics import METRICS, Metric, gain_with_interval, score_with_interval

CLASSES = 4
METRIC = {name: Metric(name, CLASSES, positive=1 if name == "f1" else None) for name in METRICS}
LABELS = st.lists(st.tuples(st.integers(0, CLASSES - 1), st.integers(-1, CLASSES - 1)), min_size=1, max_size=40)


def reference(name: str, truth: np.ndarray, predicted: np.ndarray) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # labels that do not occur
        if name == "accuracy":
            return sklearn.metrics.accuracy_score(truth, predicted)
        if name == "matthews":
            return sklearn.metrics.matthews_corrcoef(truth, predicted)
        labels, average = ([1], None) if name == "f1" else (list(range(CLASSES)), "macro")
        return float(np.squeeze(sklearn.metrics.f1_score(truth, predicted, labels=labels, average=average)))


@pytest.mark.parametrize("name", METRICS)
@given(pairs=LABELS)
@example(pairs=[(0, 0)] * 3)
@example(pairs=[(2, 3)] * 3)
@settings(max_examples=60, deadline=None)
def test_every_metric_equals_that_of_scikit_learn(name: str, pairs: list[tuple[int, int]]) -> None:
    truth, predicted = np.array(pairs).T
    assert METRIC[name](truth, predicted) == pytest.approx(reference(name, truth, predicted), abs=1e-12)


@pytest.mark.parametrize("name", METRICS)
def test_leading_dimensions_are_kept_and_each_value_is_that_of_its_row(name: str) -> None:
    rng = np.random.default_rng(0)
    truth, predicted = rng.integers(0, CLASSES, (2, 3, 5, 20))
    values = METRIC[name](truth, predicted)
    assert values.shape == (3, 5)
    for i in np.ndindex(3, 5):
        assert values[i] == pytest.approx(reference(name, truth[i], predicted[i]), abs=1e-12)


@pytest.mark.parametrize("name", METRICS)
def test_one_truth_is_compared_with_many_predictions(name: str) -> None:
    rng = np.random.default_rng(1)
    truth, predicted = rng.integers(0, CLASSES, 20), rng.integers(0, CLASSES, (6, 20))
    assert METRIC[name](truth, predicted) == pytest.approx([reference(name, truth, row) for row in predicted])


def test_matthews_does_not_overflow_on_large_test_splits() -> None:
    rng = np.random.default_rng(2)
    truth = rng.integers(0, CLASSES, 200_000)
    predicted = np.where(rng.random(truth.size) < 0.5, truth, rng.integers(0, CLASSES, truth.size))
    assert METRIC["matthews"](truth, predicted) == pytest.approx(reference("matthews", truth, predicted))


def test_f1_without_its_label_is_refused() -> None:
    with pytest.raises(ValueError, match="f1 needs the positive label, got None"):
        Metric("f1", 2)(np.array([0, 1]), np.array([0, 1]))


@pytest.mark.parametrize(
    ("right", "of", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (1, 29, 0.0061, 0.1718)],
)
def test_accuracy_has_the_wilson_interval_of_newcombe_1998(right: int, of: int, low: float, high: float) -> None:
    predicted = (np.arange(of) >= right).astype(int)
    score = score_with_interval(Metric("accuracy", 2), np.zeros(of, dtype=int), predicted, np.random.default_rng(0))
    assert (score.value, round(score.low, 4), round(score.high, 4)) == (right / of, low, high)


@pytest.mark.parametrize("right", [0, 10])
def test_the_accuracy_interval_has_a_width_even_when_all_or_none_are_right(right: int) -> None:
    predicted = (np.arange(10) >= right).astype(int)
    score = score_with_interval(Metric("accuracy", 2), np.zeros(10, dtype=int), predicted, np.random.default_rng(0))
    assert 0 <= score.low <= score.value <= score.high <= 1
    assert score.high - score.low == pytest.approx(0.2775, abs=1e-4)


@pytest.mark.parametrize("name", METRICS)
@given(pairs=LABELS)
@example(pairs=[(c, c) for c in range(CLASSES)])
@settings(max_examples=8, deadline=None)
def test_intervals_contain_the_value(name: str, pairs: list[tuple[int, int]]) -> None:
    truth, predicted = np.array(pairs).T
    score = score_with_interval(METRIC[name], truth, predicted, np.random.default_rng(0))
    assert score.low <= score.value + 1e-12
    assert score.value <= score.high + 1e-12


def test_a_perfect_score_lies_in_its_interval_even_where_most_resamples_lack_a_label() -> None:
    truth = np.arange(14)
    score = score_with_interval(Metric("macro_f1", 14), truth, truth, np.random.default_rng(0))
    assert score.value == score.high == 1
    assert score.low < 0.8


def test_the_bootstrap_interval_is_that_of_the_percentiles() -> None:
    rng = np.random.default_rng(3)
    truth = rng.integers(0, CLASSES, 200)
    predicted = np.where(rng.random(200) < 0.7, truth, rng.integers(0, CLASSES, 200))
    score = score_with_interval(METRIC["macro_f1"], truth, predicted, np.random.default_rng(0))
    rows = rng.integers(0, 200, (4000, 200))
    low, high = np.quantile(METRIC["macro_f1"](truth[rows], predicted[rows]), [0.025, 0.975])
    assert (score.low, score.high) == pytest.approx((low, high), abs=0.01)


@pytest.mark.parametrize("name", METRICS)
@given(pairs=LABELS)
@settings(max_examples=8, deadline=None)
def test_the_gain_of_identical_predictions_is_exactly_zero(name: str, pairs: list[tuple[int, int]]) -> None:
    truth, predicted = np.array(pairs).T
    gain = gain_with_interval(METRIC[name], truth, predicted, predicted.copy(), np.random.default_rng(0))
    assert (gain.value, gain.low, gain.high) == (0, 0, 0)


@given(pairs=LABELS)
@settings(max_examples=8, deadline=None)
def test_a_gain_is_the_difference_of_the_scores_and_turns_its_sign_with_them(pairs: list[tuple[int, int]]) -> None:
    assume(len(pairs) > 1)
    truth, before = np.array(pairs).T
    after = np.where(np.arange(truth.size) % 2, truth, before)
    metric = METRIC["accuracy"]
    gain = gain_with_interval(metric, truth, before, after, np.random.default_rng(0))
    loss = gain_with_interval(metric, truth, after, before, np.random.default_rng(0))
    assert gain.value == pytest.approx(float(metric(truth, after) - metric(truth, before)))
    assert gain.low >= 0  # no example got worse, so no resample did
    assert (loss.value, loss.low, loss.high) == pytest.approx((-gain.value, -gain.high, -gain.low), abs=1e-9)


def test_pairing_makes_the_gain_sharper_than_the_scores() -> None:
    rng = np.random.default_rng(4)
    truth = rng.integers(0, 2, 300)
    before = np.where(rng.random(300) < 0.6, truth, 1 - truth)
    after = before.copy()
    after[:30] = truth[:30]
    metric = Metric("accuracy", 2)
    gain = gain_with_interval(metric, truth, before, after, np.random.default_rng(0))
    score = score_with_interval(metric, truth, after, np.random.default_rng(0))
    assert gain.low > 0
    assert gain.high - gain.low < (score.high - score.low) / 2


def test_intervals_depend_on_the_generator_that_is_handed_in_alone() -> None:
    rng = np.random.default_rng(5)
    truth, predicted = rng.integers(0, CLASSES, (2, 50))
    first, again = (score_with_interval(METRIC["f1"], truth, predicted, np.random.default_rng(7)) for _ in range(2))
    assert first == again


def test_one_example_alone_gives_an_interval_without_width() -> None:
    one = np.array([1])
    score = score_with_interval(METRIC["f1"], one, one, np.random.default_rng(0))
    assert (score.value, score.low, score.high) == (1, 1, 1)


def test_an_estimate_reads_as_value_and_interval() -> None:
    score = score_with_interval(Metric("accuracy", 2), np.zeros(4, int), np.zeros(4, int), np.random.default_rng(0))
    assert str(score) == "1.000 [0.510, 1.000]"
    assert score.as_dict() == {"value": score.value, "low": score.low, "high": score.high}
