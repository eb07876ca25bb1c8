"""Texts and labels of a task that a Python program gives, in place of a file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from math import isnan
from typing import Any

import numpy as np

from bbtune.errors import TaskError
from bbtune.task.rows import Row

_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"


class TaskData:
    """A task in memory; the few-shot draw, the metric and the template are the job's, as for a table.

    Args:
        name: of the task; the job says ``task.source: object:NAME``.
        texts: N of them; pairs of texts as tuples.
        labels: N, names or numbers; answers where the job's metric is one of answers in words.
        test: texts and labels of the test split; without it the job's share of every label is held out.

    Attributes:
        name: as given.
        rows, test: what a table would hold; test is None where none is given.
        pairs: whether the texts are pairs.

    Raises:
        TaskError: for a name that a job could not say, where texts and labels differ in number, or for a label that
            is no name or number. An empty text, or a missing label, is a fault of the job that uses the data.
    """

    def __init__(
        self,
        name: str,
        texts: Iterable[str | tuple[str, str]],
        labels: Iterable[Any],
        test: tuple[Iterable[str | tuple[str, str]], Iterable[Any]] | None = None,
    ) -> None:
        if not isinstance(name, str) or not re.fullmatch(_NAME, name):
            raise TaskError(f"expected a name of letters, digits and . _ - for the task, got {name!r}")
        self.name = name
        self.rows = _rows(name, texts, labels)
        if test is not None and (not isinstance(test, tuple | list) or len(test) != 2):
            raise TaskError(f"{name} test: expected (texts, labels), got {test!r:.80}")
        self.test = None if test is None else _rows(f"{name} test", *test)
        self.pairs = any("text_b" in row.values for row in [*self.rows, *(self.test or [])])

    @property
    def source(self) -> str:
        """What a job says of it."""
        return f"object:{self.name}"


def _rows(place: str, texts: Iterable[str | tuple[str, str]], labels: Iterable[Any]) -> list[Row]:
    if any(isinstance(given, str | Mapping) or not isinstance(given, Iterable) for given in (texts, labels)):
        raise TaskError(f"{place}: expected a list of texts and one of labels, got {texts!r:.80} and {labels!r:.80}")
    some, truths = list(texts), list(labels)
    if not some:
        raise TaskError(f"{place}: expected at least one text, got none")
    if len(some) != len(truths):
        raise TaskError(f"{place}: expected as many labels as texts, got {len(truths)} for {len(some)} texts")
    pairs = enumerate(zip(some, truths, strict=True))
    return [Row(of, _values(of, *pair)) for of, pair in ((f"{place}, text {i}", pair) for i, pair in pairs)]


def _values(place: str, text: Any, label: Any) -> dict[str, Any]:
    plain = label.item() if isinstance(label, np.generic) else label
    if plain is not None and not isinstance(plain, str | int | float):
        raise TaskError(f"{place}: expected a name or a number as its label, got {label!r:.80}")
    if isinstance(plain, float) and isnan(plain):  # how a data frame says that there is none
        plain = None
    if not isinstance(text, tuple | list):
        return {"text": text, "label": plain}
    if len(text) != 2:
        raise TaskError(f"{place}: expected a text, or a pair of texts as a tuple of two, got {text!r:.80}")
    return {"text": text[0], "text_b": text[1], "label": plain}
