"""Few-shot draws: k examples per label, or k in all where answers are words, for train and dev; the rest held out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from bbtune.errors import TaskError
from bbtune.seeds import generator
from bbtune.task.task import Example


@dataclass(frozen=True)
class FewShotTable:
    """A table before any draw; ``test`` is None where no test split is given, labels are none for answers in words."""

    rows: list[Example]
    test: list[Example] | None
    labels: tuple[str, ...]
    place: str


Examples = tuple[Example, ...]


def first_per_label(examples: Sequence[Example], shots: int | None, labels: tuple[str, ...], place: str) -> Examples:
    """The first ``shots`` examples of each label (without labels: of all) in file order; all when it is None."""
    if shots is None:
        return tuple(examples)
    kept = []
    for label, name in enumerate(labels or (None,)):
        of_label = [example for example in examples if example.label == label]
        if len(of_label) < shots:
            of = "" if name is None else f" of label {name!r}"
            raise TaskError(f"{place}: expected {shots} examples{of}, got {len(of_label)}; lower task.shots")
        kept += of_label[:shots]
    chosen = set(map(id, kept))
    return tuple(example for example in examples if id(example) in chosen)


def draw_splits(table: FewShotTable, shots: int, holdout: float, seed: int) -> tuple[Examples, Examples, Examples]:
    """Train, dev and test splits that share no text.

    Repeated texts count once, texts with contradicting labels or answers not at all, and texts of a given test
    split are taken out of the draw. Without a given test split, the share ``holdout`` of every label is held out.

    Raises:
        TaskError: if a label has too few examples.
    """
    rng = generator(seed, "few-shot draw")
    test = _distinct(table.test) if table.test is not None else None
    seen = {_key(example) for example in test or []}
    pool = [example for example in _distinct(table.rows) if _key(example) not in seen]
    train: list[Example] = []
    dev: list[Example] = []
    held: list[Example] = []
    for label, name in enumerate(table.labels or ((None,) if pool else ())):
        of_label = [example for example in pool if example.label == label]
        order = [of_label[i] for i in rng.permutation(len(of_label))]
        cut = 0 if test is not None else min(len(order), max(1, math.floor(len(order) * holdout)))
        if len(order) - cut < 2 * shots:
            what = "the table" if name is None else f"label {name!r}"
            raise TaskError(
                f"{table.place}: {what} has {len(order)} distinct texts, {cut} of them held out for the test; "
                f"expected {2 * shots} more for train and dev; lower task.shots or task.holdout, or add rows"
            )
        held += order[:cut]
        train += order[cut : cut + shots]
        dev += order[cut + shots : cut + 2 * shots]
    return tuple(train), tuple(dev), tuple(test if test is not None else held)


def _key(example: Example) -> tuple[str, str]:
    return example.text.casefold(), (example.text_b or "").casefold()


def _distinct(examples: Sequence[Example]) -> list[Example]:
    truths: dict[tuple[str, str], set[tuple[int, str | None]]] = {}
    first: dict[tuple[str, str], Example] = {}
    for example in examples:
        truths.setdefault(_key(example), set()).add((example.label, example.answer))
        first.setdefault(_key(example), example)
    return [example for key, example in first.items() if len(truths[key]) == 1]
