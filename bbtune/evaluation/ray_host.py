"""One evaluator on a Ray cluster: the actor with its frozen model, and the handle by which calls reach it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from bbtune.errors import BbtuneError, EvaluationError
from bbtune.evaluation.dispatch import Arguments, Lost
from bbtune.evaluation.ray_cluster import last_line
from bbtune.run_spec import EvaluatorsSpec

if TYPE_CHECKING:  # a keeper of shared pools loads no torch
    from bbtune.backbone.frozen import FrozenModel
    from bbtune.evaluation.worker import Worker
    from bbtune.search_plan import SearchPlan

_LONGEST = 120  # characters of why an actor is lost


class RayHost:
    """One actor, as a host of calls."""

    def __init__(self, ray: Any, kind: type[Any], spec: EvaluatorsSpec) -> None:
        self._ray = ray
        faults = ray.exceptions
        self._loss = (faults.RayActorError, faults.OutOfMemoryError, faults.NodeDiedError)
        # Ray would keep a record of every call, a hundred thousand of them, in the memory of the head.
        options = {"num_cpus": spec.cpus, "num_gpus": spec.gpus, "max_restarts": 0, "enable_task_events": False}
        self._actor = ray.remote(kind).options(**options).remote()
        self._prepared: set[str] = set()
        self._preparing: list[str] = []
        self.is_placed = False

    @property
    def loading(self) -> str | None:
        """The search that it is, or was when it was lost, being prepared for."""
        return self._preparing[0] if self._preparing else None

    def has_loaded(self, search: str) -> bool:
        """Whether it is prepared for a search."""
        return search in self._prepared and search not in self._preparing

    async def placed(self) -> None:
        """Wait until it has room and has started."""
        await self._answer(self._actor.process_id.remote())
        self.is_placed = True

    async def prepare(self, search: str, plan: Any) -> None:
        """Load what a search needs, once."""
        if search in self._prepared:
            return
        self._prepared.add(search)
        self._preparing.append(search)
        try:
            await self._answer(self._actor.prepare.remote(search, plan))
        except BbtuneError:
            self._preparing.remove(search)
            raise
        self._preparing.remove(search)

    async def start(self, search: str, method: str, calls: Sequence[Arguments]) -> list[Any]:
        """The answers to some calls, in one message."""
        try:
            return list(await self._answer(self._actor.run.remote(search, method, calls)))
        except EvaluationError as error:
            if not isinstance(error.__cause__, self._ray.exceptions.ObjectLostError):
                raise
            raise Lost("its machine is gone, and the answer with it") from error

    async def reached(self) -> None:
        """Wait until it has done what was begun before."""
        await self._answer(self._actor.process_id.remote())

    def forget(self, search: str) -> None:
        """Free what a search has left there."""
        self._prepared.discard(search)
        self._actor.forget.remote(search)

    def process_id(self) -> Any:
        """Reference to it."""
        return self._actor.process_id.remote()

    def kill(self) -> None:
        """End it, if it is there."""
        self.is_placed = False
        with suppress(self._ray.exceptions.RayError):  # of a cluster that is gone
            self._ray.kill(self._actor)

    async def _answer(self, reference: Any) -> Any:
        try:
            return await reference
        except self._loss as error:
            reason = last_line(error).split(". ")[0][:_LONGEST]  # Ray goes on for a page
            raise Lost(reason, excused=bool(self._preparing)) from error
        except self._ray.exceptions.RayError as error:
            cause = getattr(error, "cause", None)
            if isinstance(cause, BbtuneError):
                raise cause from error
            raise EvaluationError(f"an evaluator failed: {last_line(cause or error)}") from error


class ModelHost:
    """What runs in an actor: light to create, so that placement and loading can be told apart.

    The model is loaded once, with the first search; each search adds a worker of its own.
    """

    def __init__(self) -> None:
        self._model: FrozenModel | None = None
        self._workers: dict[str, Worker] = {}
        self._faults: dict[str, BbtuneError] = {}  # of those that have none

    def process_id(self) -> int:
        """Of this actor."""
        return os.getpid()

    def prepare(self, search: str, plan: SearchPlan) -> None:
        """Make the worker of a search."""
        from bbtune.evaluation.scorer import load_model
        from bbtune.evaluation.worker import Worker

        try:
            self._model = self._model or load_model(plan)
            self._workers[search] = Worker(plan, self._model)
        except BbtuneError as error:
            self._faults[search] = error
            raise

    def run(self, search: str, method: str, calls: Sequence[Arguments]) -> list[Any]:
        """``method(*call)`` of a search's worker for each call."""
        if search in self._faults:
            raise self._faults[search]
        work = getattr(self._workers[search], method)
        return [work(*call) for call in calls]

    def forget(self, search: str) -> None:
        """Free what a search has kept; the model stays."""
        self._workers.pop(search, None)
        self._faults.pop(search, None)
