"""A few-shot task, ready to be put to a model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bbtune.errors import TaskError
from bbtune.task.metrics import Labels, Metric
from bbtune.task.verbalizer import Words


@dataclass(frozen=True)
class Example:
    """One text, or pair of texts, and what is true of it.

    Attributes:
        label: position in the task's labels; 0 where the answer is words.
        answer: in words, or a pattern of it; None where it is a label.
    """

    text: str
    text_b: str | None
    label: int
    answer: str | None = None

    def fields(self) -> dict[str, str]:
        """Template fields and their texts."""
        return {"text": self.text} if self.text_b is None else {"text_a": self.text, "text_b": self.text_b}


@dataclass(frozen=True)
class Task:
    """Splits, labels and metric of one task, with what its source suggests for template and label words.

    Attributes:
        kind: ``"single"`` or ``"pair"``.
        labels: C label names; none where answers are words.
        template: suggested by the source, None where it suggests none.
        label_words: suggested words per label, None where the source suggests none.
        train, dev: N examples each; test: scored once, after the search, and never handed to an evaluator.
    """

    name: str
    kind: str
    labels: tuple[str, ...]
    metric: Metric
    train: tuple[Example, ...]
    dev: tuple[Example, ...]
    test: tuple[Example, ...]
    template: str | None = None
    label_words: Words | None = None

    def __post_init__(self) -> None:
        for split, examples in (("train", self.train), ("dev", self.dev), ("test", self.test)):
            if not examples:
                raise TaskError(f"task {self.name}: expected at least one {split} example, got none")
        if len(self.labels) < 2 and not self.metric.free_form:
            raise TaskError(f"task {self.name}: expected at least two labels, got {list(self.labels)}")

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of examples, labels, metric and card: another draw, or a changed file, gives another one."""
        splits = [_said(split) for split in (self.train, self.dev, self.test)]
        said = [self.labels, asdict(self.metric), self.template, self.label_words, *splits]
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()

    @property
    def test_fingerprint(self) -> str:
        """SHA-256 (hex) of the test split: results with the same one can be compared example by example."""
        said = [self.labels, _said(self.test)]
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()


def label_array(examples: Sequence[Example]) -> NDArray[np.int64]:
    """Labels (N,) of examples."""
    return np.array([example.label for example in examples], dtype=np.int64)


def truth_array(examples: Sequence[Example]) -> Labels:
    """What a perfect prediction (N,) of examples is: their labels, or for answers in words the score 1."""
    if any(example.answer is not None for example in examples):
        return np.ones(len(examples))
    return label_array(examples)


def _said(split: Sequence[Example]) -> list[dict[str, Any]]:
    """Examples as JSON; those with labels as they were before there were answers."""
    return [{k: v for k, v in asdict(example).items() if k != "answer" or v is not None} for example in split]
