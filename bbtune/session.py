"""One run in its folder, from the first line of the journal to the result."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from bbtune.assess import assess
from bbtune.backbone.frozen import DTYPES
from bbtune.backbone.products import fastest_product
from bbtune.backbone.sources import ModelCard
from bbtune.build import make_search, make_selection
from bbtune.cost import Sizes
from bbtune.errors import JournalError
from bbtune.evaluation.base import Pool
from bbtune.evaluation.evaluator import PromptEvaluator
from bbtune.evaluation.local import LocalPool
from bbtune.evaluation.ray_pool import RayPool
from bbtune.journal import FORMAT, EndOfRecord, Journal, Record, Recorded, now_ms
from bbtune.loop import Generation, Ledger, Limits, Stopped, run_search
from bbtune.plan import Plan
from bbtune.plot import plot_run
from bbtune.progress import Show
from bbtune.prompts.space import layer_scales
from bbtune.result import PLOT, Reading, TuneResult
from bbtune.search import Search
from bbtune.spec import JobSpec
from bbtune.task.task import Task, label_array
from bbtune.tracking import RunCard, Tracker
from bbtune.versions import git_commit, versions


class Session:
    """A run in this process: earlier sessions are replayed from the journal, then the search goes on.

    Args:
        folder: of the run.
        journal: with its start record.
        show: told of every generation.
    """

    def __init__(self, folder: Path, journal: Journal, plan: Plan, task: Task, show: Show | None) -> None:
        self._folder = folder
        self._journal = journal
        self._plan = plan
        self._task = task
        self._show = show
        self._events: list[Generation] = []

    def finish(self) -> TuneResult:
        """Search, score the test split, and leave the result in the folder."""
        spec = self._plan.spec
        tracker = Tracker(self._folder, run_card(spec, self._journal.records[0])) if spec.tracking.enabled else None
        result = None
        try:
            plan = replace(self._plan, product=self._product())
            pool: Pool = RayPool(plan) if spec.evaluators.count else LocalPool(plan)
            try:
                result = self._result(pool, tracker)
            finally:
                pool.close()
        finally:
            if tracker is not None and not tracker.close(result):
                later = f"send it later: bbtune sync {self._folder}"
                self._say(f"MLflow lacks part of the record ({tracker.problem}); {later}")
        return result

    def _result(self, pool: Pool, tracker: Tracker | None) -> TuneResult:
        plan, task, spec = self._plan, self._task, self._plan.spec
        # Before the clock runs, because it imports the optimizer's library.
        search = make_search(spec, plan.sizes, label_array(plan.train))
        measured = self._calibration(pool)
        self._describe(pool)
        scales = layer_scales(np.array(measured["stds"]), spec.method.alpha, spec.method.sigma)
        evaluator = PromptEvaluator(pool, plan, task.metric, scales, measured["together"])
        stopped = self._search(search, evaluator, tracker)
        if (stop := self._journal.find("stop")) is None:
            stop = {"event": "stop", "reason": stopped.reason, "unix_ms": now_ms()}
            self._journal.append(stop)
        self._say(f"scoring {len(task.test)} test texts, with and without the prompt")
        scores, gain = assess(evaluator, task, stopped.z, spec.seed)
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
            versions=self._journal.records[0]["versions"],
            reading=Reading(plan.kind, plan.template.text, plan.label_words),
            stopped_ms=stop["unix_ms"],
        )
        result.save(self._folder)
        plot_run(self._events, task.metric.name, spec.name, self._folder / PLOT)
        return result

    def _describe(self, pool: Pool) -> None:
        """Say which path the evaluators take, and what memory; one answers for all."""
        if self._journal.find("stop") is None:
            if chosen := self._journal.records[0]["chosen"]:
                self._say(f"method auto: {chosen}")
            self._say(f"each evaluator: {pool.run('describe', [()])[0]}")

    def _product(self) -> str:
        """The matrix product of all evaluators, measured once in the life of a run: others may round differently."""
        if (record := self._journal.find("product")) is None:
            spec = self._plan.spec
            device = "cpu" if spec.backbone.device == "cpu" else "cuda"
            name = fastest_product(DTYPES[spec.backbone.dtype], device, spec.evaluators.threads)
            record = {"event": "product", "name": name}
            self._journal.append(record)
        return str(record["name"])

    def _calibration(self, pool: Pool) -> Record:
        """Natural scales of the tuned layers and candidates per call, measured once in the life of a run."""
        if (record := self._journal.find("calibration")) is None:
            record = {
                "event": "calibration",
                "stds": pool.run("calibrate", [()])[0].tolist(),
                "together": int(pool.run("together", [()])[0]),
            }
            self._journal.append(record)
        return record

    def _search(self, search: Search, evaluator: PromptEvaluator, tracker: Tracker | None) -> Stopped:
        plan = self._plan
        recorded = Recorded(evaluator, list(self._journal.records), self._journal, search.uses_logits)
        ledger = Ledger(limits(plan.spec), plan.sizes)
        for event in run_search(search, recorded, ledger, make_selection(plan.spec, search)):
            if isinstance(event, Stopped):
                return event
            self._events.append(event)
            if tracker is not None:
                tracker.take(event)
            if self._show is not None:
                self._show.event(event)
        raise JournalError("the search ended without a reason; please report this")

    def _say(self, text: str) -> None:
        if self._show is not None:
            self._show.say(text)


def limits(spec: JobSpec) -> Limits:
    """The limits of a job's search."""
    return Limits(**spec.budget.model_dump())


