"""Statistics on made-up data with known answers, and beside scipy's."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from scipy import stats

from bbtune.statistics import (
    RESAMPLES,
    Sampled,
    effect_of,
    hierarchical_bootstrap,
    holm,
    interval,
    paired_bootstrap,
    rank_test,
    resample,
    sign_flip_test,
)
from bbtune.task.metrics import METRICS, Labels, Metric

TWO = Metric("accuracy", 2)


def answers(rng: np.random.Generator, truth: Labels, right: float, classes: int = 2) -> Labels:
    """Labels that are right with a given probability, else another."""
    wrong = (truth + rng.integers(1, classes, size=truth.shape)) % classes
    return np.where(rng.random(truth.shape) < right, truth, wrong)


def rejected(p_of: Callable[[np.random.Generator], float], times: int) -> int:
    """How many of so many made-up data sets have p < .05."""
    return sum(p_of(np.random.default_rng(i)) < 0.05 for i in range(times))


def binomial_limits(times: int) -> tuple[float, float]:
    """What a true rate of .05 gives in 999 cases of 1,000."""
    low, high = stats.binom.interval(0.999, times, 0.05)
    return float(low), float(high)


@pytest.mark.parametrize(
    ("ps", "corrected"),
    [
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),  # 4 x .005, 3 x .01, 2 x .03, then not below that
        ([0.04, 0.01, 0.03], [0.06, 0.03, 0.06]),
        ([0.9, 0.8], [1.0, 1.0]),
        ([0.02], [0.02]),
        ([], []),
    ],
)
def test_holm_multiplies_the_smallest_p_most_and_keeps_the_order(ps: list[float], corrected: list[float]) -> None:
    assert holm(ps) == pytest.approx(corrected)


def test_the_rank_test_is_scipys() -> None:
    differences = np.random.default_rng(1).normal(0.4, 1, size=17)
    assert rank_test(differences) == stats.wilcoxon(differences).pvalue


def test_all_signs_of_a_few_differences_are_tried() -> None:
    assert sign_flip_test(np.array([1.0, 2.0, 3.0, 4.0])) == pytest.approx(2 / 16)
    differences = np.random.default_rng(2).normal(0.5, 1, size=10)
    exact = stats.permutation_test((differences,), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert sign_flip_test(differences) == pytest.approx(exact.pvalue)


@pytest.mark.parametrize("differences", [[0.0, 0.0, 0.0], [2.0], [0.0, 0.0, 1.0, 1.0, -1.0]])
def test_equal_and_few_differences_have_a_p_value_too(differences: list[float]) -> None:
    for test in (rank_test, sign_flip_test):
        assert 0.05 < test(np.array(differences)) <= 1


def test_the_interval_of_a_mean_is_scipys_percentile_bootstrap() -> None:
    values = np.random.default_rng(3).exponential(size=60)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=20_000, method="percentile", rng=4).confidence_interval
    assert interval(values) == pytest.approx((theirs.low, theirs.high), abs=0.02)


@pytest.mark.parametrize("name", METRICS)
def test_the_paired_bootstrap_is_scipys_for_every_metric(name: str) -> None:
    rng = np.random.default_rng(5)
    classes = 2 if name == "f1" else 3
    metric = Metric(name, classes, 1 if name == "f1" else None)
    truth = rng.integers(classes, size=150)
    one, other = (answers(rng, truth, right, classes) for right in (0.8, 0.7))
    effect = paired_bootstrap(metric, truth, one, other)

    def difference(t: Labels, a: Labels, b: Labels, axis: int = -1) -> np.ndarray:
        return metric(t, a) - metric(t, b)

    theirs = stats.bootstrap(
        (truth, one, other), difference, paired=True, vectorized=True, n_resamples=10_000, method="percentile", rng=6
    )
    assert effect.value == pytest.approx(float(difference(truth, one, other)))
    limits = theirs.confidence_interval
    assert (effect.low, effect.high) == pytest.approx((limits.low, limits.high), abs=0.01)
    normal = 2 * stats.norm.sf(abs(effect.value) / theirs.standard_error)
    assert effect.p == pytest.approx(normal, abs=0.02)


def test_equal_answers_have_no_difference_and_p_1() -> None:
    truth = np.random.default_rng(7).integers(2, size=50)
    effect = paired_bootstrap(TWO, truth, 1 - truth, 1 - truth)
    assert (effect.value, effect.low, effect.high, effect.p) == (0.0, 0.0, 0.0, 1.0)


def test_p_is_never_0_and_the_draw_is_the_same_every_time() -> None:
    truth = np.random.default_rng(8).integers(2, size=80)
    effect = paired_bootstrap(TWO, truth, truth, 1 - truth)
    assert effect.p == 1 / (1 + RESAMPLES)
    one, again = (resample(TWO, truth, [1 - truth, truth])[0].resampled for _ in range(2))
    np.testing.assert_array_equal(one, again)


def test_all_predictions_of_a_split_share_its_resamples() -> None:
    rng = np.random.default_rng(9)
    truth = rng.integers(2, size=60)
    first = answers(rng, truth, 0.7)
    alone, beside = resample(TWO, truth, [first], "a")[0], resample(TWO, truth, [truth, first], "a")[1]
    np.testing.assert_array_equal(alone.resampled, beside.resampled)
    assert not np.array_equal(alone.resampled, resample(TWO, truth, [first], "b")[0].resampled)


def test_without_a_difference_the_paired_bootstrap_rejects_one_time_in_twenty() -> None:
    def p(rng: np.random.Generator) -> float:
        truth = rng.integers(2, size=300)
        return paired_bootstrap(TWO, truth, answers(rng, truth, 0.8), answers(rng, truth, 0.8), 1000).p

    low, high = binomial_limits(400)
    assert low <= rejected(p, 400) <= high


def test_a_difference_is_found_and_pairing_finds_it_where_two_samples_do_not() -> None:
    def both(rng: np.random.Generator) -> tuple[float, float]:
        truth = rng.integers(2, size=500)
        one = answers(rng, truth, 0.7)
        mended = (one != truth) & (rng.random(500) < 0.12)  # 3.6 points more, and right wherever the other is
        other = np.where(mended, truth, one)
        table = [[(one == truth).sum(), (one != truth).sum()], [(other == truth).sum(), (other != truth).sum()]]
        return paired_bootstrap(TWO, truth, other, one, 1000).p, float(stats.chi2_contingency(table).pvalue)

    ps = [both(np.random.default_rng(i)) for i in range(40)]
    assert sum(paired < 0.05 for paired, _ in ps) >= 38
    assert sum(unpaired < 0.05 for _, unpaired in ps) <= 20


def cells(
    rng: np.random.Generator, seeds: int, by_seed: float, gain: float = 0.0, tasks: int = 1
) -> dict[str, list[Sampled]]:
    """Differences of two methods whose accuracies vary about their means by seed; a task has one test split."""
    found: dict[str, list[Sampled]] = {}
    for task in range(tasks):
        truth = rng.integers(2, size=200)
        rights = np.clip(0.75 + by_seed * rng.normal(size=(seeds, 2)) + [gain, 0.0], 0, 1)
        rows = [answers(rng, truth, right) for pair in rights for right in pair]
        sampled = resample(TWO, truth, rows, str(task), 500)
        found[str(task)] = [one - other for one, other in zip(sampled[::2], sampled[1::2], strict=True)]
    return found


@pytest.mark.parametrize(("seeds", "by_seed"), [(2, 0.06), (3, 0.06), (3, 0.02), (5, 0.0)])
def test_without_a_difference_the_hierarchical_bootstrap_rejects_at_most_one_time_in_twenty(
    seeds: int, by_seed: float
) -> None:
    rejections = rejected(lambda rng: hierarchical_bootstrap(cells(rng, seeds, by_seed)).p, 400)
    assert rejections <= binomial_limits(400)[1]


def test_without_a_difference_on_several_tasks_it_rejects_one_time_in_twenty() -> None:
    low, high = binomial_limits(300)
    assert low <= rejected(lambda rng: hierarchical_bootstrap(cells(rng, 3, 0.06, tasks=3)).p, 300) <= high


def test_seeds_that_are_resampled_would_reject_far_too_often() -> None:
    """Why the spread over seeds is Student's: three seeds have one sign one time in four."""

    def p(rng: np.random.Generator) -> float:
        values = np.array([cell.value for cell in cells(rng, 3, 0.06)["0"]])
        resampled = values[rng.integers(3, size=(500, 3))].mean(axis=1)
        return effect_of(Sampled(float(values.mean()), resampled)).p

    assert rejected(p, 200) > 2 * binomial_limits(200)[1]


