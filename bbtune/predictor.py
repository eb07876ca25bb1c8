"""Use a tuned prompt: texts in, labels out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bbtune.errors import BbtuneError
from bbtune.evaluation.evaluator import PromptEvaluator
from bbtune.evaluation.local import LocalPool
from bbtune.plan import make_plan
from bbtune.result import TuneResult
from bbtune.task.task import Example


@dataclass(frozen=True)
class Prediction:
    """A label and its probability among the labels."""

    label: str
    probability: float


class Predictor:
    """The frozen model with the tuned prompt, loaded once."""

    def __init__(self, result: TuneResult) -> None:
        plan, task, _ = make_plan(result.spec)
        self._labels = result.labels
        self._kind = task.kind
        self._evaluator = PromptEvaluator(LocalPool(plan), plan, task.metric, result.scales)
        self._z = result.z

    def predict(self, texts: Sequence[str | tuple[str, str]]) -> list[Prediction]:
        """Labels of texts, or of pairs of texts for a task of pairs.

        Raises:
            BbtuneError: for a text where a pair is expected, the other way round, or an empty text.
        """
        examples = [self._example(text) for text in texts]
        if not examples:
            return []
        logits = self._evaluator.label_logits(self._z, examples).astype(np.float64)
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        return [Prediction(self._labels[i], float(share[i])) for share, i in zip(shares, logits.argmax(1), strict=True)]

    def _example(self, text: str | tuple[str, str]) -> Example:
        parts = (text,) if isinstance(text, str) else tuple(text)
        expected = 2 if self._kind == "pair" else 1
        if len(parts) != expected or not all(part.strip() for part in parts):
            what = "a pair of texts" if expected == 2 else "one text"
            raise BbtuneError(f"expected {what} that is not empty, got {text!r}")
        return Example(parts[0], parts[1] if expected == 2 else None, 0)
