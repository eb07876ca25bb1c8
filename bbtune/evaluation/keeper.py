"""The actor that keeps a shared pool: searches join and leave it, and it ends when nobody has used it for a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from bbtune.evaluation.dispatch import Arguments
from bbtune.evaluation.ray_cluster import import_ray
from bbtune.evaluation.ray_hosts import RayHosts
from bbtune.run_spec import EvaluatorsSpec

_LOOK_S = 1.0
_FIRST_S = 60.0  # until the first call comes, which may be slow


class NotJoined(Exception):
    """The pool does not know a search: it never joined, has left, or was silent for so long that it was forgotten."""


class Keeper:
    """Serves any number of searches with the evaluators of one model.

    It holds neither model nor data: references to plans pass through it, and messages of kilobytes.

    Args:
        spec: of the evaluators, as the first search asks for them. After ``idle_s`` a search that asks nothing is
            forgotten, and the pool without one ends.
        host: class of the evaluators.
    """

    def __init__(self, spec: EvaluatorsSpec, host: type[Any]) -> None:
        self._ray = import_ray()
        self._hosts = RayHosts(self._ray, spec, lambda _: None, host)
        self._idle_s = spec.idle_s
        self._heard: dict[str, float] = {}  # when a search last asked
        self._joining: set[str] = set()
        self._left: set[str] = set()
        self._last = time.monotonic() + _FIRST_S
        self._ray.get_runtime_context().current_actor.keep_house.remote()

    async def join(self, search: str, plan: Sequence[Any], count: int) -> int:
        """Take in a search.

        Args:
            plan: a reference to it, in a list, so that it is not fetched to here.
            count: evaluators that it asks for; the pool has as many as the one that asks for most.

        Raises:
            NotJoined: if the pool has failed and is about to end.

        Returns:
            How many evaluators are there; none where the search has left, as calls that are sent while the pool starts
            may change places.
        """
        if search in self._left:
            return 0
        if self._hosts.has_failed:
            raise NotJoined(search)
        self._joining.add(search)
        self._hear(search)
        try:
            await self._hosts.join(search, plan[0], count)
        except BaseException:
            self.forget(search)
            raise
        finally:
            self._joining.discard(search)
        self._hear(search)
        return self._hosts.count

    async def run(self, search: str, method: str, calls: Sequence[Arguments]) -> list[Any]:
        """Answers to ``method(*call)`` for each call, in the order of the calls.

        Raises:
            NotJoined: if it must join first.
        """
        self._check(search)
        try:
            return await self._hosts.run(search, method, calls)
        finally:
            self._hear(search)

    async def each(self, search: str, method: str) -> list[Any]:
        """Answers to ``method()`` of every evaluator."""
        self._check(search)
        return await self._hosts.each(search, method)

    async def leave(self, search: str) -> None:
        """Let a search go for good."""
        self._left.add(search)
        self.forget(search)

    async def process_ids(self) -> list[int]:
        """Of the evaluators that are there."""
        found = await asyncio.gather(*self._hosts.process_ids(), return_exceptions=True)
        return [int(number) for number in found if not isinstance(number, BaseException)]

    async def keep_house(self) -> None:
        """Forget silent searches, and end the pool when none has been there for a time."""
        while not self._hosts.has_failed and (self._heard or time.monotonic() - self._last < self._idle_s):
            await asyncio.sleep(min(_LOOK_S, self._idle_s))
            now, busy = time.monotonic(), self._hosts.searches | self._joining
            for search in [search for search, heard in self._heard.items() if now - heard > self._idle_s]:
                if search not in busy:
                    self.forget(search)
        self._hosts.close()
        self._ray.actor.exit_actor()

    def forget(self, search: str) -> None:
        """Free what a search has left."""
        self._heard.pop(search, None)
        self._last = time.monotonic()
        self._hosts.leave(search)

    def _check(self, search: str) -> None:
        if search not in self._heard:
            raise NotJoined(search)
        self._hear(search)

    def _hear(self, search: str) -> None:
        self._last = time.monotonic()
        if search not in self._left:
            self._heard[search] = self._last
