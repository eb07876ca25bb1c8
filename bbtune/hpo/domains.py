"""What a field may be, and how searchers see it: a number as its share of the way, a choice as its place in a list."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bbtune.combinations import shown
from bbtune.errors import Fault, did_you_mean

_KINDS = ("int", "float", "choice")
_MOST = 1e15  # of a number, beyond which whole ones are no longer told apart
_DIGITS = 4  # of a float: more would be read by nobody, and decide nothing


@dataclass(frozen=True)
class Number:
    """Numbers from low to high, both included.

    A searcher sees the share of the way from low to high, of their logarithms if ``log``. Whole numbers have equal
    parts of that way, so each is as probable as the others, or as its part of the logarithm.
    """

    low: float
    high: float
    log: bool
    whole: bool

    def at(self, share: float) -> float | int:
        """The value at a share of the way, floats to four digits."""
        low, high = self._ends()
        way = low + min(1.0, max(0.0, share)) * (high - low)
        value = math.exp(way) if self.log else way
        if self.whole:
            return int(min(self.high, max(self.low, math.floor(value + 0.5))))
        return float(min(self.high, max(self.low, float(f"{value:.{_DIGITS}g}"))))

    def place(self, value: Any) -> float | None:
        """The share of the way of a value, None of one that is outside."""
        right = isinstance(value, int) if self.whole else isinstance(value, int | float)
        if isinstance(value, bool) or not right or not self.low <= value <= self.high:
            return None
        low, high = self._ends()
        return ((math.log(value) if self.log else value) - low) / (high - low)

    def _ends(self) -> tuple[float, float]:
        room = 0.5 if self.whole else 0.0
        low, high = self.low - room, self.high + room
        return (math.log(low), math.log(high)) if self.log else (low, high)

    @property
    def extremes(self) -> tuple[Any, ...]:
        """Values that show whether all are valid: the ends."""
        return (int(self.low), int(self.high)) if self.whole else (float(self.low), float(self.high))


@dataclass(frozen=True)
class Choice:
    """One of some values, in no order."""

    values: tuple[Any, ...]

    def at(self, place: float) -> Any:
        """The value at a place in the list."""
        return self.values[int(place)]

    def place(self, value: Any) -> float | None:
        """The place of a value in the list, None of one that is not there."""
        return next((float(i) for i, one in enumerate(self.values) if _same(one, value)), None)

    @property
    def extremes(self) -> tuple[Any, ...]:
        """All of them."""
        return self.values


Domain = Number | Choice


def _same(one: Any, other: Any) -> bool:
    """Equal, true and 1 told apart."""
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def read_domain(path: str, raw: Any) -> tuple[Domain | None, list[Fault]]:
    """``{int: [2, 32], log: true}``, ``{float: [0.1, 1]}`` or ``{choice: [a, b]}`` of a space file.

    Args:
        path: of the field, for its faults.
    """
    where = f"parameters.{path}"
    expected = "expected {int: [LOW, HIGH]}, {float: [LOW, HIGH]} or {choice: [VALUE, ...]}"
    if not isinstance(raw, Mapping):
        return None, [Fault(where, f"{expected}, got {shown(raw)}")]
    known = (*_KINDS, "log")
    if unknown := [key for key in raw if key not in known]:
        return None, [Fault(f"{where}.{key}", f"unknown key{did_you_mean(str(key), known)}") for key in unknown]
    kinds = [kind for kind in _KINDS if kind in raw]
    if len(kinds) != 1:
        return None, [Fault(where, f"{expected}, got {shown(dict(raw))}")]
    kind, log = kinds[0], raw.get("log", False)
    if not isinstance(log, bool) or (log and kind == "choice"):
        why = "a choice has no order" if kind == "choice" else "expected true or false"
        return None, [Fault(f"{where}.log", f"{why}, got {shown(log)}")]
    read = _choice if kind == "choice" else _number
    domain, wrong = read(kind, raw[kind], log)
    return domain, [Fault(f"{where}.{kind}", f"{wrong}, got {shown(raw[kind])}")] if wrong else []


def _choice(_: str, values: Any, __: bool) -> tuple[Domain | None, str]:
    if not isinstance(values, list) or len(values) < 2:
        return None, "expected a list of at least two values"
    if any(_same(one, other) for i, one in enumerate(values) for other in values[:i]):
        return None, "expected each value once"
    return Choice(tuple(values)), ""


def _number(kind: str, ends: Any, log: bool) -> tuple[Domain | None, str]:
    types = int if kind == "int" else (int, float)
    right = isinstance(ends, list) and len(ends) == 2
    if not right or any(isinstance(end, bool) or not isinstance(end, types) for end in ends):
        return None, f"expected [LOW, HIGH], {'whole ' if kind == 'int' else ''}numbers"
    if not all(-_MOST <= end <= _MOST for end in ends):
        return None, f"expected numbers from {-_MOST:g} to {_MOST:g}"
    if ends[0] >= ends[1]:
        return None, "expected [LOW, HIGH] with LOW below HIGH"
    if log and ends[0] <= 0:
        return None, "expected LOW above 0 with log: true"
    return Number(ends[0], ends[1], log, kind == "int"), ""
