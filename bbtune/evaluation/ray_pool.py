"""A pool of Ray actors, each with its own frozen model."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from typing import Any

from numpy.typing import NDArray

from bbtune.errors import BbtuneError, DeadlineReached, EvaluationError, ResourcesError
from bbtune.evaluation.ray_cluster import FEWER, amounts, check_cluster, import_ray, joined_cluster, last_line
from bbtune.search_plan import SearchPlan

_PLACEMENT_S = 120.0  # longest wait for Ray to find room for the actors and to start them
_AHEAD = 2  # calls that an actor holds, so that it never waits for the next
_DEATHS = 3  # actors lost in a row, without a result in between, that end the run

Result = NDArray[Any]


class RayPool:
    """Runs calls on ``count`` actors; results come in the order of the calls, whoever computed them.

    A call whose actor died goes to another one, and the actor is replaced. Inside a submitted job (RAY_ADDRESS is
    set) the actors run on its cluster, otherwise on a cluster of this process.

    Args:
        plan: sent to every actor once.

    Raises:
        ResourcesError: if the cluster has no room for the actors.
        BbtuneError: whatever the model raises while loading.
    """

    def __init__(self, plan: SearchPlan) -> None:
        ray = import_ray()
        self._ray = ray
        self._spec = plan.spec.evaluators
        faults = ray.exceptions
        self._lost = (faults.RayActorError, faults.OutOfMemoryError, faults.NodeDiedError, faults.ObjectLostError)
        self._cluster = ExitStack()
        self._cluster.enter_context(joined_cluster(ray))
        self._plan = ray.put(plan)
        self._actors: list[Any] = []
        try:
            check_cluster(ray, self._spec)
            self._actors = [self._new_actor() for _ in range(self._spec.count)]
            self._await_placement(self._actors)
            self._load(self._actors)
        except BaseException:
            self.close()
            raise

    def run(self, method: str, calls: Sequence[tuple[object, ...]], deadline: float | None = None) -> list[Result]:
        """Results of ``method(*call)`` for each call, in the order of the calls."""
        results: dict[int, Result] = {}
        waiting = deque(range(len(calls)))
        flying: dict[Any, tuple[int, int]] = {}  # reference -> (call, actor)
        deaths = 0
        while len(results) < len(calls):
            for actor in sorted(range(len(self._actors)), key=lambda a: _held(flying, a)):
                while waiting and _held(flying, actor) < _AHEAD:
                    call = waiting.popleft()
                    flying[self._actors[actor].run.remote(method, calls[call])] = (call, actor)
            done, _ = self._ray.wait(list(flying), timeout=_left(deadline))
            if not done:
                raise DeadlineReached("the budget of seconds ended inside a generation")
            call, actor = flying.pop(done[0])
            try:
                results[call] = self._ray.get(done[0])
                deaths = 0
            except self._lost as error:
                lost = [ref for ref, (_, holder) in flying.items() if holder == actor]
                waiting.extendleft(sorted([call, *(flying.pop(ref)[0] for ref in lost)], reverse=True))
                deaths += 1
                self._replace(actor, deaths, error)
            except self._ray.exceptions.RayError as error:
                raise _translated(error) from error
        return [results[call] for call in range(len(calls))]

    def each(self, method: str) -> list[Any]:
        """Results of ``method()`` of every actor; one that was lost since its last call has none."""
        found = []
        for answer in [actor.run.remote(method, ()) for actor in self._actors]:
            with suppress(*self._lost):
                found.append(self._ray.get(answer))
        return found

    def close(self) -> None:
        """End the actors, and the cluster if this pool started it."""
        for actor in self._actors:
            self._ray.kill(actor)
        self._actors = []
        self._cluster.close()

    def process_ids(self) -> list[int]:
        """Process id of each actor."""
        return [int(pid) for pid in self._ray.get([actor.process_id.remote() for actor in self._actors])]

    def _new_actor(self) -> Any:
        options = {"num_cpus": self._spec.cpus, "num_gpus": self._spec.gpus, "max_restarts": 0}
        return self._ray.remote(_Host).options(**options).remote()

    def _replace(self, actor: int, deaths: int, cause: Exception) -> None:
        if deaths >= _DEATHS:
            raise EvaluationError(
                f"{deaths} evaluators in a row died before they gave a result (out of memory?); nothing is lost: "
                f"{FEWER} or use a smaller model, then bbtune resume"
            ) from cause
        self._actors[actor] = self._new_actor()
        try:
            self._await_placement([self._actors[actor]])
            self._load([self._actors[actor]])
        except _DiedLoading as error:
            self._replace(actor, deaths + 1, error)

    def _await_placement(self, actors: list[Any]) -> None:
        pings = [actor.process_id.remote() for actor in actors]
        placed, missing = self._ray.wait(pings, num_returns=len(pings), timeout=_PLACEMENT_S)
        if missing:
            raise ResourcesError(
                f"expected room for {len(pings)} evaluators of {amounts(self._spec)} each, after {_PLACEMENT_S:.0f} s "
                f"{len(placed)} have started (the cluster is full, or too busy to start them); "
                f"free now: {_shown(self._ray.available_resources())}; {FEWER}, or wait until other work ends"
            )

    def _load(self, actors: list[Any]) -> None:
        try:
            self._ray.get([actor.load.remote(self._plan) for actor in actors])
        except self._lost as error:
            raise _DiedLoading(
                f"an evaluator died while it loaded the model (out of memory?); {FEWER} or use a smaller model"
            ) from error
        except self._ray.exceptions.RayError as error:
            raise _translated(error) from error


class _DiedLoading(EvaluationError):
    """An actor was lost before it could answer its first call."""


class _Host:
    """What runs in an actor: light to create, so that placement and loading can be told apart."""

    def load(self, plan: SearchPlan) -> None:
        from bbtune.evaluation.worker import Worker

        self._worker = Worker(plan)

    def run(self, method: str, call: tuple[object, ...]) -> Any:
        return getattr(self._worker, method)(*call)

    def process_id(self) -> int:
        return os.getpid()


def _held(flying: dict[Any, tuple[int, int]], actor: int) -> int:
    return sum(holder == actor for _, holder in flying.values())


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - time.monotonic())


def _translated(error: Any) -> BbtuneError:
    cause = getattr(error, "cause", None)
    if isinstance(cause, BbtuneError):
        return cause
    return EvaluationError(f"an evaluator failed: {last_line(cause or error)}")


def _shown(resources: dict[str, float]) -> str:
    return ", ".join(f"{resources.get(name, 0.0):g} {name}s" for name in ("CPU", "GPU"))
