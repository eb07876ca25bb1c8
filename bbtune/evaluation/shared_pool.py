"""A pool that several searches use: found, or made, by the name that its model gives it."""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from typing import Any

import bbtune
from bbtune.backbone.sources import read_model_card
from bbtune.errors import BbtuneError, DeadlineReached, EvaluationError
from bbtune.evaluation.keeper import Keeper, NotJoined
from bbtune.evaluation.ray_cluster import amounts, check_cluster, import_ray, joined_cluster, last_line, on_this_machine
from bbtune.evaluation.ray_host import ModelHost
from bbtune.search_plan import SearchPlan
from bbtune.spec import BaseJob

NAMESPACE = "bbtune"
_TRIES = 5  # to join; a pool may be ending, or be lost with its machine
_PAUSE_S = 1.0
_TELL_S = 10.0  # after which a wait is told
_OF_THE_READER = {"api", "kind", "max_tokens", "temperature"}  # parts of a backbone that do not change what is loaded


class SharedPool:
    """Runs the calls of one search on evaluators that serve others, too.

    Searches share where model, revision, dtype, device, the processors of an evaluator and the version of bbtune are
    the same. Each has data and prompts of its own on every evaluator; the model is there once.

    Args:
        plan: sent to every evaluator once.
        say: told where the pool is lost.
        host: class of the evaluators.

    Raises:
        ResourcesError: if the cluster has no room for an evaluator.
        BbtuneError: whatever the model raises while loading.
    """

    def __init__(
        self, plan: SearchPlan, say: Callable[[str], None] = lambda _: None, host: type[Any] = ModelHost
    ) -> None:
        self._ray = ray = import_ray()
        self._lost = (ray.exceptions.RayActorError, ray.exceptions.ObjectLostError)
        self._spec = plan.spec.evaluators
        self._say = say
        self._host = host
        self._search = uuid.uuid4().hex
        self._name = f"evaluators-{_fingerprint(plan)[:16]}"
        self._open = ExitStack()
        self._keeper: Any = None
        try:
            if self._open.enter_context(joined_cluster(ray)):
                check_cluster(ray, self._spec)
            self._plan = ray.put(plan)
            self._join()
        except BaseException:
            self.close()
            raise

    def run(self, method: str, calls: Sequence[tuple[object, ...]], deadline: float | None = None) -> list[Any]:
        """Results of ``method(*call)`` for each call, in the order of the calls."""
        return list(self._asked("run", (method, list(calls)), deadline))

    def each(self, method: str) -> list[Any]:
        """Results of ``method()`` of every evaluator."""
        return list(self._asked("each", (method,), None))

    def close(self) -> None:
        """Leave the pool; end the cluster if this pool started it."""
        if self._keeper is not None:
            with suppress(self._ray.exceptions.RayError):  # it is gone
                self._ray.get(self._keeper.leave.remote(self._search), timeout=_PAUSE_S)
        self._keeper = None
        self._open.close()

    def process_ids(self) -> list[int]:
        """Process id of each evaluator."""
        return list(self._ray.get(self._keeper.process_ids.remote()))

    def _asked(self, what: str, arguments: tuple[object, ...], deadline: float | None) -> Any:
        for _ in range(_TRIES):
            answer = getattr(self._keeper, what).remote(self._search, *arguments)
            try:
                return self._ray.get(self._waited(answer, _left(deadline)))
            except self._lost as error:
                self._say(f"the shared pool was lost ({last_line(error)}), joining another")
                self._join(deadline)
            except self._ray.exceptions.RayTaskError as error:
                if not isinstance(error.cause, NotJoined):
                    raise _translated(error) from error
                self._join(deadline)
        raise EvaluationError("the shared pool was lost again and again; nothing is lost: bbtune resume")

    def _waited(self, answer: Any, seconds: float | None) -> Any:
        """A reference to an answer that is there; what is waited for no longer ends in the pool, too.

        Raises:
            DeadlineReached: if it takes longer.
        """
        try:
            if self._ray.wait([answer], timeout=seconds)[0]:
                return answer
            raise DeadlineReached
        except BaseException:
            self._ray.cancel(answer)
            raise

    def _join(self, deadline: float | None = None) -> None:
        """Join the pool of this name; who comes first makes it, on a machine where a search runs."""
        options = {
            "name": self._name,
            "namespace": NAMESPACE,
            "get_if_exists": True,
            "lifetime": "detached",
            "num_cpus": 0,
            "max_concurrency": 1000,
            "enable_task_events": False,
            "scheduling_strategy": on_this_machine(self._ray, only=False),
        }
        cause: Exception | None = None
        for _ in range(_TRIES):
            try:
                self._keeper = self._ray.remote(Keeper).options(**options).remote(self._spec, self._host)
                joined = self._keeper.join.remote(self._search, [self._plan], self._spec.count)
                if not self._ray.wait([joined], timeout=min(_TELL_S, _left(deadline) or _TELL_S))[0]:
                    self._say(f"waiting for an evaluator of {amounts(self._spec)} of the shared pool")
                self._say(f"sharing a pool of {self._ray.get(self._waited(joined, _left(deadline)))} evaluators")
                return
            except self._ray.exceptions.RayTaskError as error:
                if not isinstance(error.cause, NotJoined):
                    raise _translated(error) from error
                cause = error  # it is about to end
            except (*self._lost, ValueError) as error:  # it ended at this moment
                cause = error
            time.sleep(_PAUSE_S)
        raise EvaluationError(f"expected to join a shared pool, {_TRIES} were lost ({last_line(cause)})") from cause


def pool_key(spec: BaseJob) -> str:
    """What jobs must have in common to share a pool, of what they say themselves."""
    evaluators = spec.evaluators.model_dump(include={"cpus", "gpus"}) | {"threads": spec.evaluators.threads}
    backbone = spec.backbone.model_dump(mode="json", exclude=_OF_THE_READER)
    return json.dumps([evaluators, backbone, bbtune.__version__], sort_keys=True)


def _fingerprint(plan: SearchPlan) -> str:
    """SHA-256 (hex) of that, and of the model's files."""
    files = read_model_card(plan.spec.backbone).fingerprint
    return hashlib.sha256((pool_key(plan.spec) + files).encode()).hexdigest()


def _left(deadline: float | None) -> float | None:
    """Seconds until a deadline, None without one."""
    return None if deadline is None else max(0.0, deadline - time.monotonic())


def _translated(error: Any) -> BbtuneError:
    cause = error.cause
    return cause if isinstance(cause, BbtuneError) else EvaluationError(f"the shared pool failed: {last_line(cause)}")
