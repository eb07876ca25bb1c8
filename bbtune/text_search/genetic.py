"""A population of prompts that cross and mutate (EvoPrompt)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from bbtune.text_search.base import Candidate
from bbtune.text_search.drafts import Draft, WritingSearch
from bbtune.text_search.writer import Ask


class Genetic(WritingSearch):
    """A genetic algorithm: tournaments among the best so far, crossing of slots and instructions, mutation.

    Guo et al. 2023, Connecting large language models with evolutionary algorithms yields powerful prompt optimizers,
    arXiv 2309.08532. The writer combines and paraphrases; without one, instructions cross and change by phrases.
    The parents are the P candidates with the lowest levels, the incumbent among them.
    """

    def _propose(self, wanted: int) -> Iterator[Candidate]:
        parents = sorted(self._levels, key=self._levels.__getitem__)[: self._population]
        if len(parents) < 2:
            yield from (self._first() for _ in range(4 * wanted))
        if self._writer is not None:
            yield from self._written([self._child(parents, self._by_writer) for _ in range(wanted)])
        while True:
            yield from self._written([self._child(parents, self._by_phrases)])

    def _first(self) -> Candidate:
        """One of the first generation: a given instruction, and every other slot as the search starts."""
        instruction = int(self._rng.integers(self._choices.given))
        slots = (int(self._rng.integers(size)) if self._rng.random() < 0.5 else 0 for size in self._choices.sizes)
        return instruction, *slots

    def _child(self, parents: Sequence[Candidate], beget: Callable[[int, int], int | Ask]) -> Draft:
        """Slots from either parent, mutated once in the mean; the instruction of one, or a new one from both."""
        one, other = self._parent(parents), self._parent(parents)
        pairs = zip(one[1:], other[1:], strict=True)
        slots = [mine if self._rng.random() < 0.5 else theirs for mine, theirs in pairs]
        for i in range(len(slots)):
            if self._rng.random() < 1 / len(slots):
                slots[i] = self._other(1 + i, slots[i])
        new = not slots or self._rng.random() < 0.5
        return Draft(beget(one[0], other[0]) if new else one[0], tuple(slots))

    def _parent(self, parents: Sequence[Candidate]) -> Candidate:
        """The better of two, drawn with equal chances; parents stand in the order of their levels."""
        return parents[int(self._rng.integers(len(parents), size=2).min())]

    def _by_writer(self, one: int, other: int) -> int | Ask:
        if self._rng.random() < 0.25:
            return self._edited(one)
        if one == other or self._rng.random() < 0.5:
            return self._wish(one)
        return self._wish(one, other)

    def _by_phrases(self, one: int, other: int) -> int:
        if one == other or self._rng.random() < 0.5:
            return self._edited(one)
        library = self._choices.library
        return library.add(self._editor.cross(library[one], library[other]))
