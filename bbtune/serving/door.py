"""What stands before the app: large bodies are refused before they are read, requests to classify are counted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import Any, TypeVar

from bbtune.serving.meters import Meters
from bbtune.serving.refusal import Refusal

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Outcome = TypeVar("Outcome")

_GONE = 499  # as other servers count it


class BodyLimit:
    """An ASGI app behind a limit on the bytes of a body.

    Args:
        app: that is asked.
        most: bytes.
    """

    def __init__(self, app: Any, most: int) -> None:
        self._app = app
        self._most = most

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Ask the app, or refuse."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        told = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        seen = int(told) if told.isdigit() else 0
        started = False

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self._most:
                raise _TooLarge
            return message

        async def noted(message: Message) -> None:
            nonlocal started
            if seen <= self._most or started:  # what the app makes of half a body is nobody's business
                started = True
                await send(message)

        if seen <= self._most:
            seen = 0
            with suppress(_TooLarge):
                await self._app(scope, counted, noted)
        if not started:
            refusal = Refusal(413, f"a body of at most {self._most} bytes", "a larger one", "send fewer texts at once")
            await refusal.answer()(scope, receive, send)


class Counted:
    """An ASGI app whose requests to classify are counted.

    Args:
        app: that is asked; it leaves the prompt's name and the number of texts in the request's state.
        meters: told of each request.
    """

    def __init__(self, app: Any, meters: Meters) -> None:
        self._app = app
        self._meters = meters

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Ask the app."""
        if scope["type"] != "http" or scope["path"] != "/v1/classify":
            await self._app(scope, receive, send)
            return
        begun, status = time.perf_counter(), 500
        state = scope.setdefault("state", {})

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            seconds = time.perf_counter() - begun
            self._meters.request(state.get("prompt", ""), status, seconds, state.get("texts", 0))


async def while_there(receive: Receive, work: Awaitable[Outcome]) -> Outcome:
    """The outcome of some work, which is given up when the client goes: nobody is there to be answered.

    Args:
        receive: of a request whose body has been read.

    Raises:
        Refusal: if the client has gone; it is for the counters.
    """
    asked, gone = asyncio.ensure_future(work), asyncio.ensure_future(receive())
    try:
        await asyncio.wait({asked, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not asked.done():
            raise Refusal(_GONE, "a client that waits for the answer", "one that has gone")
        return asked.result()
    finally:
        asked.cancel()
        gone.cancel()


class _TooLarge(Exception):
    """More came than is taken."""
