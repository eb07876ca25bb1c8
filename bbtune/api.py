"""Run, resume, check and record jobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bbtune.backbone.sources import ModelCard, check_memory
from bbtune.errors import BbtuneError, Fault, JobError, JournalError
from bbtune.examine import examine, make_plan
from bbtune.jobfile import load_job, parse_job, read_job
from bbtune.journal import Journal, read_journal
from bbtune.plan import Card
from bbtune.probing import forecast_job
from bbtune.progress import Show
from bbtune.result import JOURNAL, RESULT, SPEC, STUDY, TuneResult, study_hint
from bbtune.session import Session, check_same_run, recorded_events, run_card, start_record
from bbtune.spec import BaseJob
from bbtune.tracking import send_all

Job = BaseJob | Mapping[str, Any] | str | Path


def run(job: Job, out: str | Path | None = None, show: Show | None = None) -> TuneResult:
    """Run a job to its end.

    Args:
        job: path of a job file, or the job itself.
        out: run folder; ``runs/<name>-<short hash>`` without it.
        show: told of every generation.

    Raises:
        JobError: with every fault of the job.
        BbtuneError: if the folder holds a run already, or the machinery fails; what was scored is kept.
    """
    spec = _spec(job)
    return begin(spec, Path(out) if out is not None else default_folder(spec), show, tracked=spec.tracking.enabled)


def begin(
    spec: BaseJob, folder: Path, show: Show | None = None, *, tracked: bool, shared: Path | None = None
) -> TuneResult:
    """As :func:`run`.

    Args:
        tracked: whether MLflow is told meanwhile.
        shared: folder that the run shares with others of its study.
    """
    _refuse_used(folder)
    plan, task, card = make_plan(spec)
    spec = plan.spec  # with everything chosen, so that the run does not change with the rules of choice
    _check_memory(card, spec)
    folder.mkdir(parents=True, exist_ok=True)
    with Journal(folder / JOURNAL) as journal:
        if journal.records:  # another process was quicker
            _refuse_used(folder)
        (folder / SPEC).write_text(spec.to_yaml(), encoding="utf-8")
        journal.append(start_record(plan, task, card))
        return Session(folder, journal, plan, task, show, shared).finish(tracked)


def default_folder(spec: BaseJob) -> Path:
    """Where a job runs unless told otherwise."""
    return Path("runs") / f"{spec.name}-{spec.spec_hash[:8]}"


def resume(folder: str | Path, changes: Sequence[str] = (), show: Show | None = None) -> TuneResult:
    """Go on with a run that was cut off; the result is that of a run that was not.

    Args:
        folder: of the run.
        changes: ``key.path=value`` each, of what is not of the trace: ``evaluators.count``, caps on money, the pace of
            an API.
        show: told of every generation.

    Raises:
        JournalError: if the folder holds no run, or its data or model have changed since.
    """
    folder = Path(folder)
    if not (folder / RESULT).is_file():
        return go_on(folder, changes, show)
    result = TuneResult.load(folder)
    if changes and show is not None:
        mend = "run the job with that in another folder (--out); what an API has answered is in the cache"
        show.say(f"the run has ended ({result.stop_reason}), {', '.join(changes)} changes nothing any more: {mend}")
    return result


def go_on(
    folder: Path,
    changes: Sequence[str] = (),
    show: Show | None = None,
    *,
    tracked: bool | None = None,
    shared: Path | None = None,
) -> TuneResult:
    """As :func:`resume`, of a run that has not ended.

    Args:
        tracked: whether MLflow is told meanwhile; None goes by the job.
        shared: folder that the run shares with others of its study.
    """
    spec = begun_job(folder, changes)
    with Journal(folder / JOURNAL) as journal:
        plan, task, card = make_plan(spec)
        _check_memory(card, spec)
        now = start_record(plan, task, card)
        if not journal.records:  # killed before the first line was whole
            journal.append(now)
        for difference in check_same_run(journal.records[0], now):
            if show is not None:
                show.say(difference)
        tracked = spec.tracking.enabled if tracked is None else tracked
        return Session(folder, journal, plan, task, show, shared).finish(tracked)


def begun_job(folder: Path, overrides: Sequence[str] = ()) -> BaseJob:
    """The job of a run that has begun.

    Args:
        overrides: ``key.path=value`` each, over it.

    Raises:
        JournalError: if the folder holds no such run.
    """
    if not (folder / JOURNAL).is_file():
        raise JournalError(f"{folder}: expected a run folder with {JOURNAL}, found none{study_hint(folder)}")
    if not (folder / SPEC).is_file():
        raise JournalError(
            f"{folder}: the run was cut off before its first line; delete the folder and run the job anew"
        )
    return load_job(folder / SPEC, overrides)


def dry_run(job: Job) -> str:
    """What a run would ask of an API and pay for it, at the most; nothing is sent.

    Raises:
        JobError: with every fault of the job.
        BbtuneError: for a job that pays nothing.
    """
    return forecast_job(_spec(job))


def validate(job: Job, overrides: Sequence[str] = (), method: str | None = None) -> list[Fault]:
    """Every fault of a job; data, configuration and tokenizer are read, weights are not.

    Args:
        job: path of a job file, or the job itself.
        overrides: ``key.path=value`` each, over a job file.
        method: another optimizer than that of a job file.
    """
    if isinstance(job, BaseJob):
        return examine(job, set())[3]
    spec, faults, broken = read_job(job, overrides, method) if isinstance(job, str | Path) else parse_job(job)
    return faults if spec is None else faults + examine(spec, broken)[3]


def sync(folder: str | Path, uri: str | None = None) -> str:
    """Send a run's whole record to MLflow; returns MLflow's run id.

    Raises:
        TrackingError: if MLflow cannot be reached.
    """
    folder = Path(folder)
    spec, records = begun_job(folder), read_journal(folder / JOURNAL)
    if not records:
        raise JournalError(f"{folder}: the journal has no whole line yet; resume the run first")
    result = TuneResult.load(folder) if (folder / RESULT).is_file() else None
    return send_all(folder, run_card(spec, records[0]), recorded_events(spec, records), result, uri)


def _check_memory(card: Card, spec: BaseJob) -> None:
    """Refuse models that the machine cannot hold, where they are loaded here."""
    if isinstance(card, ModelCard) and spec.backbone.api is None:
        check_memory(card, spec.backbone, max(1, spec.evaluators.count))


def _refuse_used(folder: Path) -> None:
    if (folder / RESULT).is_file():
        raise BbtuneError(f"{folder} holds a finished run; read it with bbtune show {folder}, or give another --out")
    if (folder / JOURNAL).is_file() and (folder / JOURNAL).stat().st_size:
        again = f"go on with bbtune resume {folder} (--evaluators N for another number)"
        raise BbtuneError(f"{folder} holds an unfinished run; {again}, or give another --out")
    if (folder / STUDY).is_file():
        raise BbtuneError(f"{folder} holds a study, expected a folder for one run; give another --out")
    if folder.is_dir() and not {path.name for path in folder.iterdir()} <= {JOURNAL, SPEC}:
        raise BbtuneError(f"{folder} holds files that are no run; give a new or empty folder as --out")


def _spec(job: Job) -> BaseJob:
    if isinstance(job, BaseJob):
        return job
    if isinstance(job, str | Path):
        return load_job(job)
    spec, faults, _ = parse_job(job)
    if faults or spec is None:
        raise JobError(faults)
    return spec
