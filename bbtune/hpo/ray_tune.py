"""The one place that knows Ray Tune: its trials, searcher, scheduler and callback in terms of a study's record."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from bbtune.errors import BbtuneError
from bbtune.evaluation.ray_cluster import last_line
from bbtune.hpo.progress import WATCHED, Watched
from bbtune.hpo.record import FIRST, Standing
from bbtune.hpo.space_file import AshaSpec
from bbtune.hpo.trial import STATE, Trials, run_trial

_FAULT = "fault.txt"
_STANDING = [field.name for field in fields(Standing)]
_QUIET = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # an interruption ends the study like any other command
    "TUNE_GLOBAL_CHECKPOINT_S": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}


@dataclass(frozen=True)
class Course:
    """How the trials of a study are run.

    Attributes:
        count: of trials.
        concurrent: of them at a time.
        cpus, gpus: of the process of a trial, beside those of its evaluators.
        asha: None where none is stopped early.
    """

    count: int
    concurrent: int
    cpus: float
    gpus: float
    asha: AshaSpec | None


def work(config: dict[str, Any], trials: Trials) -> None:
    """What Tune calls in a process of its own: a trial, or a trial of which all is known."""
    if (known := config.get("known")) is not None:
        tune.report(known)
        return
    number, settings = config["number"], config["settings"]
    folder = trials.place(number, settings)
    (folder / _FAULT).unlink(missing_ok=True)
    try:
        with closing(run_trial(trials.spec(settings), folder)) as steps:
            for standing, reason in steps:
                tune.report({**asdict(standing), "reason": reason})
    except BbtuneError as error:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _FAULT).write_text(str(error), encoding="utf-8")
        raise


class Proposals(Searcher):  # type: ignore[misc]
    """Hands out what the study's record proposes; all that a searcher learns, it learns there."""

    def __init__(self, folder: str) -> None:
        super().__init__()
        self.folder = folder
        self.next = 0

    def set_search_properties(self, metric: str | None, mode: str | None, config: Any, **_: Any) -> bool:
        """Metric and mode are known."""
        return True

    def suggest(self, trial_id: str) -> Any:
        """Number and settings of the next trial, and its end if it has ended already."""
        number, record = self.next, WATCHED[self.folder].record
        settings = record.propose(number)
        if settings is None:
            return Searcher.FINISHED
        self.next += 1
        ended = record.ended.get(number)
        known = {"known": {**asdict(ended.standing), "reason": ended.reason}} if ended else {}
        return {"number": number, "settings": settings, **known}

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        """The record hears of it from :class:`Watch`."""

    def save(self, checkpoint_path: str) -> None:
        """The number of the next trial."""
        Path(checkpoint_path).write_text(json.dumps(self.next), encoding="utf-8")

    def restore(self, checkpoint_path: str) -> None:
        """Take up what was saved."""
        self.next = json.loads(Path(checkpoint_path).read_text(encoding="utf-8"))


class Asha(AsyncHyperBandScheduler):  # type: ignore[misc]
    """ASHA that never stops the job as it is, and knows ended trials again when a study goes on."""

    def __init__(self, folder: str, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.folder = folder

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Of a trial that has ended before, put what it scored on the rungs."""
        super().on_trial_add(tune_controller, trial)
        known = WATCHED[self.folder].record.ended.get(trial.config["number"])
        for used, value in known.curve if known else ():
            self._trial_info[trial.trial_id].on_result(trial, used, value)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """What the rungs say, but of the job as it is; a trial whose end is known is not run again."""
        number = trial.config["number"]
        if number in WATCHED[self.folder].record.ended:
            return str(TrialScheduler.STOP)
        said = str(super().on_trial_result(tune_controller, trial, result))
        return TrialScheduler.CONTINUE if number == FIRST or result["reason"] else said


class Watch(tune.Callback):  # type: ignore[misc]
    """Tells the study's record what trials do."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **_: Any) -> None:
        """A generation."""
        WATCHED[self.folder].heard(trial.config["number"], _standing(result))

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
        """The end, or a stop before it."""
        WATCHED[self.folder].ended(trial.config["number"], _standing(trial.last_result), trial.last_result["reason"])

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
        """A fault of its own, else of its process."""
        watched = WATCHED[self.folder]
        place = watched.trials.place(trial.config["number"], trial.config["settings"]) / _FAULT
        lost = f"its process was lost ({last_line(trial.get_error())})"
        watched.failed(trial.config["number"], place.read_text(encoding="utf-8") if place.is_file() else lost)


def _standing(result: Mapping[str, Any]) -> Standing:
    return Standing(**{name: result[name] for name in _STANDING})


def run_trials(watched: Watched, course: Course) -> None:
    """Run what a study lacks, on the cluster that was joined; an interruption leaves it to be gone on with."""
    folder = watched.trials.folder
    os.environ.update(_QUIET)
    logger = logging.getLogger("ray.tune")
    level, WATCHED[folder] = logger.level, watched
    logger.setLevel(logging.CRITICAL)  # what goes wrong is told by the record
    try:
        _tuner(watched, course).fit()
    finally:
        logger.setLevel(level)
        del WATCHED[folder]


def _tuner(watched: Watched, course: Course) -> Any:
    folder = watched.trials.folder
    trainable = tune.with_parameters(work, trials=watched.trials)
    # A trial whose evaluators do the work takes no processor, but Tune wants it to take something.
    needs = {"cpu": course.cpus, "gpu": course.gpus} if course.cpus else {"memory": 2**20}
    trainable = tune.with_resources(trainable, needs)
    state = Path(folder) / STATE
    if any(state.glob("experiment_state-*.json")):
        return tune.Tuner.restore(str(state), trainable, resume_unfinished=True, resume_errored=True)
    settings = tune.TuneConfig(
        metric="score",
        mode="max",
        search_alg=Proposals(folder),
        scheduler=_scheduler(watched, course.asha),
        num_samples=course.count,
        max_concurrent_trials=course.concurrent,
        reuse_actors=True,
        trial_dirname_creator=_name,
    )
    run = tune.RunConfig(
        name=STATE,
        storage_path=folder,
        callbacks=[Watch(folder)],
        verbose=0,
        failure_config=tune.FailureConfig(max_failures=1),  # a process that was lost; its journal has what it did
    )
    return tune.Tuner(trainable, tune_config=settings, run_config=run)


def _name(trial: Any) -> str:
    return f"{trial.config['number']:02d}-{trial.trial_id}"


def _scheduler(watched: Watched, asha: AshaSpec | None) -> TrialScheduler:
    if asha is None or watched.budget is None:
        return FIFOScheduler()
    return Asha(
        watched.trials.folder,
        time_attr=watched.unit,
        max_t=watched.budget * (1 + 1e-9) + 1,  # a trial that reaches its budget ends by itself
        grace_period=max(1.0, asha.grace * watched.budget),
        reduction_factor=asha.reduction,
    )
