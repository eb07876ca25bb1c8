"""Candidates whose instruction may still have to be written, by a model or by edits of phrases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bbtune.text_search.base import Candidate, TextSearch
from bbtune.text_search.choices import Choices
from bbtune.text_search.phrases import Editor
from bbtune.text_search.writer import Ask, Writer

_SEEDS = 2**31  # servers take no larger ones


@dataclass(frozen=True)
class Draft:
    """A candidate before its instruction is written.

    Attributes:
        instruction: its number, or the wish for it.
        slots: one number each.
    """

    instruction: int | Ask
    slots: Candidate


class WritingSearch(TextSearch):
    """A search that makes new instructions: by phrases, and by a writer where there is one.

    Args:
        choices: the space; new instructions are entered in its library.
        population: P.
        rng: private generator.
        writer: asked once in a generation; None to edit phrases alone.
    """

    opens = True

    def __init__(
        self, choices: Choices, population: int, rng: np.random.Generator, writer: Writer | None = None
    ) -> None:
        super().__init__(choices, population, rng)
        self._writer = writer
        self._editor = Editor(choices, rng)
        self.patience = 1 if writer is None else 3  # a writer asked again writes something else

    def _texts(self, asks: Sequence[Ask]) -> list[str]:
        """What the writer gives for wishes; no wishes cost nothing."""
        return self._writer.write(asks) if self._writer is not None and asks else []

    def _written(self, drafts: Sequence[Draft]) -> list[Candidate]:
        """The candidates of drafts, without those for which the writer found no words."""
        texts = iter(self._texts([draft.instruction for draft in drafts if isinstance(draft.instruction, Ask)]))
        found = []
        for draft in drafts:
            if not isinstance(draft.instruction, Ask):
                found.append((draft.instruction, *draft.slots))
            elif (text := next(texts)).strip():
                found.append((self._choices.library.add(text), *draft.slots))
        return found

    def _wish(self, *numbers: int) -> int | Ask:
        """A wish for an instruction made from others: of one a paraphrase; an edit where none of them has words."""
        texts = tuple(text for number in numbers if (text := self._choices.library[number]))
        if not texts:
            return self._edited(numbers[0])
        seed = int(self._rng.integers(_SEEDS))
        return Ask("paraphrase" if len(texts) == 1 else "combine", texts, seed=seed)

    def _edited(self, number: int) -> int:
        """The number of an instruction like another: with other phrases, or now and then another of those given."""
        given = self._choices.given
        if given > 1 and self._rng.random() < 0.25:
            return int(self._rng.integers(given))
        return self._choices.library.add(self._editor.edit(self._choices.library[number]))
