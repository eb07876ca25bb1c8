"""Who writes new instructions for a search: a language model, here or behind an API."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol


@dataclass(frozen=True)
class Ask:
    """A wish for one instruction.

    Attributes:
        kind: ``paraphrase`` one text, ``combine`` two, or put a ``vector`` into words (InstructZero).
        texts: to start from.
        vector: (d,) numbers.
        seed: of the sampling.
    """

    kind: Literal["paraphrase", "combine", "vector"]
    texts: tuple[str, ...] = ()
    vector: tuple[float, ...] = ()
    seed: int = 0


class Writer(Protocol):
    """Writes instructions; the same asks give the same texts."""

    def write(self, asks: Sequence[Ask]) -> list[str]:
        """One text for each ask; an empty one where nothing of use came."""


class TimedWriter(Protocol):
    """A writer that may run out of time."""

    def write(self, asks: Sequence[Ask], deadline: float | None = None) -> list[str]:
        """One text for each ask.

        Args:
            deadline: on the clock of :func:`time.monotonic`; passing it raises DeadlineReached, a cap on money
                BudgetReached.
        """
