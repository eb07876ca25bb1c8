"""Texts that wait while others are at the model go through it together; nothing waits for company."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

from bbtune.errors import BbtuneError

Text = TypeVar("Text")
Answer = TypeVar("Answer")
Result = TypeVar("Result")


class QueueFull(BbtuneError):
    """More waits than is allowed to; the same request may be taken in a moment."""


class _Request(Generic[Text, Answer]):
    """Texts that came together."""

    def __init__(self, texts: Sequence[Text], done: asyncio.Future[list[Answer]]) -> None:
        self.texts = texts
        self.done = done
        self.sent = 0  # to the model
        self.answers: list[Answer] = []

    def take(self, most: int) -> Sequence[Text]:
        """The next texts."""
        taken = self.texts[self.sent : self.sent + most]
        self.sent += len(taken)
        return taken


class Batcher(Generic[Text, Answer]):
    """One batch at a time, in a thread of its own; requests take turns, so that a long one does not block short ones.

    Args:
        work: from the texts of a batch to their answers, in order.
        most: texts of a batch.
        waiting: texts that may wait.
        seen: told the size of every batch.
    """

    def __init__(
        self,
        work: Callable[[Sequence[Text]], Sequence[Answer]],
        most: int,
        waiting: int,
        seen: Callable[[int], None] = lambda size: None,
    ) -> None:
        self._work = work
        self._most = most
        self._room = waiting
        self._seen = seen
        self._waiting: deque[_Request[Text, Answer]] = deque()
        self._running: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")

    async def ask(self, texts: Sequence[Text]) -> list[Answer]:
        """The answers of some texts, in order.

        Raises:
            QueueFull: if too much waits already.
        """
        if len(texts) > self._room:
            wait = "the server is busy; try again in a second, or send fewer texts at once"
            raise QueueFull(f"expected room for {len(texts)} texts in the queue, it has room for {self._room}; {wait}")
        request = _Request[Text, Answer](texts, asyncio.get_running_loop().create_future())
        self._room -= len(texts)
        self._waiting.append(request)
        if self._running is None:
            self._running = asyncio.create_task(self._run())
        return await request.done

    async def alone(self, work: Callable[[], Result]) -> Result:
        """The outcome of work that needs the model to itself, between two batches."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def _run(self) -> None:
        try:
            while self._waiting:
                await self._batch(self._next())
        finally:
            self._running = None

    def _next(self) -> list[tuple[_Request[Text, Answer], Sequence[Text]]]:
        """A share of the batch for each request that waits, more in a next round if there is room."""
        batch: dict[_Request[Text, Answer], list[Text]] = {}
        room = self._most
        while room and self._waiting:
            share = max(1, room // len(self._waiting))
            for request in [self._waiting.popleft() for _ in range(len(self._waiting))]:
                taken = [] if request.done.cancelled() else request.take(min(share, room))
                room -= len(taken)
                if taken:
                    batch.setdefault(request, []).extend(taken)
                if request.done.cancelled():
                    self._room += len(request.texts) - request.sent
                elif request.sent < len(request.texts):
                    self._waiting.append(request)
        return list(batch.items())

    async def _batch(self, parts: Sequence[tuple[_Request[Text, Answer], Sequence[Text]]]) -> None:
        texts = [text for _, part in parts for text in part]
        self._room += len(texts)
        if not texts:
            return
        self._seen(len(texts))
        try:
            answers = list(await asyncio.get_running_loop().run_in_executor(self._thread, self._work, texts))
        except Exception as error:  # whatever it is, it belongs to those who wait for it
            for request, _ in parts:
                self._forget(request)
                if not request.done.done():
                    request.done.set_exception(error)
            return
        for request, part in parts:
            request.answers += answers[: len(part)]
            del answers[: len(part)]
            if len(request.answers) == len(request.texts) and not request.done.done():
                request.done.set_result(request.answers)

    def _forget(self, request: _Request[Text, Answer]) -> None:
        """Take what is left of a request out of the queue."""
        if request in self._waiting:
            self._waiting.remove(request)
            self._room += len(request.texts) - request.sent
