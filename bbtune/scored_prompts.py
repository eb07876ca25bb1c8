"""Scores of whole prompts by a function of MLflow's, as an evaluator of our loop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bbtune.errors import EvaluationError, hide_credentials
from bbtune.evaluation.base import Scores, Split
from bbtune.journal import now_ms
from bbtune.objective import Subset
from bbtune.target_prompt import TargetPrompt
from bbtune.text_search.choices import Library

Prompts = dict[str, str]  # templates by name
_FAILED = "Failed to invoke the predict_fn with "  # what MLflow takes for the answer of a function that raised


@dataclass(frozen=True)
class _Mark:
    """What prompts got on one example: the score, and that of each scorer."""

    score: float
    each: dict[str, float]


class ScoredPrompts:
    """What prompts get on train data; every prompt is asked once on every example.

    Args:
        eval_fn: of MLflow: scores prompts on records.
        train: records.
    """

    def __init__(
        self, eval_fn: Callable[[Prompts, list[dict[str, Any]]], list[Any]], train: list[dict[str, Any]]
    ) -> None:
        self._eval_fn = eval_fn
        self._train = train
        self._known: dict[tuple[str, ...], dict[int, _Mark]] = {}

    def score(self, prompts: Prompts, examples: Iterable[int] | None) -> tuple[float, int]:
        """The mean score on some examples, None for all, and how many of them had to be asked.

        Raises:
            EvaluationError: if the function fails on one of them, or gives no number.
        """
        chosen = list(range(len(self._train)) if examples is None else examples)
        known = self._known.setdefault(tuple(prompts.values()), {})
        missing = [i for i in chosen if i not in known]
        if missing:
            records = self._eval_fn(dict(prompts), [self._train[i] for i in missing])
            known.update(zip(missing, map(_mark, records), strict=True))
        return fmean(known[i].score for i in chosen), len(missing)

    def mean(self, prompts: Prompts) -> float:
        """The mean score on all examples."""
        return self.score(prompts, None)[0]

    def per_scorer(self, prompts: Prompts) -> dict[str, float]:
        """The mean of each scorer on all examples."""
        self.score(prompts, None)
        marks = list(self._known[tuple(prompts.values())].values())
        names = [name for name in marks[0].each if all(name in mark.each for mark in marks)]
        return {name: fmean(mark.each[name] for mark in marks) for name in names}


class PromptEvaluator:
    """Scores instructions of one prompt, by their numbers; the train data serve as dev, too.

    Args:
        scored: what prompts get.
        others: all prompts, those that stay as they are among them.
        name: of the prompt.
        target: the prompt.
        library: of its instructions.
    """

    def __init__(
        self, scored: ScoredPrompts, others: Mapping[str, str], name: str, target: TargetPrompt, library: Library
    ) -> None:
        self._scored = scored
        self._others = dict(others)
        self._name = name
        self._target = target
        self._library = library
        self._began = time.monotonic()

    def prompts(self, candidate: NDArray[np.float64]) -> Prompts:
        """All prompts, the one with the instruction of a candidate (1, 1)."""
        return self._others | {self._name: self._target.render(self._library[int(candidate[0, 0])])}

    def evaluate(
        self,
        z: NDArray[np.float64],
        split: Split,
        deadline: float | None = None,
        first: int = 0,
        subset: Subset | None = None,
    ) -> Scores:
        """Scores of candidates z (P, 1, 1): the metric is the mean score, the loss what it lacks to 1.

        Args:
            split: of no use here: there are train data alone.
            deadline, first: of no use here.
            subset: examples to score on; None for all.
        """
        found = [self._scored.score(self.prompts(candidate), subset) for candidate in z]
        metric = np.array([score for score, _ in found])
        asked = sum(count for _, count in found)
        return Scores(1.0 - metric, metric, None, asked, 0, time.monotonic() - self._began, now_ms())


def _mark(record: Any) -> _Mark:
    """What MLflow says of one example."""
    if isinstance(record.outputs, str) and record.outputs.startswith(_FAILED):
        said = hide_credentials(record.outputs.removeprefix(_FAILED))[:300]
        raise EvaluationError(
            f"expected an answer of predict_fn, it failed with {said}; mend it, or let it return "
            "something where a prompt may be to blame"
        )
    if record.score is None or not math.isfinite(record.score):
        raise EvaluationError(f"expected a number of the scorers, got {record.score}; give optimize_prompts scorers")
    return _Mark(float(record.score), {name: float(value) for name, value in record.individual_scores.items()})
