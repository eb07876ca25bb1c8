"""What runs as the driver of a submitted job: ``python -m bbtune.coordinator job.yaml``.

It finds the run in the storage, begins it or goes on with it, and prints its result; of one that has ended it prints
the result alone. Nothing of a run lies in the working folder of the job, which Ray deletes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from bbtune.commands.studies import seeded, worked_through
from bbtune.commands.terminal import exit_in_words, shown
from bbtune.errors import Fault, JobError, ResourcesError
from bbtune.run_spec import TrackingSpec
from bbtune.spec import BaseJob
from bbtune.storage.place import STORAGE
from bbtune.study import Group, Study

_Made = TypeVar("_Made")
# A database in the working folder, which is where MLflow goes unless told otherwise, would be deleted with it.
_NO_MLFLOW = (
    "MLflow is told nothing: no tracking.uri in the job, and no MLFLOW_TRACKING_URI in the environment of the cluster; "
    "send it later: bbtune sync"
)


def coordinate(
    job: Annotated[Path, typer.Argument(help="Job or suite file (YAML).")],
    seeds: Annotated[str | None, typer.Option(help="Several runs, such as 13,21,42.")] = None,
) -> None:
    """Run a job, or a study of jobs, from where it stands."""
    from bbtune.jobfile import load_job
    from bbtune.suite import is_suite, read_suite

    if is_suite(job):
        study = read_suite(job, [], None)
        _check_storage(study.members[0].spec)
        _work_through(study)
        return
    spec = load_job(job)
    _check_storage(spec)
    if seeds is None:
        _run(spec)
    else:
        _work_through(seeded(spec, seeds, None))


def _run(spec: BaseJob) -> None:
    from bbtune import api
    from bbtune.storage.place import run_place

    place, tracked = run_place(spec), _has_mlflow(spec)
    typer.echo(f"run folder: {place}")
    if spec.tracking.enabled and not tracked:
        typer.echo(f"{_NO_MLFLOW} {place}")

    def work(show: Any) -> Any:
        return _patiently(lambda: api.bring_to_end(spec, place, show, tracked=tracked), show.say)

    shown(spec, place, work)


def _work_through(study: Study) -> None:
    typer.echo(f"study folder: {study.folder}")
    if any(member.spec.tracking.enabled and not _has_mlflow(member.spec) for member in study.members):
        typer.echo(f"{_NO_MLFLOW} {study.folder}/RUN")
        study = replace(study, groups=tuple(_untracked(group) for group in study.groups))
    worked_through(study)


def _untracked(group: Group) -> Group:
    off = {"tracking": TrackingSpec(enabled=False)}
    return replace(group, members=tuple(replace(m, spec=m.spec.model_copy(update=off)) for m in group.members))


def _has_mlflow(spec: BaseJob) -> bool:
    """Whether MLflow is to be told, and somebody has said where it is."""
    return spec.tracking.enabled and bool(spec.tracking.uri or os.environ.get("MLFLOW_TRACKING_URI"))


def _check_storage(spec: BaseJob) -> None:
    """Refuse what would lie in the working folder; a path that a job names is absolute since it was submitted."""
    if spec.storage:
        return
    told = os.environ.get(STORAGE)
    why = "the working folder of a submitted job is deleted"
    if not told:
        where = f"name a place that all machines see, here or as {STORAGE} in the environment of the cluster"
        raise JobError([Fault("storage", f"missing; {where}: {why}")])
    if "://" not in told and not os.path.isabs(os.path.expandvars(os.path.expanduser(told))):
        raise JobError([Fault(STORAGE, f"expected an absolute path in the cluster's environment, got {told}: {why}")])


def _patiently(work: Callable[[], _Made], say: Callable[[str], None]) -> _Made:
    """Do work that needs evaluators; while other jobs keep the cluster busy, wait for as long as it takes.

    Raises:
        ResourcesError: if the cluster has no room for an evaluator, were it idle.
    """
    from bbtune.evaluation.ray_hosts import BUSY_S

    while True:
        began = time.monotonic()
        try:
            return work()
        except ResourcesError as error:
            if time.monotonic() - began < BUSY_S:
                raise
            say(f"{error}; this job waits on")


def main() -> None:
    """Entry point."""
    exit_in_words(lambda: typer.run(coordinate))


if __name__ == "__main__":
    main()
