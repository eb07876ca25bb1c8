"""What a text prompt is made of, as numbers: which instruction, and what stands in every slot."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


class Library:
    """Instructions by number, in the order in which they came; the first is the one that a search starts from.

    Args:
        texts: at least one.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts: list[str] = []
        self._numbers: dict[str, int] = {}
        for text in texts:
            self.add(text)

    def add(self, text: str) -> int:
        """The number of a text, which is entered when it is new; runs of white space count as one space."""
        clean = " ".join(text.split())
        if clean not in self._numbers:
            self._numbers[clean] = len(self._texts)
            self._texts.append(clean)
        return self._numbers[clean]

    def __getitem__(self, number: int) -> str:
        return self._texts[number]

    def __len__(self) -> int:
        return len(self._texts)


@dataclass(frozen=True)
class Choices:
    """The space of a text search: a candidate is (D,) whole numbers, an instruction and one for each slot.

    Attributes:
        library: of instructions; searches that write new ones enter them here.
        given: how many instructions the job gave; the others came later.
        sizes: of the slots; each holds 0 to size - 1, and 0 is what the search starts from (nothing, or as given).
    """

    library: Library
    given: int
    sizes: tuple[int, ...]

    @property
    def dim(self) -> int:
        """D."""
        return 1 + len(self.sizes)
