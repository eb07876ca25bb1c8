"""The honest part: test data, scored once, after the search, beside what costs nothing."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bbtune.evaluation.evaluator import PromptEvaluator
from bbtune.result import Scored
from bbtune.seeds import generator
from bbtune.task.metrics import Estimate, Labels, gain_with_interval, score_with_interval
from bbtune.task.task import Task, label_array


def _best_constant(task: Task) -> int:
    """The label that scores best on the test split when it is always given: the majority class, for accuracy.

    Few-shot train splits are balanced, so only the test split knows its majority class; taking it in hindsight makes
    the baseline the strongest of its kind.
    """
    truth = label_array(task.test)
    return int(np.argmax([task.metric(truth, np.full_like(truth, label)) for label in range(len(task.labels))]))


def assess(
    evaluator: PromptEvaluator, task: Task, z: NDArray[np.float64], seed: int
) -> tuple[dict[str, Scored], Estimate]:
    """Scores of majority class, untouched model and tuned model, and the gain of the last over the second.

    Args:
        z: (L, D), the selected prompt.
        seed: of the bootstrap.

    Returns:
        Scores on dev and test by name, and tuned - zero_shot on test.
    """
    constant = _best_constant(task)
    predicted: dict[str, dict[str, Labels]] = {"majority": {}, "zero_shot": {}, "tuned": {}}
    truth: dict[str, Labels] = {}
    for split, examples in (("dev", task.dev), ("test", task.test)):
        truth[split] = label_array(examples)
        predicted["majority"][split] = np.full(len(examples), constant, dtype=np.int64)
        predicted["zero_shot"][split] = evaluator.label_logits(None, examples).argmax(axis=-1)
        predicted["tuned"][split] = evaluator.label_logits(z, examples).argmax(axis=-1)

    def scored(name: str, split: str) -> Estimate:
        return score_with_interval(
            task.metric, truth[split], predicted[name][split], generator(seed, "bootstrap", name, split)
        )

    gain = gain_with_interval(
        task.metric,
        truth["test"],
        predicted["zero_shot"]["test"],
        predicted["tuned"]["test"],
        generator(seed, "bootstrap", "gain"),
    )
    return {name: Scored(scored(name, "dev"), scored(name, "test")) for name in predicted}, gain
