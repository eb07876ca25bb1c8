"""What workers that train tell, on its way to who waits for it; an actor of its own, which knows no model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bbtune.errors import BbtuneError
from bbtune.loop import Cost


@dataclass(frozen=True)
class Ended:
    """What the first worker says at the end.

    Attributes:
        peak_memory: bytes, of the worker that has used most.
    """

    reason: str
    cost: Cost
    parameters: int
    peak_memory: int


class Inbox:
    """Holds what is told until it is collected; once closed, the workers are to stop."""

    def __init__(self) -> None:
        self._items: list[Any] = []
        self._open = True

    def is_open(self) -> bool:
        """Whether somebody waits for what is told."""
        return self._open

    def close(self) -> None:
        """Nobody waits any more."""
        self._open = False

    def put(self, item: Any) -> bool:
        """Tell of a step, of the end, or of an error, which closes it; returns whether it is open."""
        self._items.append(item)
        self._open = self._open and not isinstance(item, BbtuneError)
        return self._open

    def take(self) -> list[Any]:
        """What was told since the last time, in order."""
        items, self._items = self._items, []
        return items
