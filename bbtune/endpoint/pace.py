"""How fast a process may ask: requests and tokens in any 60 seconds, and pauses that a server asks for."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock

WINDOW_S = 60.0


@dataclass(eq=False)
class Slot:
    """One request in the window.

    Attributes:
        at: seconds, on the clock of the pace.
        tokens: the most that it can cost, corrected once its answer is there.
    """

    at: float
    tokens: int


class Pace:
    """The one owner of the limits of an endpoint in a process.

    Args:
        requests_per_minute, tokens_per_minute: None for no limit.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        requests_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._requests, self._tokens = requests_per_minute, tokens_per_minute
        self._clock = clock
        self._lock = Lock()
        self._window: deque[Slot] = deque()
        self._not_before = clock()

    def take(self, tokens: int, pause: Callable[[float], None]) -> Slot:
        """Wait for one's turn.

        Args:
            tokens: the most that the request can cost.
            pause: waits for so many seconds; raises to end the waiting.
        """
        while True:
            with self._lock:
                now = self._clock()
                wait_s = self._wait_s(now, tokens)
                if wait_s <= 0:
                    slot = Slot(now, tokens)
                    self._window.append(slot)
                    return slot
            pause(wait_s)

    def leave(self, slot: Slot) -> None:
        """The request leaves now, which may be later than its turn came: it waited for money, too."""
        with self._lock:
            if slot in self._window:
                self._window.remove(slot)
            slot.at = self._clock()
            self._window.append(slot)

    def correct(self, slot: Slot, tokens: int) -> None:
        """Count what a request did cost in place of the most it could have."""
        with self._lock:
            slot.tokens = tokens

    def hold(self, seconds: float) -> None:
        """Let nobody ask for a while."""
        with self._lock:
            self._not_before = max(self._not_before, self._clock() + seconds)

    def _wait_s(self, now: float, tokens: int) -> float:
        while self._window and self._window[0].at <= now - WINDOW_S:
            self._window.popleft()
        turn = self._not_before
        if self._requests is not None and len(self._window) >= self._requests:
            turn = max(turn, self._window[-self._requests].at + WINDOW_S)
        if self._tokens is not None:
            turn = max(turn, self._room_at(self._tokens - tokens, now))
        return turn - now

    def _room_at(self, room: int, now: float) -> float:
        """When the tokens in the window will have fallen to ``room``; a request larger than the limit goes alone."""
        total, turn = sum(slot.tokens for slot in self._window), now
        for slot in self._window:
            if total <= max(room, 0):
                break
            total, turn = total - slot.tokens, slot.at + WINDOW_S
        return turn
