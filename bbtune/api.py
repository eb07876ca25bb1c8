"""Run, resume, check and record jobs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from bbtune.backbone.sources import ModelCard, check_memory
from bbtune.backbone_spec import BackboneSpec
from bbtune.endpoint_spec import NOT_OF_THE_TRACE
from bbtune.errors import BbtuneError, Fault, JobError, JournalError
from bbtune.examine import NOTHING, examine, make_plan
from bbtune.jobfile import load_job
from bbtune.journal import Journal, read_journal
from bbtune.optimizers.own import MakeOptimizer
from bbtune.own import Job, Own
from bbtune.plan import Card
from bbtune.probing import forecast_job
from bbtune.progress import Show
from bbtune.result import JOURNAL, RESULT, SPEC, STUDY, TuneResult, study_hint
from bbtune.run_spec import MONEY
from bbtune.session import Session, check_same_run, recorded_events, run_card, start_record
from bbtune.source_names import local_path
from bbtune.spec import BaseJob, TextJob
from bbtune.storage.home import Home, fetched, home_of
from bbtune.storage.place import Place, place_named, run_place
from bbtune.task.data import TaskData
from bbtune.text_spec import WriterSpec
from bbtune.tracking import send_all

_Asking = TypeVar("_Asking", BackboneSpec, WriterSpec)


def run(
    job: Job,
    out: str | Path | None = None,
    show: Show | None = None,
    *,
    task: TaskData | None = None,
    optimizer: MakeOptimizer | None = None,
) -> TuneResult:
    """Run a job to its end.

    Args:
        job: path of a job file, or the job itself.
        out: run folder, or an address such as ``s3://bucket/run``; without it ``STORAGE/<name>-<short hash>``, with
            the job's storage, or ``runs``.
        show: told of every generation.
        task: texts and labels in memory, in place of the job's; the run says ``task.source: object:NAME``.
        optimizer: a class of yours, such as one derived from :class:`bbtune.AskTell`, in place of the job's; the run
            says ``method.optimizer: own:NAME``.

    Raises:
        JobError: with every fault of the job.
        BbtuneError: if the folder holds a run already, or the machinery fails; what was scored is kept.
    """
    own = Own(task, optimizer)
    spec = _spec(job, own)
    with home_of(run_place(spec) if out is None else place_named(str(out))) as home:
        return _begin(spec, home, show, spec.tracking.enabled, None, own)


def begin(
    spec: BaseJob, place: Place, show: Show | None = None, *, tracked: bool, shared: Path | None = None
) -> TuneResult:
    """As :func:`run`.

    Args:
        tracked: whether MLflow is told meanwhile.
        shared: folder that the run shares with others of its study.
    """
    with home_of(place) as home:
        return _begin(spec, home, show, tracked, shared)


def _begin(
    spec: BaseJob, home: Home, show: Show | None, tracked: bool, shared: Path | None, own: Own = NOTHING
) -> TuneResult:
    _refuse_used(home)
    plan, task, card = make_plan(spec, own)
    spec = plan.spec  # with everything chosen, so that the run does not change with the rules of choice
    _check_memory(card, spec)
    home.path.mkdir(parents=True, exist_ok=True)
    with Journal(home.path / JOURNAL, home.sink) as journal:
        if journal.records:  # another process was quicker
            _refuse_used(home)
        (home.path / SPEC).write_text(spec.to_yaml(), encoding="utf-8")
        home.keep(SPEC)
        journal.append(start_record(plan, task, card))
        result = Session(journal, plan, task, show, shared, own.optimizer).finish(tracked)
    home.keep_all()
    return result


def resume(
    folder: str | Path,
    changes: Sequence[str] = (),
    show: Show | None = None,
    *,
    task: TaskData | None = None,
    optimizer: MakeOptimizer | None = None,
) -> TuneResult:
    """Go on with a run that was cut off; the result is that of a run that was not.

    Args:
        folder: of the run, or its address.
        changes: ``key.path=value`` each, of what is not of the trace: ``evaluators.count``, caps on money, the pace of
            an API.
        show: told of every generation.
        task, optimizer: as the run had them, where it had any.

    Raises:
        JobError: if the run had a task or optimizer of a program that is not given again.
        JournalError: if the folder holds no run, or its data or model have changed since.
    """
    with home_of(place_named(str(folder))) as home:
        if not (home.path / RESULT).is_file():
            spec = _begun(home, changes)
            return _go_on(spec, home, show, spec.tracking.enabled, None, Own(task, optimizer))
        result = TuneResult.load(home.path)
    if changes and show is not None:
        mend = "run the job with that in another folder (--out); what an API has answered is in the cache"
        show.say(f"the run has ended ({result.stop_reason}), {', '.join(changes)} changes nothing any more: {mend}")
    return result


def _go_on(
    spec: BaseJob, home: Home, show: Show | None, tracked: bool, shared: Path | None, own: Own = NOTHING
) -> TuneResult:
    with Journal(home.path / JOURNAL, home.sink) as journal:
        plan, task, card = make_plan(spec, own)
        _check_memory(card, spec)
        now = start_record(plan, task, card)
        if not journal.records:  # killed before the first line was whole
            journal.append(now)
        for difference in check_same_run(journal.records[0], now):
            if show is not None:
                show.say(difference)
        result = Session(journal, plan, task, show, shared, own.optimizer).finish(tracked)
    home.keep_all()
    return result


def bring_to_end(
    spec: BaseJob, place: Place, show: Show | None = None, *, tracked: bool, shared: Path | None = None
) -> TuneResult:
    """Run a job from where it stands: from its start, from where it was cut off, or not at all where it has ended.

    What is not of the trace is as the job says now, not as it was said when the run began; so is the place of local
    data and models, whose content the journal knows.

    Args:
        place: of its run, or of the run that is to be.
        tracked: whether MLflow is told meanwhile.
        shared: folder that the run shares with others of its study.

    Raises:
        BbtuneError: as :func:`run` and :func:`resume`.
    """
    with home_of(place) as home:
        if (home.path / RESULT).is_file():
            return TuneResult.load(home.path)
        journal = home.path / JOURNAL
        if not (home.path / SPEC).is_file() or not journal.is_file() or not journal.stat().st_size:
            return _begin(spec, home, show, tracked, shared)
        return _go_on(_moved(_begun(home), spec), home, show, tracked, shared)


def _moved(begun: BaseJob, now: BaseJob) -> BaseJob:
    """A job that has begun, with what is not of its trace as it is said now."""
    said: dict[str, Any] = {key: getattr(now, key) for key in ("evaluators", "tracking", "storage")}
    data = {"source": now.task.source, "test": now.task.test}
    said["task"] = begun.task.model_copy(update=data)
    said["budget"] = begun.budget.model_copy(update=now.budget.model_dump(include=MONEY))
    backbone = _with_api(begun.backbone, now.backbone)
    if local_path(now.backbone.model) is not None:
        backbone = backbone.model_copy(update={"model": now.backbone.model})
    said["backbone"] = backbone
    if isinstance(begun, TextJob) and isinstance(now, TextJob) and begun.method.writer and now.method.writer:
        writer = _with_api(begun.method.writer, now.method.writer)
        said["method"] = begun.method.model_copy(update={"writer": writer})
    return begun.model_copy(update=said)


def _with_api(begun: _Asking, now: _Asking) -> _Asking:
    """A part of a job with the pace, price and key of its API as they are said now."""
    if begun.api is None or now.api is None:
        return begun
    said = {key: getattr(now.api, key) for key in NOT_OF_THE_TRACE}
    return begun.model_copy(update={"api": begun.api.model_copy(update=said)})


def begun_job(place: Place, overrides: Sequence[str] = ()) -> BaseJob:
    """The job of a run that has begun.

    Args:
        overrides: ``key.path=value`` each, over it.

    Raises:
        JournalError: if the place holds no such run.
    """
    with fetched(place) as folder:
        return _begun(Home(place, folder), overrides)


def _begun(home: Home, overrides: Sequence[str] = ()) -> BaseJob:
    if not (home.path / JOURNAL).is_file():
        raise JournalError(f"{home.place}: expected a run folder with {JOURNAL}, found none{study_hint(home.path)}")
    if not (home.path / SPEC).is_file():
        raise JournalError(
            f"{home.place}: the run was cut off before its first line; delete the folder and run the job anew"
        )
    return load_job(home.path / SPEC, overrides)


def dry_run(job: Job, *, task: TaskData | None = None) -> str:
    """What a run would ask of an API and pay for it, at the most; nothing is sent.

    Args:
        task: as for :func:`run`.

    Raises:
        JobError: with every fault of the job.
        BbtuneError: for a job that pays nothing.
    """
    own = Own(task)
    return forecast_job(_spec(job, own), own)


def validate(
    job: Job,
    overrides: Sequence[str] = (),
    method: str | None = None,
    *,
    task: TaskData | None = None,
    optimizer: MakeOptimizer | None = None,
) -> list[Fault]:
    """Every fault of a job; data, configuration and tokenizer are read, weights are not.

    Args:
        job: path of a job file, or the job itself.
        overrides: ``key.path=value`` each, over the job.
        method: another one than that of the job.
        task, optimizer: as for :func:`run`.
    """
    own = Own(task, optimizer)
    spec, faults, broken = own.read(job, overrides, method)
    return faults if spec is None else faults + examine(spec, broken, own)[3]


def sync(folder: str | Path, uri: str | None = None, optimizer: MakeOptimizer | None = None) -> str:
    """Send a run's whole record to MLflow; returns MLflow's run id.

    Args:
        optimizer: the one that the run was given in Python, where it was.

    Raises:
        TrackingError: if MLflow cannot be reached.
    """
    with fetched(place_named(str(folder))) as path:
        spec, records = _begun(Home(folder, path)), read_journal(path / JOURNAL)
        if not records:
            raise JournalError(f"{folder}: the journal has no whole line yet; resume the run first")
        result = TuneResult.load(path) if (path / RESULT).is_file() else None
        return send_all(path, run_card(spec, records[0]), recorded_events(spec, records, optimizer), result, uri)


def _check_memory(card: Card, spec: BaseJob) -> None:
    """Refuse models that the machine cannot hold, where they are loaded here."""
    if isinstance(card, ModelCard) and spec.backbone.api is None:
        check_memory(card, spec.backbone, max(1, spec.evaluators.count))


def _refuse_used(home: Home) -> None:
    folder, place = home.path, home.place
    if folder.is_file():
        raise BbtuneError(f"{place} is a file, expected a folder for the run; give another --out")
    if (folder / RESULT).is_file():
        raise BbtuneError(f"{place} holds a finished run; read it with bbtune show {place}, or give another --out")
    if (folder / JOURNAL).is_file() and (folder / JOURNAL).stat().st_size:
        again = f"go on with bbtune resume {place} (--evaluators N for another number)"
        raise BbtuneError(f"{place} holds an unfinished run; {again}, or give another --out")
    if (folder / STUDY).is_file():
        raise BbtuneError(f"{place} holds a study, expected a folder for one run; give another --out")
    if isinstance(place, Path) and folder.is_dir() and not {path.name for path in folder.iterdir()} <= {JOURNAL, SPEC}:
        raise BbtuneError(f"{place} holds files that are no run; give a new or empty folder as --out")


def _spec(job: Job, own: Own = NOTHING) -> BaseJob:
    spec, faults, _ = own.read(job)
    if faults or spec is None:
        raise JobError(faults)
    return spec
