"""The runs of a study on a Ray cluster, as many at a time as it has room for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bbtune.errors import BbtuneError
from bbtune.evaluation.ray_cluster import check_cluster, import_ray, joined_cluster, last_line
from bbtune.spec import BaseJob, EvaluatorsSpec
from bbtune.study import Member

Work = Callable[[BaseJob, Path], None]


@dataclass(frozen=True)
class Ended:
    """A run that has ended; ``fault`` says why it has no result, None where it has one."""

    member: Member
    fault: str | None


def fan_out(members: Sequence[Member], work: Work) -> Iterator[Ended]:
    """Run ``work(spec, folder)`` for every member, in processes of their own.

    A run takes the processors of its evaluators; one without evaluators takes those of its own process. Runs begin in
    the order given, as soon as there is room. Those that ask the same endpoint take turns: its limits are for all.

    Yields:
        Runs as they end, whatever becomes of them.

    Raises:
        ResourcesError: if the whole cluster has no room for one of them.
    """
    ray = import_ray()
    with joined_cluster(ray):
        for member in members:
            check_cluster(ray, _whole(member.spec.evaluators))
        total = ray.cluster_resources()
        free = {name: total.get(name, 0.0) for name in ("CPU", "GPU")}
        waiting = list(members)
        flying: dict[Any, tuple[Member, dict[str, float]]] = {}
        while waiting or flying:
            # With nothing flying all is free, whatever the sums say.
            while waiting and (_may_begin(waiting[0], [of for of, _ in flying.values()], free) or not flying):
                member = waiting.pop(0)
                needs = _needs(member.spec.evaluators)
                flying[_begin(ray, work, member)] = (member, needs)
                free = {name: free[name] - needs[name] for name in free}
            (done,), _ = ray.wait(list(flying), num_returns=1)
            member, needs = flying.pop(done)
            free = {name: free[name] + needs[name] for name in free}
            yield Ended(member, _fault(ray, done))


def _whole(spec: EvaluatorsSpec) -> EvaluatorsSpec:
    """What a run takes: without evaluators, its own process is one."""
    return spec if spec.count else spec.model_copy(update={"count": 1, "cpus": float(spec.threads)})


def _needs(spec: EvaluatorsSpec) -> dict[str, float]:
    whole = _whole(spec)
    return {"CPU": whole.cpus * whole.count, "GPU": whole.gpus * whole.count}


def _may_begin(member: Member, flying: Sequence[Member], free: dict[str, float]) -> bool:
    asked = _endpoints(member.spec)
    taken = any(asked & _endpoints(other.spec) for other in flying)
    return not taken and _fits(_needs(member.spec.evaluators), free)


def _endpoints(spec: BaseJob) -> set[str]:
    """Addresses that a run asks; a server that it starts is its own."""
    return {api.base_url for api in spec.apis.values() if api.base_url is not None}


def _fits(needs: dict[str, float], free: dict[str, float]) -> bool:
    return all(needs[name] <= free[name] for name in needs)


def _begin(ray: Any, work: Work, member: Member) -> Any:
    """Start one run; one with evaluators leaves the processors to them.

    Its process ends with it: what an earlier run left in memory would count as its own.
    """
    spec = member.spec.evaluators
    own = {"num_cpus": 0} if spec.count else {"num_cpus": spec.threads, "num_gpus": spec.gpus}
    return ray.remote(max_calls=1, max_retries=0, **own)(_run).remote(work, member.spec, str(member.folder.absolute()))


def _run(work: Work, spec: BaseJob, folder: str) -> None:
    work(spec, Path(folder))


def _fault(ray: Any, done: Any) -> str | None:
    try:
        ray.get(done)
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        return str(cause) if isinstance(cause, BbtuneError) else last_line(error)
    except ray.exceptions.RayError as error:
        return f"its process was lost ({last_line(error)}); run the study again to go on with it"
    return None
