"""The one place that knows Ray Tune: its trials, searcher, scheduler and callback in terms of a study's record."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from bbtune.errors import BbtuneError
from bbtune.hpo.private import private_folder
from bbtune.hpo.progress import WATCHED, Watched
from bbtune.hpo.space_file import AshaSpec
from bbtune.hpo.trial import STATE, Trials, run_trial
from bbtune.hpo.tune_parts import FAULT, Asha, Proposals, Watch

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


def work(config: dict[str, Any], trials: Trials, known: Mapping[int, dict[str, Any]]) -> None:
    """What Tune calls in a process of its own for a trial.

    Args:
        known: last reports of trials that have ended; they are not run again, whatever Tune's state says of them.
    """
    number, settings = config["number"], config["settings"]
    if number in known:
        tune.report(known[number])
        return
    folder = trials.place(number, settings)
    (folder / FAULT).unlink(missing_ok=True)
    try:
        with closing(run_trial(trials.spec(settings), folder)) as steps:
            for standing, reason in steps:
                tune.report({**asdict(standing), "reason": reason})
    except BbtuneError as error:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / FAULT).write_text(str(error), encoding="utf-8")
        raise


def run_trials(watched: Watched, course: Course) -> None:
    """Run what a study lacks, on the cluster that was joined; an interruption leaves it to be gone on with."""
    folder = watched.trials.folder
    os.environ.update(_QUIET)
    logger = logging.getLogger("ray.tune")
    level, WATCHED[folder] = logger.level, watched
    logger.setLevel(logging.CRITICAL)  # what goes wrong is told by the record
    state = Path(folder) / STATE
    try:
        private_folder(state)
        _tuner(watched, course).fit()
        if watched.record.lacks(course.count):  # Tune restores what it can of a damaged state, and says nothing
            shutil.rmtree(state)
            private_folder(state)
            _tuner(watched, course).fit()
    finally:
        logger.setLevel(level)
        del WATCHED[folder]


def _tuner(watched: Watched, course: Course) -> Any:
    folder = watched.trials.folder
    ended = watched.record.ended.items()
    known = {number: {**asdict(trial.standing), "reason": trial.reason} for number, trial in ended}
    trainable = tune.with_parameters(work, trials=watched.trials, known=known)
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
