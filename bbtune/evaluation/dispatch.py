"""Shares calls out among hosts: fairly between searches, again where a host is lost, twice where one is slow.

Nothing here knows what a host is; :mod:`bbtune.evaluation.ray_hosts` has those of Ray.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from itertools import count
from math import ceil
from statistics import median
from typing import Any, NamedTuple, Protocol

from bbtune.errors import EvaluationError

AHEAD = 2  # bundles of calls that a host holds, so that it never waits for the next
LOSSES = 3  # hosts lost over one call that end its search: the call may be what kills them
_EXCUSED = 9  # that are, too, where something else may have killed each
_LOOK_S = 0.1  # between looks for slow hosts
_SLOW = 4.0  # times the median of its siblings that a call may take before it is started elsewhere, too
_LEAST_S = 2.0  # that any call may take
_SETTLE_S = 2.0  # longest wait for the calls of a lost host to be told
_EACH_S = 10.0  # longest wait for what each host is asked
_SIBLINGS = 64  # last calls of the same kind whose times are kept
_FEW = 3  # of which nothing can be said yet
_BUNDLE_S = 0.05  # of work in a message, beside which the message itself does not count

Arguments = tuple[object, ...]


class Lost(Exception):
    """A host is gone, and the call with it.

    Args:
        excused: whether something else than the call that it was at may have ended it.
    """

    def __init__(self, reason: str, excused: bool = False) -> None:
        super().__init__(reason)
        self.excused = excused


class Served(NamedTuple):
    """How a host has served: calls that it answered, how it was lost, and whether a call is blamed for that."""

    answered: int
    loss: str
    blamed: bool


class Host(Protocol):
    """What calls are given to; it works on them one after the other, in their order."""

    def start(self, search: str, method: str, calls: Sequence[Arguments]) -> Awaitable[list[Any]]:
        """Begin ``method(*call)`` of a search's worker for each call; awaiting it raises Lost if the host is lost."""

    def reached(self) -> Awaitable[None]:
        """Wait until it has done all that was begun before; awaiting it raises Lost where the host is lost."""


@dataclass(eq=False)
class _Call:
    number: int  # in the order in which calls were asked for
    search: str
    method: str
    arguments: Arguments
    answer: asyncio.Future[Any]
    starts: int = 0  # hosts that it was given to and that have not been lost
    losses: int = 0  # of hosts that were at it
    excused: int = 0  # the same, where something else may have been why

    @property
    def is_suspect(self) -> bool:
        """Whether hosts were lost while they were at it."""
        return bool(self.losses or self.excused)


_Bundle = tuple[_Call, ...]  # calls of one search and method that travel together


@dataclass(eq=False)
class _Seat:
    """A host, and the calls that it holds in the order in which it works on them."""

    host: Host
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    held: deque[_Bundle] = field(default_factory=deque)
    since: float = 0.0  # when it began the first of them
    is_slow: bool = False
    asked_for: _Bundle | None = None  # waits until the host has shown that it is there
    answered: int = 0
    at: _Bundle | None = None  # what it was working on when it was lost
    loss: str = ""
    blamed: bool = False

    async def settled(self) -> None:
        """Wait until all that it held is known to be lost; which of them comes first is chance."""
        until = time.monotonic() + _SETTLE_S
        while self.held and time.monotonic() < until:
            await asyncio.sleep(_LOOK_S / 10)

    @property
    def calls(self) -> list[_Call]:
        return [call for bundle in self.held for call in bundle]

    @property
    def is_free(self) -> bool:
        return len(self.held) < AHEAD and not self.is_slow and self.asked_for is None


def _times() -> dict[str, deque[float]]:
    return defaultdict(lambda: deque(maxlen=_SIBLINGS))


