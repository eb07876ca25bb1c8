"""What a search hands out."""

from __future__ import annotations

import numpy as np
import pytest

from bbtune.evaluation.base import Scores
from bbtune.selection import Selection

START = np.zeros((3, 2))


def scores(loss: float, metric: float) -> Scores:
    return Scores(np.array([loss]), np.array([metric]), None, 1, 1)


def point(value: float, layers: slice = slice(None)) -> np.ndarray:
    z = START.copy()
    z[layers] = value
    return z


@pytest.mark.parametrize(("by", "best"), [("metric", 1.0), ("loss", 2.0), ("last", 3.0)])
def test_the_rule_decides_between_metric_loss_and_the_latest(by, best):
    selection = Selection(START, by)
    for value, loss, metric in [(1.0, 0.5, 0.9), (2.0, 0.4, 0.8), (3.0, 0.6, 0.7)]:
        selection.judge(point(value), scores(loss, metric))
    np.testing.assert_array_equal(selection.z, point(best))


@pytest.mark.parametrize(("by", "second"), [("metric", (0.4, 0.9)), ("loss", (0.5, 0.95))])
def test_ties_are_broken_by_the_other_one(by, second):
    selection = Selection(START, by)
    selection.judge(point(1.0), scores(0.5, 0.9))
    assert selection.judge(point(2.0), scores(*second)).selected
    assert not selection.judge(point(3.0), scores(*second)).selected


def test_the_mean_of_the_last_incumbents_is_judged_without_the_start():
    selection = Selection(START, average=2)
    asked = [selection.next(point(value)) for value in (0.0, 1.0, 3.0, 3.0, 7.0)]
    assert asked[3] is None
    np.testing.assert_array_equal([a[0][0, 0] for a in asked if a is not None], [0.0, 1.0, 2.0, 5.0])


def test_the_lowest_layer_that_differs_is_told():
    selection = Selection(START)
    assert selection.next(START)[1] == 0
    assert selection.next(point(1.0, slice(2, 3)))[1] == 2
    assert selection.next(point(2.0, slice(1, 2)))[1] == 1
    assert selection.next(point(2.0, slice(1, 2))) is None


def test_patience_counts_judgements_since_the_best():
    selection = Selection(START, patience=2)
    reasons = []
    for loss in (0.5, 0.6, 0.4, 0.5, 0.5):
        selection.judge(START, scores(loss, 1 - loss))
        reasons.append(selection.stop_reason())
    assert reasons == [None, None, None, None, "selection.patience"]
    assert Selection(START).stop_reason() is None
