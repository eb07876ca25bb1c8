"""One trial: a job with settings, run on train and dev in a folder of its own; the test split is never scored."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bbtune.errors import BbtuneError, JournalError
from bbtune.examine import make_plan
from bbtune.hpo.record import Standing
from bbtune.hpo.space import Settings, Space
from bbtune.journal import Journal
from bbtune.loop import Generation
from bbtune.result import JOURNAL, SPEC
from bbtune.selection import Judged
from bbtune.session import Session, check_same_run, start_record
from bbtune.spec import BaseJob, BaselineJob, JobSpec

STATE = "tune"  # folder of Ray Tune's own state, below that of the study
_PATIENCE_S = 60.0  # for a process of a study that was killed to let go of the journal


def score(metric: float, loss: float, dev_size: int) -> float:
    """What searchers and schedulers see of a trial: the dev metric, and of equals the lower dev loss.

    Half an example is shared out by the loss, so that no loss outranks an example.

    Args:
        metric: on dev.
        loss: on dev, from 0 on.
        dev_size: number of dev examples.
    """
    return metric - 0.5 / dev_size * loss / (1.0 + loss)


@dataclass(frozen=True)
class Trials:
    """What all trials of a study share; small, sent to every process.

    Attributes:
        folder: of the study, which every machine sees.
    """

    space: Space
    folder: str

    def spec(self, settings: Settings) -> BaseJob:
        """The job of a trial: searches share the evaluators, so that the model is loaded once."""
        return shared_evaluators(self.space.spec(settings))

    def place(self, number: int, settings: Settings) -> Path:
        """Where a trial runs, the same whenever it is begun again."""
        said = json.dumps([self.space.spec({}).spec_hash, settings], sort_keys=True)
        return Path(self.folder) / f"trial{number:02d}-{hashlib.sha256(said.encode()).hexdigest()[:8]}"


def shared_evaluators(spec: BaseJob) -> BaseJob:
    """A job whose evaluators serve all searches of the study; a baseline on one worker is trained by its trial."""
    evaluators = spec.evaluators
    if isinstance(spec, JobSpec):
        evaluators = evaluators.model_copy(update={"count": max(1, evaluators.count), "pool": "shared"})
    elif isinstance(spec, BaselineJob) and evaluators.count == 1:
        evaluators = evaluators.model_copy(update={"count": 0})
    return spec.model_copy(update={"evaluators": evaluators})


def run_trial(spec: BaseJob, folder: Path) -> Generator[tuple[Standing, str]]:
    """Run a trial, or go on with it: what its journal has is replayed.

    Yields:
        Where it stands after each generation, and why it has stopped: empty before the end.

    Raises:
        JobError: with every fault that the settings show with data and model.
        BbtuneError: if the budget does not last to the first generation.
    """
    folder.mkdir(parents=True, exist_ok=True)
    plan, task, card = make_plan(spec)
    with _held(folder) as journal:
        now = start_record(plan, task, card)
        if not journal.records:
            (folder / SPEC).write_text(plan.spec.to_yaml(), encoding="utf-8")
            journal.append(now)
        check_same_run(journal.records[0], now)
        selected, standing = Judged(float("inf"), 0.0, True), None
        for event in Session(journal, plan, task, None).fit():
            if not isinstance(event, Generation):
                if standing is None:
                    raise BbtuneError(f"it ended before its first generation ({event.reason}); raise the budget")
                yield standing, event.reason
                return
            if event.dev is not None and event.dev.selected:
                selected = event.dev
            standing = _standing(event, selected, len(task.dev))
            yield standing, ""


def _standing(event: Generation, selected: Judged, dev_size: int) -> Standing:
    cost = event.cost
    return Standing(
        score=score(selected.metric, selected.loss, dev_size),
        dev_metric=selected.metric,
        dev_loss=selected.loss,
        train_loss=event.best_loss,
        evaluations=cost.evaluations,
        examples=cost.examples,
        layer_forwards=cost.layer_forwards,
        seconds=cost.seconds,
        unix_ms=event.unix_ms,
    )


@contextmanager
def _held(folder: Path) -> Iterator[Journal]:
    """The journal of a trial, once a process that is about to end has let go of it."""
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            journal = Journal(folder / JOURNAL)
            break
        except JournalError as error:
            if not isinstance(error.__cause__, OSError) or time.monotonic() > deadline:
                raise
            time.sleep(0.2)
    with journal:
        yield journal
