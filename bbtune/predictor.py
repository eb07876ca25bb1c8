"""Use a tuned prompt: texts in, labels out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bbtune.backbone.sources import read_model_card
from bbtune.errors import BbtuneError
from bbtune.evaluation.evaluator import PromptEvaluator
from bbtune.evaluation.local import LocalPool
from bbtune.plan import Plan, tuned_layers
from bbtune.result import TuneResult
from bbtune.task.metrics import Metric
from bbtune.task.task import Example
from bbtune.task.template import Template


@dataclass(frozen=True)
class Prediction:
    """A label and its probability among the labels."""

    label: str
    probability: float


class Predictor:
    """The frozen model with the tuned prompt, loaded once; the task's data are not needed.

    ``kind`` is ``"single"`` or ``"pair"``.
    """

    def __init__(self, result: TuneResult) -> None:
        reading, card = result.reading, read_model_card(result.spec.backbone)
        template = Template(reading.template, reading.kind)
        layers = tuned_layers(result.spec.prompt, card)
        plan = Plan(result.spec, reading.kind, template, reading.label_words, layers, card.layer_count, (), ())
        self._labels = result.labels
        self.kind = reading.kind
        metric = Metric("accuracy", len(result.labels))
        self._evaluator = PromptEvaluator(LocalPool(plan), plan, metric, result.scales, together=1)
        self._z = result.z

    def predict(self, texts: Sequence[str | tuple[str, ...]]) -> list[Prediction]:
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

    def _example(self, text: str | tuple[str, ...]) -> Example:
        parts = (text,) if isinstance(text, str) else tuple(text)
        expected = 2 if self.kind == "pair" else 1
        if len(parts) != expected or not all(part.strip() for part in parts):
            what = "a pair of texts" if expected == 2 else "one text"
            raise BbtuneError(f"expected {what} that is not empty, got {text!r}")
        clean = [" ".join(part.split()) for part in parts]  # as the rows of a task are read
        return Example(clean[0], clean[1] if expected == 2 else None, 0)
