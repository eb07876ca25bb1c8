"""Views of a run for tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

from bbtune.loop import Generation


class Witness:
    """Keeps the events of a run and what it says, and does something at one of the generations."""

    def __init__(self, number: int | None = None, then: Callable[[], Any] = lambda: None) -> None:
        self._number = number
        self._then = then
        self.events: list[Generation] = []
        self.said: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    def runs(self, done: int, total: int) -> None: ...

    def say(self, text: str) -> None:
        self.said.append(text)

    def event(self, event: Generation) -> None:
        self.events.append(event)
        if event.number == self._number:
            self._then()


def interrupt() -> None:
    raise KeyboardInterrupt
