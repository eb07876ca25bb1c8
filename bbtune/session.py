"""One run in its folder, from the first line of the journal to the result."""

from __future__ import annotations

import hashlib
import json
import shutil
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path

from bbtune.assess import ZeroShot, assess
from bbtune.backbone.memory import forget_peak
from bbtune.baselines.account import Past, read_step
from bbtune.baselines.methods import make_baseline
from bbtune.errors import BbtuneError, BudgetReached, JournalError
from bbtune.forecast import volume
from bbtune.journal import FORMAT, Journal, Record, now_ms
from bbtune.loop import Cost, Generation
from bbtune.method import Fitted, Method
from bbtune.optimizers.own import MakeOptimizer
from bbtune.plan import Card, Plan, Reading
from bbtune.plot import plot_run
from bbtune.progress import Show
from bbtune.prompt_search import PromptSearch, replayed_generations
from bbtune.prompts.text import CHARACTERS
from bbtune.result import PLOT, TRAINING, Point, TuneResult, with_more
from bbtune.search_plan import SearchPlan
from bbtune.spec import BaseJob, JobSpec, TextJob
from bbtune.task.task import Task, label_array
from bbtune.text_plan import TextPlan
from bbtune.text_tuning import TextTuning, replayed_text_generations
from bbtune.tracking import RunCard, Tracker
from bbtune.versions import git_commit, versions


class Session:
    """A run in this process: what an earlier session did comes from the journal, then the method goes on.

    Args:
        journal: with its start record, in the folder of the run.
        show: told of every generation.
        shared: folder that the run shares with others of its study.
        own: the user's optimizer, where the job names one.
    """

    def __init__(
        self,
        journal: Journal,
        plan: Plan,
        task: Task,
        show: Show | None,
        shared: Path | None = None,
        own: MakeOptimizer | None = None,
    ) -> None:
        self._folder = journal.path.parent
        self._journal = journal
        self._plan = plan
        self._task = task
        self._show = show
        self._shared = shared
        self._own = own
        self._seen: list[Generation] = []
        self._peak_memory_mib = 0.0

    def finish(self, tracked: bool) -> TuneResult:
        """Run the method, score the test split, and leave the result in the folder.

        Args:
            tracked: whether to send what happens to MLflow meanwhile.
        """
        spec = self._plan.spec
        tracker = Tracker(self._folder, run_card(spec, self._journal.records[0])) if tracked else None
        result = None
        forget_peak()
        try:
            method = self._method()
            try:
                result = self._result(method, self._fitted(method, tracker))
            finally:
                method.close()
        finally:
            if tracker is not None and not tracker.close(result):
                later = f"send it later: bbtune sync {self._journal.place}"
                self._say(f"MLflow lacks part of the record ({tracker.problem}); {later}")
        return result

    def fit(self) -> Iterator[Generation | Fitted]:
        """The method alone, on train and dev, recorded as of a whole run; the test split stays closed."""
        method = self._method()
        try:
            yield from self._events(method)
        finally:
            method.close()

    def _method(self) -> Method:
        plan, metric = self._plan, self._task.metric
        if not isinstance(plan, SearchPlan | TextPlan):
            return make_baseline(plan, metric, self._folder / TRAINING, self._past())
        # Rendered only where an API is paid, and once.
        test = cache(partial(volume, self._task.test, plan.template, CHARACTERS * plan.spec.backbone.max_tokens))
        shared = (metric, self._journal, self._say, test)
        return TextTuning(plan, *shared) if isinstance(plan, TextPlan) else PromptSearch(plan, *shared, self._own)

    def _past(self) -> Past:
        steps = recorded_events(self._plan.spec, self._journal.records)
        return Past(len(steps), steps[-1].cost if steps else Cost(), self._journal.find("stop") is not None)

    def _fitted(self, method: Method, tracker: Tracker | None) -> Fitted:
        for event in self._events(method):
            if isinstance(event, Fitted):
                self._peak_memory_mib = round(method.peak_memory_mib(), 1)  # before zero-shot asks for another model
                return event
            if tracker is not None:
                tracker.take(event)
            if self._show is not None:
                self._show.event(event)
        raise JournalError("the method ended without a reason; please report this")

    def _events(self, method: Method) -> Iterator[Generation | Fitted]:
        """What the method does, with what was done in earlier sessions as it was recorded."""
        searched = isinstance(self._plan, SearchPlan | TextPlan)
        past = [] if searched else recorded_events(self._plan.spec, self._journal.records)
        for event in method.fit():
            if isinstance(event, Generation):
                if len(self._seen) < len(past):
                    event = past[len(self._seen)]  # done again behind a cut: what was recorded first stands
                elif not searched:
                    self._journal.append({"event": "step", **asdict(event)})
                self._seen.append(event)
            yield event

    def _result(self, method: Method, fitted: Fitted) -> TuneResult:
        plan, task, spec = self._plan, self._task, self._plan.spec
        if (stop := self._journal.find("stop")) is None:
            stop = {"event": "stop", "reason": fitted.reason, "cost": asdict(fitted.cost), "unix_ms": now_ms()}
            self._journal.append(stop)
        self._say(f"scoring {len(task.test)} test texts, with and without what was learned")
        start = self._journal.records[0]
        zero_shot = ZeroShot(self._shared, _reading_key(plan, start))
        try:
            scores, gain, predicted = assess(method, task, spec.seed, zero_shot)
        except BudgetReached as error:
            what = f"{error.reason} ended while the test split was scored"
            raise BbtuneError(f"{what}; go on with: {with_more(self._journal.place, error.reason)}") from error
        result = TuneResult(
            spec=spec,
            labels=task.labels,
            metric=task.metric.name,
            learned=fitted.learned,
            parameters=fitted.parameters,
            stop_reason=stop["reason"],
            cost=Cost(**stop["cost"]),
            scores=scores,
            gain=gain,
            predicted=predicted,
            curve=tuple(_point(event) for event in self._seen),
            seeds={"job": spec.seed, "task": spec.task.seed},
            versions=start["versions"],
            fingerprints={name: start[f"{name}_sha256"] for name in ("task", "test", "model")},
            task=task.name,
            reading=fitted.reading or Reading(plan.kind, plan.template.text, plan.label_words),
            peak_memory_mib=self._peak_memory_mib,
            stopped_ms=stop["unix_ms"],
            paid=method.paid(),
        )
        result.save(self._folder)
        shutil.rmtree(self._folder / TRAINING, ignore_errors=True)  # checkpoints, some times as large as the model
        plot_run(self._seen, task.metric.name, spec.name, self._folder / PLOT)
        return result

    def _say(self, text: str) -> None:
        if self._show is not None:
            self._show.say(text)


