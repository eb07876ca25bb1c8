"""A proxy that spoils a part of what passes through it, by a seeded schedule, and counts what it did."""

from __future__ import annotations

import http.client
import json
import random
import time
from collections import Counter
from collections.abc import Mapping
from typing import Literal
from urllib.parse import urlsplit

from scripted_upstream import Handler, Service, body_hash

Fault = Literal["429-retry-after", "429", "500", "wrong-key", "slow", "late", "cut", "garbage"]
# Answered by the proxy itself: the server behind it sees nothing of them.
OWN = {
    "429-retry-after": (429, "Rate limit reached for requests", "rate_limit_exceeded"),
    "429": (429, "Too many requests", "rate_limit_exceeded"),
    "500": (500, "The server had an error while processing your request", "server_error"),
    "wrong-key": (401, "Incorrect API key provided", "invalid_api_key"),
}
RETRY_AFTER_S = 0.05
SLOW_S = 0.05


class _Proxy(Handler):
    _upstream: http.client.HTTPConnection | None = None

    def do_POST(self) -> None:
        proxy: FaultProxy = self.server.service  # type: ignore[attr-defined]
        body = self.body()
        fault = proxy.next_fault()
        if fault in OWN:
            status, message, code = OWN[fault]
            if proxy.echo_key:
                message += f" for {self.headers.get('Authorization')}"
            said = {"error": {"message": message, "type": code, "param": None, "code": code}}
            more = {"Retry-After": str(RETRY_AFTER_S)} if fault == "429-retry-after" else {}
            self.reply(status, json.dumps(said).encode(), more)
            return
        status, payload = self._pass_on(proxy, body)
        if fault in ("late", "cut", "garbage"):
            proxy.note_lost(body, payload)
        if fault == "slow":
            time.sleep(SLOW_S)
        if fault == "late":
            self.connection.recv(1)  # until the client has gone
            self.close_connection = True
        elif fault == "cut":
            self.reply(status, payload[: len(payload) // 2], length=len(payload))
        elif fault == "garbage":
            self.reply(status, b"<html>" + payload)
        else:
            self.reply(status, payload)

    def _pass_on(self, proxy: FaultProxy, body: bytes) -> tuple[int, bytes]:
        if self._upstream is None:
            self._upstream = http.client.HTTPConnection(proxy.host, proxy.port)
        names = ("Content-Type", "Authorization")
        headers = {name: self.headers[name] for name in names if name in self.headers}
        self._upstream.request("POST", self.path, body, headers)
        response = self._upstream.getresponse()
        return response.status, response.read()

    def finish(self) -> None:
        if self._upstream is not None:
            self._upstream.close()
        super().finish()


class FaultProxy(Service):
    """Stands in front of a server.

    Args:
        upstream: address of the server, with ``/v1``.
        shares: of the requests that meet each fault; the others pass.
        seed: of the schedule: the n-th request that comes meets the same fault each time.
        echo_key: whether errors of the proxy show the key, as some servers do.

    Attributes:
        done: number of requests by their fault, "none" among them.
        lost: answers that were sold and did not arrive, by the hash of their body.
        lost_input, lost_output: their tokens.
    """

    def __init__(self, upstream: str, shares: Mapping[Fault, float], seed: int = 0, echo_key: bool = False) -> None:
        super().__init__(_Proxy)
        parts = urlsplit(upstream)
        self.host, self.port = parts.hostname or "", parts.port or 80
        self.echo_key = echo_key
        self.done: Counter[str] = Counter()
        self.lost: Counter[str] = Counter()
        self.lost_input = self.lost_output = 0
        self.spoil(shares)
        self._rng = random.Random(seed)

    def spoil(self, shares: Mapping[Fault, float]) -> None:
        """Meet other faults from now on."""
        with self.lock:
            self._faults = [*shares, "none"]
            self._weights = [*shares.values(), 1 - sum(shares.values())]

    @property
    def requests(self) -> int:
        """That have come."""
        return self.done.total()

    def next_fault(self) -> str:
        with self.lock:
            fault = self._rng.choices(self._faults, self._weights)[0]
            self.done[fault] += 1
        return fault

    def note_lost(self, body: bytes, payload: bytes) -> None:
        used = json.loads(payload)["usage"]
        with self.lock:
            self.lost[body_hash(json.loads(body))] += 1
            self.lost_input += used["prompt_tokens"]
            self.lost_output += used["completion_tokens"]
