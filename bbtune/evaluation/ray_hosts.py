"""Evaluators on a Ray cluster: actors with a frozen model, replaced when lost, joined when there is room."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from bbtune.errors import BbtuneError, EvaluationError, ResourcesError
from bbtune.evaluation.dispatch import Arguments, Dispatcher, Lost, Served
from bbtune.evaluation.ray_cluster import FEWER, amounts, last_line, room
from bbtune.evaluation.ray_host import RayHost
from bbtune.run_spec import EvaluatorsSpec

NO_ROOM_S = 120.0  # longest wait for a machine that could hold an evaluator
BUSY_S = 3600.0  # longest wait where one could, but is busy
_GATHER_S = 10.0  # after the first evaluator is there, for the others
_TELL_S = 5.0  # after which a wait is told
_LOOK_S = 0.5
_DEATHS = 3  # of actors in one place, without an answer in between, after which none is started there any more

Say = Callable[[str], None]


class RayHosts:
    """Keeps up to so many actors at work for any number of searches.

    An actor that is lost is replaced; one for which there is no room joins when there is.

    Args:
        ray: the library, connected to a cluster.
        spec: of the evaluators.
        say: told what becomes of them.
        host: class of the actors.
    """

    def __init__(self, ray: Any, spec: EvaluatorsSpec, say: Say, host: type[Any]) -> None:
        self._ray = ray
        self._spec = spec
        self._say = say
        self._kind = host
        self._calls = Dispatcher()
        self._plans: dict[str, Any] = {}
        self._places: dict[asyncio.Task[None], RayHost | None] = {}
        self._most = 0  # places that were asked for
        self._guard: asyncio.Task[None] | None = None
        self._fault: BbtuneError | None = None
        self._ready: dict[str, asyncio.Future[None]] = {}
        self._refusals: dict[str, BbtuneError] = {}

    @property
    def has_failed(self) -> bool:
        """Whether it has given up."""
        return self._fault is not None

    @property
    def count(self) -> int:
        """Evaluators that are there."""
        return self._calls.hosts

    @property
    def searches(self) -> set[str]:
        """Those whose calls are at work or wait."""
        return self._calls.searches

    async def join(self, search: str, plan: Any, count: int) -> None:
        """Take in a search; when this returns, its calls can be answered.

        Args:
            plan: reference to it, for the workers.
            count: evaluators that it asks for.

        Raises:
            ResourcesError: if there is no room for an evaluator.
            BbtuneError: whatever the model raises while loading.
        """
        self._check(search)
        self._plans[search] = plan
        ready = self._ready[search] = asyncio.get_running_loop().create_future()
        for host in self._present():
            asyncio.create_task(self._prepare(host, search)).add_done_callback(_unheard)
        self._most = max(self._most, count)
        self._open_places()
        if self._guard is None or self._guard.done():
            self._guard = asyncio.create_task(self._watch())
        await ready
        await self._gather(count)

    async def run(self, search: str, method: str, calls: Sequence[Arguments]) -> list[Any]:
        """Answers to ``method(*call)`` for each call, in the order of the calls."""
        self._check(search)
        return await self._calls.run(search, method, calls)

    async def each(self, search: str, method: str) -> list[Any]:
        """Answers to ``method()`` of every evaluator."""
        self._check(search)
        return await self._calls.each(search, method)

    def leave(self, search: str) -> None:
        """Let the evaluators forget a search."""
        self._plans.pop(search, None)
        self._refusals.pop(search, None)
        if (ready := self._ready.pop(search, None)) is not None:
            ready.cancel()  # of one that gives up while it joins
        self._calls.forget(search)
        for host in self._present():
            host.forget(search)
        if self._plans and self._fault is None:
            self._open_places()  # those that were given up may have been for its sake

    def process_ids(self) -> list[Any]:
        """References to the process id of each evaluator that is there."""
        return [host.process_id() for host in self._present()]

    def close(self) -> None:
        """End all evaluators."""
        for task in [*self._places, *([self._guard] if self._guard else [])]:
            task.cancel()
        for host in self._places.values():
            if host is not None:
                host.kill()
        self._places.clear()

    def _check(self, search: str) -> None:
        if (fault := self._fault or self._refusals.get(search)) is not None:
            raise fault

    def _present(self) -> list[RayHost]:
        return [host for host in self._places.values() if host is not None and host.is_placed]

    def _open_places(self) -> None:
        for _ in range(self._most - len(self._places)):
            task = asyncio.create_task(self._fill())
            self._places[task] = None
            task.add_done_callback(self._closed)

    async def _fill(self) -> None:
        """Keep one actor at work, the next when it is lost."""
        place = asyncio.current_task()
        assert place is not None  # for mypy
        deaths: Counter[str | None] = Counter()  # in a row, by what was being loaded
        while True:
            host = self._places[place] = RayHost(self._ray, self._kind, self._spec)
            served = Served(0, "", False)
            try:
                await host.placed()
                for search in list(self._plans):
                    await self._prepare(host, search)
                    del deaths[search]
                served = await self._calls.serve(host)
                reason = served.loss
            except (Lost, BbtuneError) as loss:
                reason = str(loss)
            host.kill()
            if served.answered:
                deaths.clear()
            over = host.loading
            if not served.blamed and (over is None or over in self._plans):
                deaths[over] += 1  # else a call did it, and will end its search, or a search that has left
            if deaths[over] == _DEATHS:
                if not self._refused(over, reason):
                    break
                del deaths[over]
            self._say(f"an evaluator was lost ({reason}), another takes its place")
        self._places.pop(place)
        self._say(f"{_DEATHS} evaluators in a row were lost ({reason}), no other takes their place")
        if not self._places:
            self._fail(_too_many(reason))

    def _refused(self, search: str | None, reason: str) -> bool:
        """Whether evaluators are lost over a search that none has loaded; it is sent away, and the others go on."""
        if search is None or len(self._plans) == 1 or any(host.has_loaded(search) for host in self._present()):
            return False
        error = self._refusals[search] = EvaluationError(
            f"{_DEATHS} evaluators in a row died while they loaded this search ({reason}; out of memory?), and others "
            "share them; nothing is lost: bbtune resume DIR --set evaluators.pool=private, on larger machines"
        )
        self._calls.fail(error, search)
        if not self._ready[search].done():
            self._ready[search].set_exception(error)
        del self._plans[search]
        return True

    def _closed(self, task: asyncio.Task[None]) -> None:
        """Nobody would wait for what a place that ended by a fault of the machinery was to give."""
        if not task.cancelled() and (fault := task.exception()) is not None:
            self._places.pop(task, None)
            self._fail(EvaluationError(f"an evaluator could not be kept ({last_line(fault)}); nothing is lost: resume"))

    async def _prepare(self, host: RayHost, search: str) -> None:
        """Load the model, if that is not done, and what a search adds to it."""
        plan, ready = self._plans.get(search), self._ready.get(search)
        if plan is None or ready is None:
            return
        try:
            await host.prepare(search, plan)
        except Lost as loss:
            self._calls.lose(host, loss)  # the next one in its place prepares the search
            raise
        except BbtuneError as error:
            if not ready.done():
                ready.set_exception(error)
            self._calls.fail(error, search)
        else:
            if not ready.done():
                ready.set_result(None)

    async def _gather(self, count: int) -> None:
        """Wait a little for those that are starting, so that the first generation has them."""
        most = min(count, room(self._ray, self._spec))
        for _ in range(round(_GATHER_S / _LOOK_S)):
            if self._calls.hosts >= most:
                break
            await asyncio.sleep(_LOOK_S)
        if (here := self._calls.hosts) < count:
            self._say(f"{here} of {count} evaluators are there; the others join when the cluster has room for them")

    async def _watch(self) -> None:
        """End the searches that have waited too long for any evaluator."""
        waited, told = 0.0, False
        while self._places:
            await asyncio.sleep(_LOOK_S)
            waited = waited + _LOOK_S if not self._present() else 0.0
            told = told and waited > 0
            fits = not waited or room(self._ray, self._spec) > 0
            if waited >= _TELL_S and not told:
                told = True
                self._say(f"waiting for room for an evaluator of {amounts(self._spec)}; {self._free()}")
            if waited >= (limit := BUSY_S if fits else NO_ROOM_S):
                self._fail(
                    ResourcesError(
                        f"expected room for an evaluator of {amounts(self._spec)}, there was none for {limit:.0f} s; "
                        f"{self._free()}; lower evaluators.cpus or evaluators.gpus, add machines, or wait until other "
                        "work ends"
                    )
                )

    def _free(self) -> str:
        free, total = self._ray.available_resources(), self._ray.cluster_resources()
        shown = (f"{free.get(name, 0.0):g} of {total.get(name, 0.0):g} {name}s" for name in ("CPU", "GPU"))
        return f"free now: {', '.join(shown)}"

    def _fail(self, error: BbtuneError) -> None:
        self._fault = error
        for ready in self._ready.values():
            if not ready.done():
                ready.set_exception(error)
        self._calls.fail(error)
        self.close()


def _too_many(reason: str) -> EvaluationError:
    return EvaluationError(
        f"{_DEATHS} evaluators in a row died before they gave a result ({reason}; out of memory?); nothing is lost: "
        f"{FEWER} or use a smaller model, then bbtune resume"
    )


def _unheard(task: asyncio.Task[None]) -> None:
    """Take note of how a task ended: those who wait were told otherwise."""
    if not task.cancelled():
        task.exception()