def _reading_key(plan: Plan, start: Record) -> str:
    """SHA-256 (hex) of all that decides what the untouched model answers."""
    spec = plan.spec
    said = [start["model_sha256"], start["task_sha256"], spec.backbone.model_dump(mode="json"), spec.prompt.text]
    said += [spec.prompt.place, plan.kind, plan.template.text, plan.label_words]
    if isinstance(plan, TextPlan):  # joined otherwise than the text of a continuous prompt, and read by what is named
        said += [plan.spec.prompt.kind, plan.every_words, plan.spec.prompt.answer_tokens]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()


def _point(event: Generation) -> Point:
    return Point(**asdict(event.cost), best_loss=event.best_loss, dev=event.dev_metric)


def recorded_events(spec: BaseJob, records: Sequence[Record], own: MakeOptimizer | None = None) -> list[Generation]:
    """What a run has yielded so far, from its records alone; of a job with everything chosen.

    Args:
        own: the user's optimizer, where the job names one.
    """
    if isinstance(spec, JobSpec):
        return replayed_generations(spec, records, own)
    if isinstance(spec, TextJob):
        return replayed_text_generations(spec, records)
    steps = [record for record in records if record["event"] == "step"]
    return [read_step({key: value for key, value in step.items() if key != "event"}) for step in steps]


def start_record(plan: Plan, task: Task, card: Card) -> Record:
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
        "test_sha256": task.test_fingerprint,
        **_search_facts(plan),
        "versions": versions(),
        "git_commit": git_commit(),
        "unix_ms": now_ms(),
    }


def _search_facts(plan: Plan) -> Record:
    """What a replay of a search needs beside its scores."""
    facts: Record = {"train_labels": label_array(plan.train).tolist(), "dev_size": len(plan.dev)}
    if isinstance(plan, TextPlan):
        choices = plan.space().choices
        given = [choices.library[i] for i in range(choices.given)]
        return {**facts, "instructions": given, "slots": list(choices.sizes)}
    if isinstance(plan, SearchPlan):
        return {**facts, "layers": list(plan.layers), "depth": plan.depth, "chosen": plan.chosen}
    return {}


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


def run_card(spec: BaseJob, start: Record, parent_uid: str | None = None) -> RunCard:
    """What MLflow is told of a run before its first generation.

    Args:
        start: first record of its journal.
        parent_uid: of the group that it belongs to.
    """
    tags = {f"bbtune.version.{name}": version for name, version in start["versions"].items()}
    if start["git_commit"]:
        tags["mlflow.source.git.commit"] = start["git_commit"]
    if start.get("chosen"):
        tags["bbtune.auto"] = start["chosen"]
    dataset = {"name": start["task"], "digest": start["task_sha256"][:32], "source": spec.task.source}
    return RunCard(start["uid"], spec, tags, dataset, start["unix_ms"], parent_uid)
