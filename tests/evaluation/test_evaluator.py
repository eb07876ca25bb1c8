"""What the evaluator asks of a pool, and what it makes of the answers; no model is needed for that."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bbtune.cost import Sizes
from bbtune.errors import EvaluationError
from bbtune.evaluation.evaluator import PromptEvaluator
from bbtune.objective import Objective
from bbtune.task.metrics import Metric
from bbtune.task.task import Example

LAYERS, DIM, DEPTH, TUNED = 3, 2, 8, (1, 4, 6)
SCALES = np.array([1.0, 2.0, 0.5])
TRAIN = tuple(Example(f"text {i}", None, i % 2) for i in range(5))
DEV = TRAIN[:3]


class FakePool:
    """Label logits that are a function of each candidate's numbers alone."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.deadlines: list[float | None] = []

    def run(self, method: str, calls: Any, deadline: float | None = None) -> list[Any]:
        assert method == "candidates"
        self.calls += calls
        self.deadlines.append(deadline)
        return [
            np.stack([logits(one, split)[list(subset) if subset else ...] for one in z])
            for z, split, _, subset in calls
        ]

    def close(self) -> None: ...


def logits(scaled: Any, split: str) -> Any:
    """(N, C) of one scaled z (L, D)."""
    rows = np.arange(len(TRAIN if split == "train" else DEV))[:, None]
    return (np.cos(rows + scaled.sum()) * np.array([1.0, -1.0])).astype(np.float32)


def make_evaluator(pool: FakePool, together: int) -> PromptEvaluator:
    plan: Any = SimpleNamespace(
        spec=SimpleNamespace(method=SimpleNamespace(loss="cross-entropy")),
        train=TRAIN,
        dev=DEV,
        sizes=Sizes(len(TRAIN), len(DEV), TUNED, DEPTH),
    )
    return PromptEvaluator(pool, plan, Metric("accuracy", 2), SCALES, together)


def candidates(count: int, first: int = 0) -> Any:
    z = np.zeros((count, LAYERS, DIM))
    z[:, first:] = np.random.default_rng(0).standard_normal((count, LAYERS - first, DIM))
    return z


@pytest.mark.parametrize(
    ("together", "sizes"), [(1, [1, 1, 1, 1, 1, 1, 1]), (2, [2, 2, 2, 1]), (3, [3, 3, 1]), (7, [7]), (64, [7])]
)
def test_a_call_holds_so_many_candidates_in_a_row_and_scores_do_not_depend_on_it(
    together: int, sizes: list[int]
) -> None:
    pool, z = FakePool(), candidates(7, first=1)
    scores = make_evaluator(pool, together).evaluate(z, "train", 12.5, first=1)
    assert [len(group) for group, *_ in pool.calls] == sizes
    assert {(split, first, subset) for _, split, first, subset in pool.calls} == {("train", 1, None)}
    np.testing.assert_array_equal(np.concatenate([group for group, *_ in pool.calls]), z * SCALES[None, :, None])
    assert pool.deadlines == [12.5]
    expected = np.stack([logits(one, "train") for one in z * SCALES[None, :, None]])
    assert scores.logits is not None
    np.testing.assert_array_equal(scores.logits, expected)
    assert scores.logits.shape == (7, len(TRAIN), 2)
    objective = Objective(np.array([example.label for example in TRAIN]), "cross-entropy")
    np.testing.assert_array_equal(scores.loss, objective(expected))
    assert scores.metric.shape == (7,)


@pytest.mark.parametrize("together", [1, 4])
@pytest.mark.parametrize(("split", "texts"), [("train", 5), ("dev", 3)])
@pytest.mark.parametrize("first", [0, 1, 2])
def test_the_cost_is_counted_once_per_call_however_it_is_cut(together: int, split: Any, texts: int, first: int) -> None:
    scores = make_evaluator(FakePool(), together).evaluate(candidates(4, first), split, first=first)
    assert scores.examples == 4 * texts
    assert scores.layer_forwards == texts * (4 * (DEPTH - TUNED[first]) + TUNED[first])


@pytest.mark.parametrize("subset", [(1,), (0, 3), (0, 1, 2, 3, 4)])
def test_scores_on_a_part_of_the_examples_are_of_those_alone(subset: tuple[int, ...]) -> None:
    evaluator, z = make_evaluator(FakePool(), 2), candidates(3, first=1)
    scores, whole = evaluator.evaluate(z, "train", first=1, subset=subset), evaluator.evaluate(z, "train", first=1)
    assert scores.logits is not None
    assert whole.logits is not None
    np.testing.assert_array_equal(scores.logits, whole.logits[:, list(subset)])
    labels = np.array([TRAIN[i].label for i in subset])
    np.testing.assert_array_equal(scores.loss, Objective(labels, "cross-entropy")(scores.logits))
    np.testing.assert_array_equal(scores.metric, (scores.logits.argmax(axis=2) == labels).mean(axis=1))
    assert scores.examples == 3 * len(subset)
    assert scores.layer_forwards == len(subset) * (3 * (DEPTH - TUNED[1]) + TUNED[1])


@pytest.mark.parametrize(("first", "differ"), [(1, [0, 1, 2]), (2, [1, 2]), (3, [2]), (-1, [0, 1, 2])])
def test_candidates_that_differ_below_first_are_refused(first: int, differ: list[int]) -> None:
    pool = FakePool()
    with pytest.raises(EvaluationError) as caught:
        make_evaluator(pool, 2).evaluate(candidates(4, differ[0]), "train", first=first)
    assert f"an index of the 3 tuned layers, and no candidates may differ below it; got {first}" in str(caught.value)
    assert f"they differ in {differ}" in str(caught.value)
    assert pool.calls == []


def test_z_of_another_shape_is_refused() -> None:
    with pytest.raises(EvaluationError, match=r"z must have shape \(P, L, D\) with L = 3, got \(4, 2, 2\)"):
        make_evaluator(FakePool(), 1).evaluate(np.zeros((4, 2, 2)), "train")
