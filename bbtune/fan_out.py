"""The runs of a study on a Ray cluster, as many at a time as it has room for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bbtune.errors import BbtuneError
from bbtune.evaluation.ray_cluster import check_cluster, import_ray, joined_cluster, last_line
from bbtune.evaluation.shared_pool import pool_key
from bbtune.run_spec import EvaluatorsSpec
from bbtune.spec import BaseJob
from bbtune.study import Member

_LOSSES = 2  # of a run's process or machine, after each of which it goes on elsewhere

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
    Those that share a pool take its processors once, and one more runs at a time than the pool has evaluators.

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
        waiting = list(members)
        flying: dict[Any, Member] = {}
        while waiting or flying:
            # With nothing flying all is free, whatever the sums say.
            while waiting and (not flying or _may_begin(waiting[0], list(flying.values()), total)):
                member = waiting.pop(0)
                flying[_begin(ray, work, member)] = member
            (done,), _ = ray.wait(list(flying), num_returns=1)
            yield Ended(flying.pop(done), _fault(ray, done))


def _whole(spec: EvaluatorsSpec) -> EvaluatorsSpec:
    """What a run takes: without evaluators, its own process is one."""
    return spec if spec.count else spec.model_copy(update={"count": 1, "cpus": float(spec.threads)})


def _taken(members: Sequence[Member]) -> dict[str, float]:
    """Processors that runs take together."""
    by_size = sorted(members, key=lambda member: member.spec.evaluators.count)  # a pool has as many as any asks for
    owners = {_pool(member.spec) or str(member.folder): _whole(member.spec.evaluators) for member in by_size}
    return {
        "CPU": sum(of.cpus * of.count for of in owners.values()),
        "GPU": sum(of.gpus * of.count for of in owners.values()),
    }


def _may_begin(member: Member, flying: Sequence[Member], total: Mapping[str, float]) -> bool:
    asked = _endpoints(member.spec)
    if any(asked & _endpoints(other.spec) for other in flying):
        return False
    pool = _pool(member.spec)
    if pool is not None and sum(_pool(other.spec) == pool for other in flying) > member.spec.evaluators.count:
        return False
    return all(taken <= total.get(name, 0.0) for name, taken in _taken([*flying, member]).items())


def _pool(spec: BaseJob) -> str | None:
    """What names the pool that a run shares, None for one that does not."""
    return pool_key(spec) if spec.evaluators.pool == "shared" else None


def _endpoints(spec: BaseJob) -> set[str]:
    """Addresses that a run asks; a server that it starts is its own."""
    return {api.base_url for api in spec.apis.values() if api.base_url is not None}


def _begin(ray: Any, work: Work, member: Member) -> Any:
    """Start one run; one with evaluators leaves the processors to them.

    Its process ends with it: what an earlier run left in memory would count as its own. Where the process or its
    machine is lost, Ray starts it elsewhere, and it goes on from its journal.
    """
    spec = member.spec.evaluators
    own = {"num_cpus": 0} if spec.count else {"num_cpus": spec.threads, "num_gpus": spec.gpus}
    return ray.remote(max_calls=1, max_retries=_LOSSES, **own)(_run).remote(
        work, member.spec, str(member.folder.absolute())
    )


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
