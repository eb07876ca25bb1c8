"""How long to keep asking: retries of one request, a breaker for all of them, and waiting that can be ended."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Event, Lock
from typing import TypeVar

import tenacity

from bbtune.endpoint.failure import Failure, Refused
from bbtune.errors import DeadlineReached, EndpointError

FIRST_WAIT_S = 0.5
T = TypeVar("T")


class Halted(Exception):
    """The call that this belongs to is over; another thread has the reason."""


class Call:
    """One call for many answers: it goes on until its deadline, or until a thread ends it.

    Args:
        deadline: on the clock of :func:`time.monotonic`; None for none.
    """

    def __init__(self, deadline: float | None = None) -> None:
        self.error: BaseException | None = None
        self._deadline = deadline
        self._ended = Event()
        self._lock = Lock()

    def end(self, error: BaseException) -> None:
        """Let all threads stop; the first reason stays."""
        with self._lock:
            self.error = self.error or error
        self._ended.set()

    def check(self) -> None:
        """Raise if there is no going on.

        Raises:
            Halted: if it was ended.
            DeadlineReached: if the time is over.
        """
        if self._ended.is_set():
            raise Halted
        if self._deadline is not None and time.monotonic() >= self._deadline:
            raise DeadlineReached("the budget of seconds ended while answers were being asked for")

    def pause(self, seconds: float) -> None:
        """Wait, but not beyond the end; raises as :meth:`check` does."""
        left = seconds if self._deadline is None else min(seconds, self._deadline - time.monotonic())
        self._ended.wait(max(left, 0))
        self.check()


class Patience:
    """Retries with growing waits, and a breaker that all requests share.

    A request is given up after ``attempts`` attempts that broke. Being told to wait is no such attempt: it ends when
    nothing at all has succeeded for ``patience_s`` and ``attempts`` failures, as do the others. Waits grow from half a
    second to half of ``patience_s`` over the attempts of a request.

    Args:
        place: of the endpoint, for messages.
        attempts: for one request.
        patience_s: seconds without any success after which an endpoint is taken to be down.
        clock: seconds that only grow.
    """

    def __init__(
        self, place: str, attempts: int, patience_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.first_wait_s = min(FIRST_WAIT_S, patience_s / 240)
        self._place, self._attempts, self._patience_s = place, attempts, patience_s
        self._clock = clock
        self._lock = Lock()
        self._failures = 0
        self._since = clock()

    def insist(self, attempt: Callable[[], T], pause: Callable[[float], None]) -> T:
        """What an attempt gives, sooner or later.

        Args:
            attempt: raises Failure where it fails.
            pause: waits for so many seconds; raises to end the waiting.

        Raises:
            Refused: if the endpoint would refuse every attempt.
            EndpointError: if it stays down.
        """
        tries = _Tries(self)
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(lambda error: isinstance(error, Failure) and error.kind != "refused"),
            stop=tries.are_over,
            wait=self._wait_s,
            sleep=pause,
            reraise=True,
        )
        try:
            answer = retrying(attempt)
        except Failure as failure:
            ended = failure
        else:
            self._succeeded()
            return answer
        # Outside of the handler: what a server said, the key perhaps in it, is not to be chained to the error.
        if ended.kind == "refused":
            raise Refused(f"{self._place}: {ended}", ended.status)
        reason = f"{self._place}: {ended}; {tries.reason}"
        raise EndpointError(f"{reason}. What was answered is kept: resume when the endpoint is well")

    def judge(self, failure: Failure, broken: int) -> str | None:
        """Why there is no point in another attempt, None where there may be.

        Args:
            failure: of the last attempt.
            broken: attempts at the same request that broke, this one included.
        """
        silent_s = self._silent_s()
        if broken >= self._attempts:
            return f"this request failed {broken} times (attempts: {self._attempts})"
        if silent_s is not None:
            return f"nothing has succeeded for {silent_s:.0f} s (patience_s: {self._patience_s:g})"
        if (failure.retry_after_s or 0) > self._patience_s:
            return f"it asks to wait for {failure.retry_after_s:.0f} s (patience_s: {self._patience_s:g})"
        return None

    def _succeeded(self) -> None:
        with self._lock:
            self._failures = 0

    def _silent_s(self) -> float | None:
        """Counts one more failure; seconds since the first without a success, None as long as they can be borne."""
        with self._lock:
            now = self._clock()
            self._failures += 1
            if self._failures == 1:
                self._since = now
            if now - self._since < self._patience_s or self._failures < self._attempts:
                return None
            self._failures = 0  # a later call begins anew
            return now - self._since

    def _wait_s(self, state: tenacity.RetryCallState) -> float:
        """What the server asks for; else growing waits. A little is added, so that threads do not come all at once."""
        jitter = tenacity.wait_random(0, self.first_wait_s)(state)
        asked = _failure(state).retry_after_s
        if asked is not None:
            return asked + jitter
        longest = self._patience_s / 2
        growth = max(1.5, longest / self.first_wait_s) ** (1 / max(self._attempts - 2, 1))
        return tenacity.wait_exponential(self.first_wait_s, longest, growth)(state) + jitter


class _Tries:
    """The attempts at one request."""

    def __init__(self, patience: Patience) -> None:
        self.reason: str | None = None
        self._patience = patience
        self._broken = 0

    def are_over(self, state: tenacity.RetryCallState) -> bool:
        """Whether the attempt that has just failed was the last."""
        failure = _failure(state)
        self._broken += failure.kind == "broken"
        self.reason = self._patience.judge(failure, self._broken)
        return self.reason is not None


def _failure(state: tenacity.RetryCallState) -> Failure:
    error = state.outcome.exception() if state.outcome else None
    if not isinstance(error, Failure):
        raise TypeError(f"expected a Failure, got {error!r}")
    return error