def replayed_events(spec: JobSpec, records: Sequence[Record]) -> list[Generation]:
    """The generations of a run, from its records alone; of a job with everything chosen."""
    events: list[Generation] = []
    start = records[0]
    labels = np.array(start["train_labels"], dtype=np.int64)
    sizes = Sizes(len(labels), start["dev_size"], tuple(start["layers"]), start["depth"])
    search, ledger = make_search(spec, sizes, labels), Ledger(limits(spec), sizes)
    try:
        for event in run_search(search, Recorded(None, list(records)), ledger, make_selection(spec, search)):
            if isinstance(event, Generation):
                events.append(event)
    except EndOfRecord:
        pass
    return events


def start_record(plan: Plan, task: Task, card: ModelCard) -> Record:
    """The first line of a journal: what the run is of, and what it is made with."""
    spec = plan.spec
    return {
        "event": "start",
        "format": FORMAT,
        "uid": uuid.uuid4().hex,
        "spec_hash": spec.spec_hash,
        "task": task.name,
        "task_sha256": task.fingerprint,
        "model_sha256": card.fingerprint,
        "train_labels": label_array(task.train).tolist(),
        "layers": list(plan.layers),
        "dev_size": len(task.dev),
        "depth": plan.depth,
        "chosen": plan.chosen,
        "versions": versions(),
        "git_commit": git_commit(),
        "unix_ms": now_ms(),
    }


def check_same_run(then: Record, now: Record) -> list[str]:
    """Compare the start record of a run with one made now; returns a sentence per version that differs.

    Raises:
        JournalError: if job, task data or model have changed.
    """
    for key, what in (("spec_hash", "job"), ("task_sha256", "task data or card"), ("model_sha256", "model")):
        if then[key] != now[key]:
            raise JournalError(
                f"the {what} has changed since the run began ({then[key][:12]} then, {now[key][:12]} now); "
                "restore it, or run the job anew in another folder"
            )
    changed = {name: version for name, version in then["versions"].items() if now["versions"].get(name) != version}
    return [
        f"{name} was {version} when the run began, now {now['versions'].get(name, 'not installed')}: "
        "the last digits of scores may differ from those of an uninterrupted run"
        for name, version in changed.items()
    ]


def run_card(spec: JobSpec, start: Record) -> RunCard:
    """What MLflow is told of a run before its first generation."""
    tags = {f"bbtune.version.{name}": version for name, version in start["versions"].items()}
    if start["git_commit"]:
        tags["mlflow.source.git.commit"] = start["git_commit"]
    if start["chosen"]:
        tags["bbtune.auto"] = start["chosen"]
    dataset = {"name": start["task"], "digest": start["task_sha256"][:32], "source": spec.task.source}
    return RunCard(start["uid"], spec, tags, dataset, start["unix_ms"])