class Dispatcher:
    """Hands calls to hosts as they come and go; answers come in the order of the calls, whoever gave them."""

    def __init__(self) -> None:
        self._seats: list[_Seat] = []
        self._waiting: dict[str, deque[_Call]] = defaultdict(deque)  # by search; the one served last stands last
        self._open: set[_Call] = set()  # calls for which somebody waits
        self._times: dict[str, dict[str, deque[float]]] = defaultdict(_times)  # by search and method
        self._numbers = count()
        self._running: set[asyncio.Task[None]] = set()  # kept, or they might be collected
        self._watch: asyncio.Task[None] | None = None

    @property
    def hosts(self) -> int:
        """How many there are now."""
        return len(self._seats)

    @property
    def searches(self) -> set[str]:
        """Those with calls that are not answered."""
        return {call.search for call in self._open}

    async def serve(self, host: Host) -> Served:
        """Let a host take part until it is lost."""
        seat = _Seat(host)
        self._seats.append(seat)
        self._hand_out()
        try:
            await seat.gone.wait()
            await seat.settled()
        finally:
            self._leave(seat)
        return Served(seat.answered, seat.loss, seat.blamed)

    async def run(self, search: str, method: str, calls: Sequence[Arguments]) -> list[Any]:
        """Answers to ``method(*call)`` for each call, in the order of the calls.

        Raises:
            EvaluationError: if one call has cost several hosts.
            BbtuneError: whatever a host or :meth:`fail` says.
        """
        loop = asyncio.get_running_loop()
        made = [_Call(next(self._numbers), search, method, call, loop.create_future()) for call in calls]
        self._open.update(made)
        self._waiting[search].extend(made)
        if self._watch is None or self._watch.done():
            self._watch = asyncio.create_task(self._look())
        self._hand_out()
        try:
            return list(await asyncio.gather(*(call.answer for call in made)))
        finally:  # of a search that was cut off, or has failed, nothing more is begun
            self._open.difference_update(made)
            for call in made:
                call.answer.cancel()
            self._hand_out()

    async def each(self, search: str, method: str) -> list[Any]:
        """Answers to ``method()`` of every host; one that is lost over it, or too slow, has none."""
        asked = [asyncio.create_task(self._told(seat.host, search, method)) for seat in self._seats if not seat.is_slow]
        done, slow = await asyncio.wait(asked, timeout=_EACH_S) if asked else (set(), set())
        for task in slow:
            task.cancel()
        return [answer for task in asked if task in done for answer in task.result()]

    def fail(self, error: Exception, search: str | None = None) -> None:
        """Answer all calls, of a search or of all, with an error."""
        for call in self._open:
            if search in (None, call.search) and not call.answer.done():
                call.answer.set_exception(error)

    def forget(self, search: str) -> None:
        """Drop what is known of a search that has ended; calls for which it still waits are cancelled."""
        for call in self._open:
            if call.search == search:
                call.answer.cancel()
        self._waiting.pop(search, None)
        self._times.pop(search, None)

    def lose(self, host: Host, loss: Lost) -> None:
        """Let a host go that somebody has found lost, so that it is replaced though it has no call."""
        for seat in [seat for seat in self._seats if seat.host is host]:
            seat.at, seat.loss = seat.held[0] if seat.held else None, str(loss)
            self._leave(seat)

    async def _told(self, host: Host, search: str, method: str) -> list[Any]:
        """The answer of one host to a question that each is asked; none where it is lost."""
        try:
            return await host.start(search, method, [()])
        except Lost as loss:
            self.lose(host, loss)
            return []

    def _hand_out(self) -> None:
        while (call := self._next()) is not None:
            free = [seat for seat in self._seats if seat.is_free and call not in seat.calls]
            if not free:
                return
            bundle = self._taken(call)
            seat = min(free, key=lambda seat: len(seat.calls))
            if not seat.held:
                seat.since = time.monotonic()
            seat.held.append(bundle)
            seat.asked_for = bundle if call.is_suspect else None
            for one in bundle:
                one.starts += 1
            task = asyncio.create_task(self._work(seat, bundle))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    def _taken(self, first: _Call) -> _Bundle:
        """Calls that wait, from the first on: so few that all hosts end together, no more than a message is worth."""
        waiting, hosts = self._waiting[first.search], len(self._seats)
        share = len(waiting) if hosts == 1 else ceil(len(waiting) / (2 * hosts))
        times = self._known(first)
        worth = ceil(_BUNDLE_S / max(median(times), 1e-6)) if times else 1
        bundle = [waiting.popleft()]
        while waiting and len(bundle) < min(share, worth) and _go_together(bundle[0], waiting[0]):
            bundle.append(waiting.popleft())
        self._waiting[first.search] = self._waiting.pop(first.search)  # its turn is over
        return tuple(bundle)

    def _next(self) -> _Call | None:
        """The next call of the search that has fewest at work; of equals, of the one that was served longest ago."""
        for calls in self._waiting.values():
            while calls and calls[0].answer.done():  # cut off, or started twice and answered meanwhile
                calls.popleft()
        asking = [search for search, calls in self._waiting.items() if calls]
        if not asking:
            return None
        if len(asking) == 1:
            return self._waiting[asking[0]][0]
        at_work = [call.search for seat in self._seats for call in seat.calls]
        return self._waiting[min(asking, key=at_work.count)][0]

    async def _work(self, seat: _Seat, bundle: _Bundle) -> None:
        search, method = bundle[0].search, bundle[0].method
        try:
            if seat.asked_for is bundle:  # a host that was dead before cannot have been killed by it
                await seat.host.reached()
                seat.asked_for = None
                self._hand_out()
            answers = await seat.host.start(search, method, [call.arguments for call in bundle])
        except Lost as loss:
            self._lost(seat, bundle, loss)
        except Exception as error:  # of a call, or of the host's machinery: for whoever asked
            self._done(seat, bundle)
            for call in bundle:
                if not call.answer.done():
                    call.answer.set_exception(error)
        else:
            seat.answered += len(bundle)
            self._done(seat, bundle)
            for call, answer in zip(bundle, answers, strict=True):
                if not call.answer.done():  # else it was started twice, and the other was quicker
                    call.answer.set_result(answer)
        self._hand_out()

    def _done(self, seat: _Seat, bundle: _Bundle) -> None:
        now = time.monotonic()
        if not all(call.answer.done() for call in bundle):
            self._times[bundle[0].search][bundle[0].method].append((now - seat.since) / len(bundle))
        seat.held.remove(bundle)
        seat.since, seat.is_slow = now, False

    def _lost(self, seat: _Seat, bundle: _Bundle, loss: Lost) -> None:
        """Let others do what a lost host has not answered; only what it was at may have to do with the loss."""
        self.lose(seat.host, loss)
        was_at_it = seat.at is bundle and seat.asked_for is not bundle
        blamed = was_at_it and not loss.excused
        seat.blamed = seat.blamed or blamed
        seat.held.remove(bundle)
        for call in bundle:
            call.losses += blamed
            call.excused += was_at_it and loss.excused
            call.starts -= 1
            if call.answer.done() or call.starts:
                continue
            if call.losses < LOSSES and call.excused < _EXCUSED:
                self._again(call)
                continue
            died = f"{call.losses + call.excused} evaluators died over the same call"
            call.answer.set_exception(
                EvaluationError(
                    f"{died} ({loss}; out of memory?); nothing is lost: use a smaller model or fewer evaluators on a "
                    "machine (bbtune resume DIR --evaluators N)"
                )
            )

    def _again(self, call: _Call) -> None:
        """Let a call wait once more, at its old place."""
        waiting = [*self._waiting[call.search], call]
        self._waiting[call.search] = deque(sorted(waiting, key=lambda call: call.number))

    def _leave(self, seat: _Seat) -> None:
        if seat in self._seats:
            self._seats.remove(seat)
        seat.gone.set()

    async def _look(self) -> None:
        """Start elsewhere, too, what takes far longer than calls of its kind, while others are idle."""
        while self.searches:
            await asyncio.sleep(_LOOK_S)
            now = time.monotonic()
            for seat in self._seats:
                if seat.held and not seat.is_slow and now - seat.since > self._patience(seat.held[0]):
                    seat.is_slow = True
            for call in [call for seat in self._seats if seat.is_slow for call in seat.calls]:
                is_idle = any(not other.held for other in self._seats)
                if is_idle and call.starts == 1 and not call.answer.done() and call not in self._waiting[call.search]:
                    self._again(call)
            self._hand_out()

    def _patience(self, bundle: _Bundle) -> float:
        """Seconds that calls may take."""
        times = self._known(bundle[0])
        return float("inf") if len(times) < _FEW else max(_LEAST_S, _SLOW * median(times) * len(bundle))

    def _known(self, call: _Call) -> Sequence[float]:
        """Seconds that the last calls of its kind took."""
        return self._times.get(call.search, {}).get(call.method, ())


def _go_together(one: _Call, other: _Call) -> bool:
    """Whether calls may share a message; one over which a host was lost, or that is started again, travels alone."""
    return one.method == other.method and not any(of.is_suspect or of.starts or of.answer.done() for of in (one, other))
