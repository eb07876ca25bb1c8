"""A pool of Ray actors for one search, each with its own frozen model."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import ExitStack
from typing import Any, TypeVar

from bbtune.errors import DeadlineReached
from bbtune.evaluation.ray_cluster import check_cluster, import_ray, joined_cluster
from bbtune.evaluation.ray_host import ModelHost
from bbtune.evaluation.ray_hosts import RayHosts
from bbtune.search_plan import SearchPlan

_END_S = 10.0  # longest wait for the pool's own thread
_SEARCH = "this"

T = TypeVar("T")


class RayPool:
    """Runs calls on up to ``count`` actors; results come in the order of the calls, whoever computed them.

    Inside a submitted job (RAY_ADDRESS is set) the actors run on its cluster, otherwise on a cluster of this process.
    A call whose actor is lost goes to another one, and the actor is replaced; actors for which there is no room
    join when there is.

    Args:
        plan: sent to every actor once.
        say: told what becomes of the actors.
        host: class of the actors.

    Raises:
        ResourcesError: if the cluster has no room for an actor.
        BbtuneError: whatever the model raises while loading.
    """

    def __init__(
        self, plan: SearchPlan, say: Callable[[str], None] = lambda _: None, host: type[Any] = ModelHost
    ) -> None:
        ray = import_ray()
        self._ray = ray
        spec = plan.spec.evaluators
        self._open = ExitStack()
        try:
            if self._open.enter_context(joined_cluster(ray)):  # to which nobody adds machines
                check_cluster(ray, spec)
            self._loop = self._open.enter_context(_Loop())
            self._hosts = RayHosts(ray, spec, say, host)
            self._open.callback(lambda: self._loop.call(self._closed()))
            self._loop.call(self._hosts.join(_SEARCH, ray.put(plan), spec.count))
        except BaseException:
            self.close()
            raise

    def run(self, method: str, calls: Sequence[tuple[object, ...]], deadline: float | None = None) -> list[Any]:
        """Results of ``method(*call)`` for each call, in the order of the calls."""
        return self._loop.call(self._hosts.run(_SEARCH, method, calls), deadline)

    def each(self, method: str) -> list[Any]:
        """Results of ``method()`` of every actor; one that was lost since its last call has none."""
        return self._loop.call(self._hosts.each(_SEARCH, method))

    def close(self) -> None:
        """End the actors, and the cluster if this pool started it."""
        self._open.close()

    def process_ids(self) -> list[int]:
        """Process id of each actor."""
        return [int(number) for number in self._ray.get(self._hosts.process_ids())]

    async def _closed(self) -> None:
        self._hosts.close()


class _Loop:
    """An event loop in a thread of its own, so that a notebook's loop is not in its way."""

    def __enter__(self) -> _Loop:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="bbtune-pool", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.call(self._cancelled())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_END_S)
        self._loop.close()

    def call(self, work: Coroutine[Any, Any, T], deadline: float | None = None) -> T:
        """The result of a coroutine.

        Args:
            deadline: on the clock of :func:`time.monotonic`.
        """
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(None if deadline is None else max(0.0, deadline - time.monotonic()))
        except TimeoutError as error:
            raise DeadlineReached from error
        finally:
            future.cancel()  # of one that an interruption or the deadline cut off

    @staticmethod
    async def _cancelled() -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
