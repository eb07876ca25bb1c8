"""One thing that was looked at."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """What was looked at, what was seen, and what to do if that is a problem.

    Args:
        what: a word or two.
        seen: in words.
        todo: the next step; empty where there is no problem.
    """

    what: str
    seen: str
    todo: str = ""

    def __str__(self) -> str:
        first = f"{'problem' if self.todo else 'ok':<8}{self.what:<13}{self.seen}"
        return f"{first}\n        -> {self.todo}" if self.todo else first
