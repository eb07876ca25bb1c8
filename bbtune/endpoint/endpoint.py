"""A model behind an API: every question is asked once, paid once, and never beyond a cap."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import replace

from bbtune.endpoint.answers import lasting, read_answer
from bbtune.endpoint.client import Client
from bbtune.endpoint.failure import Failure
from bbtune.endpoint.in_flight import InFlight
from bbtune.endpoint.pace import Pace
from bbtune.endpoint.patience import Call, Patience
from bbtune.endpoint.purse import Purse, Ticket
from bbtune.endpoint.request import Answer, Request
from bbtune.endpoint.secrets import Secret
from bbtune.endpoint.store import AnswerStore
from bbtune.endpoint.usage import Bound, Price, Tokens
from bbtune.endpoint_spec import ApiSpec
from bbtune.errors import EndpointError


class Endpoint:
    """A :class:`TextModel` over the wire.

    Args:
        spec: what the job says of it.
        secret: its key.
        purse: from which every request is paid.
        store: of answers; None to keep none.
        base_url: where it is; None for the one of the spec.

    Attributes:
        spec, purse: as given.

    Raises:
        EndpointError: if it has no address.
    """

    def __init__(
        self, spec: ApiSpec, secret: Secret, purse: Purse, store: AnswerStore | None, base_url: str | None = None
    ) -> None:
        self.spec, self.purse = spec, purse
        self._model = spec.model or "model"  # a server that has one model takes any name
        self._price = Price.of(spec.price)
        self._bound = Bound()
        self._store = store
        address = base_url or spec.base_url
        if address is None:
            raise EndpointError("expected the address of the server that the job has served, got none; pass base_url")
        self._client = Client(address, self._model, secret, spec.timeout_s)
        self._pace = Pace(spec.requests_per_minute, spec.tokens_per_minute)
        self._patience = Patience(spec.place, spec.attempts, spec.patience_s)
        self._pool = ThreadPoolExecutor(spec.concurrency, thread_name_prefix="endpoint")
        self._in_flight = InFlight()

    def ask(self, requests: Sequence[Request], deadline: float | None = None) -> list[Answer]:
        """Answers in the order of the requests; equal requests are sent once, and those answered before not at all.

        When a cap, the deadline or the endpoint ends it, nothing more is sent; what is in flight is awaited and kept.

        Args:
            deadline: on the clock of :func:`time.monotonic`.

        Raises:
            BudgetReached: if a cap ends the asking.
            DeadlineReached: if the deadline passes.
            EndpointError: if the endpoint refuses, or stays down.
        """
        call = Call(deadline)
        keys = [request.key(self.spec.place, self._model) for request in requests]
        found: dict[str, Future[Answer]] = {}
        try:
            for key, request in dict(zip(keys, requests, strict=True)).items():
                found[key] = self._pool.submit(self._answer, key, request, call)
            wait(found.values(), return_when=FIRST_EXCEPTION)
        except BaseException as error:  # of the thread that asks, such as KeyboardInterrupt
            call.end(error)
        if call.error:
            for future in found.values():
                future.cancel()
        wait(found.values())
        if call.error:
            raise call.error
        return self._in_order(keys, {key: future.result() for key, future in found.items()})

    def close(self) -> None:
        """Close the connections; what is in flight is waited for. Purse and store stay open: others may use them."""
        self._pool.shutdown()
        self._client.close()

    def _in_order(self, keys: list[str], answers: dict[str, Answer]) -> list[Answer]:
        """The answers, of which only the first of equal ones counts as bought."""
        ordered = []
        for key in keys:
            ordered.append(answers[key])
            answers[key] = replace(answers[key], cached=True, headers={})
        self.purse.note_cached(sum(answer.cached for answer in ordered))
        return ordered

    def _answer(self, key: str, request: Request, call: Call) -> Answer:
        """One answer: from the cache, from another thread that asks the same, or bought."""
        try:
            return self._in_flight.once(
                key, lambda: self._known(key, request) or self._bought(key, request, call), call
            )
        except BaseException as error:
            call.end(error)
            raise

    def _known(self, key: str, request: Request) -> Answer | None:
        answer = None if self._store is None else self._store.get(key)
        if answer is not None:
            self._bound.learn(request, Tokens.of(answer))
        return answer

    def _bought(self, key: str, request: Request, call: Call) -> Answer:
        return self._patience.insist(lambda: self._once(key, request, call), call.pause)

    def _once(self, key: str, request: Request, call: Call) -> Answer:
        """One attempt: wait for the turn, reserve, send, keep, settle."""
        call.check()
        bound = self._bound.of(request)
        slot = self._pace.take(bound.total, call.pause)
        ticket = self.purse.reserve(bound, self._price, call.check)
        self._pace.leave(slot)
        try:
            response = self._client.send(request)
            answer = replace(read_answer(lasting(response.raw), otherwise=bound), headers=response.headers)
        except BaseException as error:
            self._write_off(ticket, error)
            raise
        used = Tokens.of(answer)
        try:
            if self._store is not None:  # before it is settled: a kill in between counts too much, and never buys twice
                self._store.put(key, answer)
        finally:
            self.purse.settle(ticket, used)
        self._pace.correct(slot, used.total)
        self._bound.learn(request, used)
        return answer

    def _write_off(self, ticket: Ticket, error: BaseException) -> None:
        if not isinstance(error, Failure) or error.charged:
            self.purse.forfeit(ticket)
        else:
            self.purse.release(ticket)
        if isinstance(error, Failure) and error.kind == "busy":
            wait_s = self._patience.first_wait_s if error.retry_after_s is None else error.retry_after_s
            if wait_s <= self.spec.patience_s:  # a longer one ends the call, and is not waited for by the next
                self._pace.hold(wait_s)
