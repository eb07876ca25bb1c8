"""What may be spent and what has been: reserved on disk before a request leaves, settled when its answer is there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple, dataclass
from decimal import ROUND_FLOOR, Decimal
from pathlib import Path
from threading import Condition

from bbtune.cost import Spent
from bbtune.endpoint.database import Database
from bbtune.endpoint.usage import PICO, Price, Tokens
from bbtune.errors import BudgetReached

# One row for every request that was sent. "open" ones of a process that was killed have an unknown end: "lost".
_SCHEMA = """
CREATE TABLE IF NOT EXISTS sent (id INTEGER PRIMARY KEY, state TEXT, input INT, output INT, pico INT);
CREATE TABLE IF NOT EXISTS cached (answers INT)
"""
_ADVICE = "delete it only if you know what was spent: the caps would begin anew"
_WAKE_S = 0.1


@dataclass(frozen=True)
class Caps:
    """The most that may be spent; None for no cap.

    Attributes:
        requests: sent, failed and repeated ones included.
        tokens: input and output together.
        dollars: at the prices of the job.
    """

    requests: int | None = None
    tokens: int | None = None
    dollars: float | None = None


@dataclass(frozen=True)
class Ticket:
    """The right to send one request.

    Attributes:
        number: of its row.
        bound: the most tokens that it can be charged for.
        price: at which it will be.
    """

    number: int
    bound: Tokens
    price: Price


@dataclass(frozen=True)
class _Sum:
    """Requests, tokens and money, in whole numbers."""

    requests: int = 0
    input: int = 0
    output: int = 0
    pico: int = 0

    @classmethod
    def of(cls, tokens: Tokens, price: Price) -> _Sum:
        return cls(1, tokens.input, tokens.output, price.times(tokens))

    def __add__(self, other: _Sum) -> _Sum:
        return _Sum(*(mine + theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)))

    def __sub__(self, other: _Sum) -> _Sum:
        return _Sum(*(mine - theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)))

    def spent(self, cached: int = 0) -> Spent:
        return Spent(self.requests, cached, self.input, self.output, self.pico / PICO)


class Purse:
    """Spends within caps, whatever the number of threads, and over all sessions of a run.

    The reserved and the settled together never pass a cap, as long as no server charges more than the bound of a
    request; what a server does charge is counted in any case. One process at a time may hold it. A reservation is on
    disk before its request leaves: one that was open when the process was killed counts in full.

    Args:
        path: of the file, made when it is not there.
        caps: of the run.

    Raises:
        EndpointError: if the file is damaged, or held by another process.
    """

    def __init__(self, path: Path, caps: Caps) -> None:
        self._most = {"requests": caps.requests, "tokens": caps.tokens, "dollars": _pico(caps.dollars)}
        self._database = Database(path, _SCHEMA, _ADVICE, alone=True)
        self._changed = Condition()
        self._held = _Sum()
        self._reserved = _Sum()
        with self._database.open() as link:
            link.execute("UPDATE sent SET state = 'lost' WHERE state = 'open'")
            self._cached = int(link.execute("SELECT coalesce(sum(answers), 0) FROM cached").fetchone()[0])
        self._settled = self._counted("1")

    def reserve(self, bound: Tokens, price: Price, check: Callable[[], None] = lambda: None) -> Ticket:
        """Set aside the most that a request can cost; waits for others in flight where these may leave enough.

        Args:
            bound: the most tokens that it can be charged for.
            price: of a token.
            check: called while waiting; raises to end it.

        Raises:
            BudgetReached: if a cap would be passed even if all others in flight were free.
            EndpointError: if the file cannot be written.
        """
        most = _Sum.of(bound, price)
        with self._changed:
            while self._passed(self._settled + self._reserved + most):
                if reason := self._passed(self._settled + self._sent() + most):
                    raise BudgetReached(reason)
                self._changed.wait(_WAKE_S)
                check()
            with self._database.open() as link:
                row = ("open", bound.input, bound.output, most.pico)
                number = link.execute("INSERT INTO sent VALUES (NULL, ?, ?, ?, ?)", row).lastrowid
            self._reserved += most
        return Ticket(number or 0, bound, price)

    def settle(self, ticket: Ticket, used: Tokens) -> None:
        """The answer is there, and cost this."""
        self._end(ticket, "paid", used)

    def release(self, ticket: Ticket) -> None:
        """The request was sent, and certainly not charged for."""
        self._end(ticket, "free", Tokens())

    def forfeit(self, ticket: Ticket) -> None:
        """The answer was lost; it may have been charged for, and counts in full."""
        self._end(ticket, "lost", ticket.bound)

    def note_cached(self, answers: int) -> None:
        """Count answers that cost nothing, as they were there already."""
        if not answers:
            return
        with self._changed, self._database.open() as link:
            link.execute("INSERT INTO cached VALUES (?)", (answers,))
            self._cached += answers

    def hold_back(self, amount: Spent) -> None:
        """Keep an amount for later, such as the final test, out of what :meth:`reserve` gives; one at a time."""
        with self._changed:
            pico = _pico(amount.dollars)
            self._held = _Sum(amount.requests, amount.input_tokens, amount.output_tokens, pico or 0)

    def release_hold(self) -> None:
        """Give out what was held back."""
        self.hold_back(Spent())

    def spent(self) -> Spent:
        """All that was spent, over all sessions; open reservations and lost answers count in full."""
        with self._changed:
            return (self._settled + self._reserved).spent(self._cached)

    def lost(self) -> Spent:
        """The part of :meth:`spent` that went into requests whose answer was lost, at the most it can have been."""
        with self._changed:
            return self._counted("state = 'lost'").spent()

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def _end(self, ticket: Ticket, state: str, used: Tokens) -> None:
        cost = _Sum.of(used, ticket.price)
        with self._changed:
            with self._database.open() as link:
                row = (state, cost.input, cost.output, cost.pico, ticket.number)
                link.execute("UPDATE sent SET state = ?, input = ?, output = ?, pico = ? WHERE id = ?", row)
            self._reserved -= _Sum.of(ticket.bound, ticket.price)
            self._settled += cost
            self._changed.notify_all()

    def _sent(self) -> _Sum:
        """What is certain of those in flight: that they are requests."""
        return _Sum(self._reserved.requests)

    def _passed(self, total: _Sum) -> str | None:
        """The cap that a total would pass."""
        total += self._held
        sums = {"requests": total.requests, "tokens": total.input + total.output, "dollars": total.pico}
        for name, most in self._most.items():
            if most is not None and sums[name] > most:
                return f"budget.{name}"
        return None

    def _counted(self, which: str) -> _Sum:
        with self._database.open() as link:
            sums = "count(*), coalesce(sum(input), 0), coalesce(sum(output), 0), coalesce(sum(pico), 0)"
            return _Sum(*link.execute(f"SELECT {sums} FROM sent WHERE {which}").fetchone())


def _pico(dollars: float | None) -> int | None:
    return None if dollars is None else int((Decimal(str(dollars)) * PICO).to_integral_value(ROUND_FLOOR))
