"""Edits of the incumbent's phrases (GrIPS)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from bbtune.text_search.base import Candidate
from bbtune.text_search.drafts import Draft, WritingSearch
from bbtune.text_search.writer import Ask


class Edits(WritingSearch):
    """Hill climbing by phrases: one is deleted, two are swapped, one is put back, or the whole is said otherwise.

    Prasad et al. 2022, GrIPS: Gradient-free, edit-based instruction search, arXiv 2203.07281. Phrases are cut at
    punctuation and small words instead of by a parser, slots are changed one at a time beside the instruction, and
    candidates of which all are known are replaced by some drawn from the whole space.
    """

    def _propose(self, wanted: int) -> Iterator[Candidate]:
        if self._writer is not None:
            yield from self._written([self._neighbour(self._said_otherwise) for _ in range(wanted)])
        while True:
            yield from self._written([self._neighbour(self._edited)])

    def _neighbour(self, change: Callable[[int], int | Ask]) -> Draft:
        """The incumbent with another instruction or in another slot, now and then both."""
        candidate = self._incumbent
        of_instruction = max(self._choices.sizes, default=1) < 2 or self._rng.random() < 0.5
        if not of_instruction or self._rng.random() < 0.25:
            candidate = self._with_other_slot(candidate)
        return Draft(change(candidate[0]) if of_instruction else candidate[0], candidate[1:])

    def _said_otherwise(self, number: int) -> int | Ask:
        """A paraphrase, every other time an edit."""
        return self._wish(number) if self._rng.random() < 0.5 else self._edited(number)
