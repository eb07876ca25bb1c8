"""Requests that are being asked: of equal ones, one thread asks, and the others wait for its answer."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import replace
from threading import Lock

from bbtune.endpoint.patience import Call
from bbtune.endpoint.request import Answer

_WAKE_S = 0.1


class InFlight:
    """The requests of one endpoint, whichever calls they belong to."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._asking: dict[str, Future[Answer]] = {}

    def once(self, key: str, ask: Callable[[], Answer], call: Call) -> Answer:
        """What ``ask`` gives, or what another thread gets for the same key meanwhile, at no cost.

        A thread that gives up may have its own reasons, such as a deadline: then one of those who waited asks.

        Args:
            key: of the request.
            ask: gets the answer.
            call: that the request belongs to.
        """
        while True:
            with self._lock:
                others = self._asking.get(key)
                if others is None:
                    mine = self._asking[key] = Future[Answer]()
                    break
            if (answer := awaited(others, call)) is not None:
                return replace(answer, cached=True, headers={})
        try:
            answer = ask()
            mine.set_result(answer)
            return answer
        finally:
            mine.cancel()  # of no effect where there is an answer
            with self._lock:
                del self._asking[key]


def awaited(others: Future[Answer], call: Call) -> Answer | None:
    """What another thread gets, None if it gives up."""
    while not others.done():
        wait([others], _WAKE_S)
        call.check()
    return None if others.cancelled() else others.result()
