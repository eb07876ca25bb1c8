"""Racing: whoever is clearly worse is asked no further, and the others are scored as if there were no race."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from bbtune.evaluation.base import Marks
from bbtune.evaluation.race import Race
from bbtune.task.metrics import Metric

EXAMPLES = 48
TRUTH = np.arange(EXAMPLES) % 2
ACCURACY = Metric("accuracy", 2)


class Answers:
    """Candidates whose losses differ by an offset and by noise; a candidate far off is wrong."""

    def __init__(self, offsets: Sequence[float], noise: float = 0.05) -> None:
        rng = np.random.default_rng(0)
        self.losses = 1.0 + np.array(offsets)[:, None] + noise * rng.standard_normal((len(offsets), EXAMPLES))
        self.predicted = np.where(np.array(offsets)[:, None] > 0.5, 1 - TRUTH, TRUTH)
        self.asked = np.zeros((len(offsets), EXAMPLES), dtype=int)

    def __call__(self, which: Sequence[int], examples: Sequence[int]) -> Marks:
        place = np.ix_(which, examples)
        self.asked[place] += 1
        return Marks(self.losses[place], self.predicted[place])


def test_who_is_clearly_worse_is_asked_no_further_and_keeps_its_difference() -> None:
    answers = Answers([0.0, 1.0, 0.01])
    losses, metrics, texts = Race(8, seed=3).run(answers, 3, TRUTH, ACCURACY)
    assert answers.asked.max() == 1
    assert answers.asked[[0, 2]].all()
    assert answers.asked[1].sum() == 8
    assert texts == answers.asked.sum()
    assert losses[[0, 2]] == pytest.approx(answers.losses[[0, 2]].mean(axis=1))
    seen = answers.asked[1].astype(bool)
    best = answers.losses[losses[[0, 2]].argmin() * 2]
    assert losses[1] == pytest.approx(best.mean() + (answers.losses[1] - best)[seen].mean())
    assert metrics.tolist() == [1.0, 0.0, 1.0]


def test_equals_are_all_asked_to_the_end() -> None:
    answers = Answers([0.0, 0.0, 0.0], noise=0.0)
    losses, _, texts = Race(8, seed=3).run(answers, 3, TRUTH, ACCURACY)
    assert texts == 3 * EXAMPLES
    assert losses.tolist() == [1.0, 1.0, 1.0]


def test_nobody_drops_out_after_a_handful_of_examples_however_equal_their_differences_are() -> None:
    answers = Answers([0.0, 0.3], noise=0.0)
    Race(2, seed=3).run(answers, 2, TRUTH, ACCURACY)
    assert answers.asked[1].sum() == 8


def test_the_order_of_the_examples_is_that_of_the_seed() -> None:
    first, again, other = Answers([0.0, 1.0]), Answers([0.0, 1.0]), Answers([0.0, 1.0])
    for answers, seed in ((first, 3), (again, 3), (other, 4)):
        Race(8, seed).run(answers, 2, TRUTH, ACCURACY)
    assert (first.asked == again.asked).all()
    assert (first.asked != other.asked).any()
