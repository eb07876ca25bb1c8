"""A loss of text prompts that is known: separable over the slots and the phrases of the instruction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from label_logits import Scored

from bbtune.objective import Subset
from bbtune.optimizers.base import Array
from bbtune.search import Proposal
from bbtune.text_search.choices import Choices, Library
from bbtune.text_search.phrases import phrases
from bbtune.text_search.writer import Ask

WANTED = ("Read the review,", "say whether it is good", "or bad,", "in one word.")
FILLER = ("Be polite.", "think of the weather", "as always,")
GIVEN = (
    "Be polite.",
    "Read the review, think of the weather",
    "say whether it is good as always,",
    "Read the review, or bad, Be polite.",
    "as always, in one word.",
)


def text_loss(text: str) -> float:
    """Between 0 and about 1: the share of wanted phrases that are missing, and a little for every other one."""
    found = phrases(text)
    missing = sum(phrase not in found for phrase in WANTED) / len(WANTED)
    return missing + 0.02 * sum(phrase not in WANTED for phrase in found)


@dataclass(frozen=True)
class Planted:
    """Losses of candidates: of the text, and of every slot by a table; each example has its own offset and noise.

    Attributes:
        choices: the space.
        tables: for each slot, what its numbers add; the least of every slot is 0.
        noise: of one candidate on one example.
        examples: of the train split.
    """

    choices: Choices
    tables: tuple[Array, ...]
    noise: float = 0.0
    examples: int = 24

    def true(self, z: Array) -> Array:
        """Losses (P,) without noise of z (P, 1, D)."""
        found = []
        for instruction, *slots in z[:, 0].astype(int).tolist():
            added = sum(float(table[slot]) for table, slot in zip(self.tables, slots, strict=True))
            found.append(text_loss(self.choices.library[instruction]) + added)
        return np.array(found)

    def scores(self, proposal: Proposal) -> Scored:
        """Of a proposal on its examples."""
        return Scored(self.true(proposal.z) + self._noise(proposal.z, proposal.subset))

    def _noise(self, z: Array, subset: Subset | None) -> Array:
        """Means (P,) over examples; the offset of an example is the same for all candidates."""
        chosen = list(range(self.examples) if subset is None else subset)
        offsets = 5.0 * np.random.default_rng(0).standard_normal(self.examples)
        own = [np.random.default_rng(row.astype(int).ravel()).standard_normal(self.examples) for row in z]
        return np.asarray(self.noise * (offsets + np.array(own))[:, chosen].mean(axis=1))


def plant(sizes: Sequence[int] = (4, 3), given: Sequence[str] = GIVEN, seed: int = 0, noise: float = 0.0) -> Planted:
    """A space of some instructions and slots, with tables by the seed; what a search starts from is not the best."""
    rng = np.random.default_rng(seed)
    tables = []
    for size in sizes:
        table = rng.uniform(0.1, 1.0, size)
        table[0 if size == 1 else rng.integers(1, size)] = 0.0
        tables.append(table)
    return Planted(Choices(Library(given), len(given), tuple(sizes)), tuple(tables), noise)


class PhraseWriter:
    """A writer by rule: it says phrases, those that a vector has above 0 or the seed draws."""

    def __init__(self) -> None:
        self.calls: list[list[Ask]] = []

    def write(self, asks: Sequence[Ask], deadline: float | None = None) -> list[str]:
        """One text for each ask; an empty one where the vector has nothing above 0."""
        self.calls.append(list(asks))
        return [self._text(ask) for ask in asks]

    def _text(self, ask: Ask) -> str:
        every = [*WANTED, *FILLER]
        if ask.kind == "vector":
            return " ".join(phrase for phrase, number in zip(every, ask.vector, strict=False) if number > 0)
        had = dict.fromkeys(phrase for text in ask.texts for phrase in phrases(text))
        kept = [phrase for i, phrase in enumerate(had) if ask.seed >> i & 3]
        return " ".join(dict.fromkeys([*kept, every[ask.seed % len(every)]]))
