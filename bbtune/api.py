"""Run, resume, check and record jobs: the pieces put together."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bbtune.assess import assess
from bbtune.backbone.sources import check_memory
from bbtune.errors import BbtuneError, Fault, JobError, JournalError, OptimizerError
from bbtune.evaluation.base import Pool
from bbtune.evaluation.evaluator import PromptEvaluator
from bbtune.evaluation.local import LocalPool
from bbtune.evaluation.ray_pool import RayPool
from bbtune.jobfile import load_job, parse_job, read_job
from bbtune.journal import FORMAT, EndOfRecord, Journal, Record, Recorded, now_ms, read_journal
from bbtune.loop import Generation, Ledger, Limits, Stopped, run_search
from bbtune.optimizers import check_optimizer_name, make_optimizer
from bbtune.plan import Plan, examine, make_plan
from bbtune.plot import plot_run
from bbtune.progress import Show
from bbtune.prompts.space import layer_scales
from bbtune.result import JOURNAL, PLOT, RESULT, SPEC, TuneResult
from bbtune.search import BestEver, BlockSearch, Improves
from bbtune.seeds import generator
from bbtune.spec import JobSpec
from bbtune.task.task import Task
from bbtune.tracking import RunCard, Tracker, send_all
from bbtune.versions import git_commit, versions

Job = JobSpec | Mapping[str, Any] | str | Path


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
    _check(spec)
    folder = Path(out) if out is not None else default_folder(spec)
    if (folder / RESULT).is_file():
        raise BbtuneError(f"{folder} holds a finished run; read it with bbtune show {folder}, or give another --out")
    if (folder / JOURNAL).is_file():
        raise BbtuneError(f"{folder} holds an unfinished run; go on with bbtune resume {folder}, or give another --out")
    plan, task, card = make_plan(spec)
    check_memory(card, spec.backbone, max(1, spec.evaluators.count))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / SPEC).write_text(spec.to_yaml(), encoding="utf-8")
    with Journal(folder / JOURNAL) as journal:
        journal.append(_start_record(spec, task))
        return _drive(folder, journal, plan, task, show)


def default_folder(spec: JobSpec) -> Path:
    """Where a job runs unless told otherwise."""
    return Path("runs") / f"{spec.name}-{spec.spec_hash[:8]}"


def resume(folder: str | Path, evaluators: int | None = None, show: Show | None = None) -> TuneResult:
    """Go on with a run that was cut off; the result is that of a run that was not.

    Args:
        folder: of the run.
        evaluators: another number of evaluators than the job's.

    Raises:
        JournalError: if the folder holds no run, or its data have changed since.
    """
    folder = Path(folder)
    if (folder / RESULT).is_file():
        return TuneResult.load(folder)
    if not (folder / JOURNAL).is_file():
        raise JournalError(f"{folder}: expected a run folder with {JOURNAL}, found none")
    changes = [] if evaluators is None else [f"evaluators.count={evaluators}"]
    spec = load_job(folder / SPEC, changes)
    with Journal(folder / JOURNAL) as journal:
        plan, task, card = make_plan(spec)
        check_memory(card, spec.backbone, max(1, spec.evaluators.count))
        if not journal.records:  # killed before the first line was whole
            journal.append(_start_record(spec, task))
        _check_same_run(journal.records[0], spec, task)
        return _drive(folder, journal, plan, task, show)


def validate(path: str | Path, overrides: Sequence[str] = ()) -> list[Fault]:
    """Every fault of a job file; data, configuration and tokenizer are read, weights are not."""
    spec, faults, broken = read_job(path, overrides)
    if spec is None:
        return faults
    faults = faults + [fault for fault in _optimizer_faults(spec) if fault.path not in broken]
    return faults + examine(spec, broken)[3]


def sync(folder: str | Path, uri: str | None = None) -> str:
    """Send a run's whole record to MLflow; returns MLflow's run id.

    Raises:
        TrackingError: if MLflow cannot be reached.
    """
    folder = Path(folder)
    records = read_journal(folder / JOURNAL)
    if not records:
        raise JournalError(f"{folder}: the journal has no whole line yet; resume the run first")
    spec = load_job(folder / SPEC)
    result = TuneResult.load(folder) if (folder / RESULT).is_file() else None
    return send_all(folder, _run_card(spec, records[0]), replayed_events(spec, records), result, uri)


def replayed_events(spec: JobSpec, records: Sequence[Record]) -> list[Generation]:
    """The generations of a run, from its records alone."""
    calibration = next((record for record in records if record["event"] == "calibration"), None)
    if calibration is None:
        return []
    events: list[Generation] = []
    start = records[0]
    ledger = Ledger(limits(spec), start["train_size"], start["dev_size"])
    search = make_search(spec, len(calibration["stds"]))
    try:
        for event in run_search(search, Recorded(None, list(records)), ledger):
            if isinstance(event, Generation):
                events.append(event)
    except EndOfRecord:
        pass
    return events


def make_search(spec: JobSpec, layers: int) -> BlockSearch:
    """The search that a job describes, over so many tuned layers L."""
    method, dim = spec.method, spec.prompt.intrinsic_dim
    blocks = [[layer] for layer in range(layers)] if method.blocks == "layerwise" else [list(range(layers))]

    def make(block: int, size: int) -> Any:
        rng = generator(spec.seed, "optimizer", block)
        return make_optimizer(method.optimizer, size, method.population, method.sigma, rng)

    sweeps = None
    if method.schedule == "whole-sweeps" and spec.budget.evaluations is not None:
        sweeps = spec.budget.evaluations // (method.population * len(blocks))
    return BlockSearch(blocks, dim, make, Improves() if method.accept == "improves" else BestEver(), sweeps)


def _drive(folder: Path, journal: Journal, plan: Plan, task: Task, show: Show | None) -> TuneResult:
    spec = plan.spec
    tracker = Tracker(folder, _run_card(spec, journal.records[0])) if spec.tracking.enabled else None
    result = None
    try:
        pool = _open_pool(plan)
        try:
            result = _search_and_assess(folder, journal, pool, plan, task, _Listeners(tracker, show))
        finally:
            pool.close()
    finally:
        if tracker is not None and not tracker.close(result) and show is not None:
            show.say(f"MLflow lacks part of the record ({tracker.problem}); send it later: bbtune sync {folder}")
    return result


class _Listeners:
    """Those who are told of every generation; also keeps them for the plot."""

    def __init__(self, tracker: Tracker | None, show: Show | None) -> None:
        self._takers = [taker for taker in (tracker and tracker.take, show and show.event) if taker]
        self.seen: list[Generation] = []

    def take(self, event: Generation) -> None:
        self.seen.append(event)
        for taker in self._takers:
            taker(event)


def _search_and_assess(
    folder: Path, journal: Journal, pool: Pool, plan: Plan, task: Task, listeners: _Listeners
) -> TuneResult:
    spec = plan.spec
    if (calibration := journal.find("calibration")) is None:
        calibration = {"event": "calibration", "stds": pool.run("calibrate", [()])[0].tolist()}
        journal.append(calibration)
    scales = layer_scales(np.array(calibration["stds"]), spec.method.alpha, spec.method.sigma)
    evaluator = PromptEvaluator(pool, plan, task.metric, scales)
    ledger = Ledger(limits(spec), len(plan.train), len(plan.dev))
    search = make_search(spec, len(plan.layers))
    stopped = None
    for event in run_search(search, Recorded(evaluator, list(journal.records), journal), ledger):
        if isinstance(event, Stopped):
            stopped = event
        else:
            listeners.take(event)
    if stopped is None:
        raise JournalError("the search ended without a reason; please report this")
    if journal.find("stop") is None:
        journal.append({"event": "stop", "reason": stopped.reason, "unix_ms": now_ms()})
    scores, gain = assess(evaluator, task, stopped.z, spec.seed)
    plot_run(listeners.seen, task.metric.name, spec.name, folder / PLOT)
    result = TuneResult(
        spec=spec,
        labels=task.labels,
        metric=task.metric.name,
        z=stopped.z,
        scales=scales,
        stop_reason=stopped.reason,
        cost=stopped.cost,
        scores=scores,
        gain=gain,
        seeds={"job": spec.seed, "task": spec.task.seed},
        versions=journal.records[0]["versions"],
    )
    result.save(folder)
    return result


def _open_pool(plan: Plan) -> Pool:
    return RayPool(plan) if plan.spec.evaluators.count else LocalPool(plan)


def _spec(job: Job) -> JobSpec:
    if isinstance(job, JobSpec):
        return job
    if isinstance(job, str | Path):
        return load_job(job)
    spec, faults, _ = parse_job(job)
    if faults or spec is None:
        raise JobError(faults)
    return spec


def _check(spec: JobSpec) -> None:
    if faults := _optimizer_faults(spec) + examine(spec, set())[3]:
        raise JobError(faults)


def _optimizer_faults(spec: JobSpec) -> list[Fault]:
    try:
        check_optimizer_name(spec.method.optimizer)
    except OptimizerError as error:
        return [Fault("method.optimizer", str(error))]
    return []


def limits(spec: JobSpec) -> Limits:
    """The limits of a job's search."""
    return Limits(**spec.budget.model_dump())


def _start_record(spec: JobSpec, task: Task) -> Record:
    return {
        "event": "start",
        "format": FORMAT,
        "uid": uuid.uuid4().hex,
        "spec_hash": spec.spec_hash,
        "task": task.name,
        "task_sha256": task.fingerprint,
        "train_size": len(task.train),
        "dev_size": len(task.dev),
        "versions": versions(),
        "git_commit": git_commit(),
        "unix_ms": now_ms(),
    }


def _check_same_run(start: Record, spec: JobSpec, task: Task) -> None:
    for what, then, now in (
        ("job", start["spec_hash"], spec.spec_hash),
        ("task data", start["task_sha256"], task.fingerprint),
    ):
        if then != now:
            raise JournalError(
                f"the {what} has changed since the run began ({then[:12]} then, {now[:12]} now); start anew"
            )


def _run_card(spec: JobSpec, start: Record) -> RunCard:
    tags = {f"bbtune.version.{name}": version for name, version in start["versions"].items()}
    if start["git_commit"]:
        tags["mlflow.source.git.commit"] = start["git_commit"]
    dataset = {"name": start["task"], "digest": start["task_sha256"][:32], "source": spec.task.source}
    return RunCard(start["uid"], spec, tags, dataset, start["unix_ms"])
