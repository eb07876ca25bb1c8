"""Instructions as phrases, and what can be done with them without a model."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from bbtune.text_search.choices import Choices

_BREAK = re.compile(r"(?<=[.,;:!?])\s+")
# A phrase begins at one of these, unless the one before it would hold nothing but such words.
# fmt: off
_OPENERS = frozenset({
    "about", "after", "and", "as", "at", "because", "before", "between", "but", "by", "each", "for", "from", "if", "in",
    "into", "of", "on", "or", "so", "than", "that", "then", "to", "when", "where", "whether", "which", "while", "who",
    "whose", "with", "without",
})
# fmt: on
_LEAST_ROOM = 24  # words that an instruction may have, however short the given ones are


def phrases(text: str) -> list[str]:
    """The phrases of a text, in order: it is cut behind punctuation and before small words that open a phrase."""
    return [phrase for part in _BREAK.split(text.strip()) for phrase in _cut(part.split())]


def _cut(words: Sequence[str]) -> list[str]:
    found: list[list[str]] = []
    for word in words:
        opens = word.lower() in _OPENERS
        if not found or (opens and any(other.lower() not in _OPENERS for other in found[-1])):
            found.append([])
        found[-1].append(word)
    return [" ".join(phrase) for phrase in found]


class Editor:
    """Edits of instructions by phrases: GrIPS without its paraphrases (Prasad et al. 2022, arXiv 2203.07281).

    Args:
        choices: whose given instructions lend their phrases.
        rng: private generator.
    """

    def __init__(self, choices: Choices, rng: np.random.Generator) -> None:
        given = [choices.library[i] for i in range(choices.given)]
        self._rng = rng
        self._pool = list(dict.fromkeys(phrase for text in given for phrase in phrases(text)))
        self._most_words = max(_LEAST_ROOM, 2 * max(len(text.split()) for text in given))

    def edit(self, text: str) -> str:
        """The text with one phrase less, one more, or two in each other's place."""
        parts = phrases(text)
        edits = [self._added] if len(parts) < 2 else [self._deleted, self._swapped, self._added]
        edited = edits[int(self._rng.integers(len(edits)))](parts)
        if len(parts) > 1 and len(" ".join(edited).split()) > self._most_words:
            edited = self._deleted(parts)
        return " ".join(" ".join(edited).split()[: self._most_words])

    def cross(self, one: str, other: str) -> str:
        """The first phrases of one text and the last of another; all of one that is the only text."""
        head, tail = phrases(one), phrases(other)
        if not head or not tail:
            return one or other
        head = head[: self._index(head) + 1]
        crossed = head + [phrase for phrase in tail[self._index(tail) :] if phrase not in head]
        return " ".join(" ".join(crossed).split()[: self._most_words])

    def _deleted(self, parts: Sequence[str]) -> list[str]:
        i = self._index(parts)
        if parts[i] not in self._pool:
            self._pool.append(parts[i])
        return [*parts[:i], *parts[i + 1 :]]

    def _swapped(self, parts: Sequence[str]) -> list[str]:
        i, j = sorted(int(k) for k in self._rng.choice(len(parts), size=2, replace=False))
        return [*parts[:i], parts[j], *parts[i + 1 : j], parts[i], *parts[j + 1 :]]

    def _added(self, parts: Sequence[str]) -> list[str]:
        """With a phrase that was deleted before, or that a given instruction has."""
        absent = [phrase for phrase in self._pool if phrase not in parts]
        if not absent:
            return list(parts)
        place = int(self._rng.integers(len(parts) + 1))
        return [*parts[:place], absent[self._index(absent)], *parts[place:]]

    def _index(self, of: Sequence[str]) -> int:
        return int(self._rng.integers(len(of)))
