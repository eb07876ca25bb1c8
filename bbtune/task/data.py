"""Texts and labels of a task that a Python program gives, in place of a file."""

from __future__ import annotations

import re
from collections.abc import Iterable
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
        TaskError: for a name that a job could not say, or where texts and labels differ in number.
    """

    def __init__(
        self,
        name: str,
        texts: Iterable[str | tuple[str, str]],
        labels: Iterable[Any],
        test: tuple[Iterable[str | tuple[str, str]], Iterable[Any]] | None = None,
    ) -> None:
        if not re.fullmatch(_NAME, name):
            raise TaskError(f"expected a name of letters, digits and . _ - for the task, got {name!r}")
        self.name = name
        self.rows = _rows(name, texts, labels)
        self.test = None if test is None else _rows(f"{name} test", *test)
        self.pairs = any("text_b" in row.values for row in [*self.rows, *(self.test or [])])

    @property
    def source(self) -> str:
        """What a job says of it."""
        return f"object:{self.name}"


def _rows(place: str, texts: Iterable[str | tuple[str, str]], labels: Iterable[Any]) -> list[Row]:
    if isinstance(texts, str) or isinstance(labels, str):
        raise TaskError(f"{place}: expected a list of texts and one of labels, got {texts!r} and {labels!r}")
    some, truths = list(texts), list(labels)
    if len(some) != len(truths) or not some:
        raise TaskError(f"{place}: expected as many labels as texts, got {len(truths)} for {len(some)} texts")
    return [Row(f"{place}, text {i}", _values(*pair)) for i, pair in enumerate(zip(some, truths, strict=True))]


def _values(text: Any, label: Any) -> dict[str, Any]:
    plain = label.item() if isinstance(label, np.generic) else label
    if not isinstance(text, tuple | list):
        return {"text": text, "label": plain}
    if len(text) != 2:
        raise TaskError(f"expected a text, or a pair of texts as a tuple of two, got {text!r}")
    return {"text": text[0], "text_b": text[1], "label": plain}