def test_a_difference_over_seeds_and_tasks_is_found() -> None:
    assert rejected(lambda rng: hierarchical_bootstrap(cells(rng, 5, 0.02, gain=0.08, tasks=2)).p, 40) >= 36


def test_the_spread_over_seeds_is_students_where_examples_do_not_matter() -> None:
    values = [0.01, 0.03, 0.04, 0.08]
    constant: Sequence[Sampled] = [Sampled(value, np.full(20_000, value)) for value in values]
    effect = hierarchical_bootstrap({"task": constant})
    theirs = stats.ttest_1samp(values, 0.0)
    limits = theirs.confidence_interval(0.95)
    assert effect.p == pytest.approx(theirs.pvalue, abs=0.01)
    assert (effect.low, effect.high) == pytest.approx((limits.low, limits.high), abs=0.003)


def test_seeds_that_lie_close_by_luck_do_not_make_the_interval_narrower_than_examples_do() -> None:
    rng = np.random.default_rng(11)
    truth = rng.integers(2, size=200)
    sampled = resample(TWO, truth, [rng.permutation(truth) for _ in range(3)])
    close = [Sampled(0.5, cell.resampled - cell.value + 0.5) for cell in sampled]
    examples = effect_of(Sampled(0.5, np.mean([cell.resampled for cell in close], axis=0)))
    effect = hierarchical_bootstrap({"task": close})
    assert (effect.low, effect.high) == (examples.low, examples.high)


def test_one_cell_is_the_paired_bootstrap_and_seeds_that_answer_alike_count_once() -> None:
    rng = np.random.default_rng(10)
    truth = rng.integers(2, size=200)
    one, other = resample(TWO, truth, [answers(rng, truth, 0.8), answers(rng, truth, 0.7)])
    single = effect_of(one - other)
    assert hierarchical_bootstrap({"task": [one - other]}) == single
    three = hierarchical_bootstrap({"task": [one - other] * 3})
    assert (three.low, three.high) == pytest.approx((single.low, single.high), abs=1e-9)
