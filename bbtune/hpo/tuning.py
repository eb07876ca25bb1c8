"""Run the trials of an hpo study, or go on with them, and find the best."""

from __future__ import annotations

import uuid
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from bbtune.errors import BbtuneError
from bbtune.evaluation.ray_cluster import check_cluster, import_ray, joined_cluster
from bbtune.hpo.progress import Watched
from bbtune.hpo.record import FIRST, Ended, StudyRecord
from bbtune.hpo.searchers import SEARCHERS
from bbtune.hpo.study import HpoStudy
from bbtune.hpo.tracking import StudyTracker
from bbtune.hpo.trial import Trials, shared_evaluators
from bbtune.journal import FORMAT, Journal, now_ms
from bbtune.progress import Show
from bbtune.result import JOURNAL, SPEC, STUDY

RECORD, SPACE = "hpo.jsonl", "space.yaml"
_UNITS = ("evaluations", "examples", "layer_forwards", "seconds")  # of a budget, by which trials are stopped early


@dataclass(frozen=True)
class Tuned:
    """What the trials of a study have found.

    Attributes:
        best: the trial that dev selects; first: the job as it is.
        ended: all trials that have a result; faults: of those that have none, by number.
    """

    best: Ended
    first: Ended
    ended: tuple[Ended, ...]
    faults: dict[int, str]
    uid: str


def tune(study: HpoStudy, folder: Path, show: Show) -> Tuned:
    """Run the trials that a study lacks; a study of which all is done is only read.

    Args:
        folder: of the study, which every machine sees.

    Raises:
        BbtuneError: if the folder holds something else, another process is at it, or the job as it is has failed.
    """
    _refuse_used(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with Journal(folder / RECORD) as journal:
        _same_study(study, journal)
        concurrent = study.concurrent or max(1, study.spec.evaluators.count)
        sizes = study.space.sizes
        searcher = SEARCHERS[study.searcher](sizes, study.seed, study.trials, concurrent)
        record = StudyRecord(journal, study.space, searcher)
        tracker = StudyTracker(folder, study.spec, record) if study.spec.tracking.enabled else None
        with tracker or nullcontext():
            if not record.is_over:
                _run(study, folder, record, show, tracker)
                if record.lacks(study.trials):
                    raise BbtuneError(f"{folder}: Ray Tune ended before its trials; the same command goes on")
                _found(record)  # else the same command tries what has failed again
                record.close()
        if tracker is not None and tracker.problem:
            show.say(f"MLflow lacks part of the study ({tracker.problem}); the same command sends what is missing")
        return _found(record)


def _run(study: HpoStudy, folder: Path, record: StudyRecord, show: Show, tracker: StudyTracker | None) -> None:
    ray = import_ray()
    try:
        from bbtune.hpo.ray_tune import Course, run_trials
    except ModuleNotFoundError as error:
        raise BbtuneError("bbtune hpo needs Ray Tune; pip install 'bbtune[hpo]'") from error
    evaluators = shared_evaluators(study.spec).evaluators
    watched = Watched(
        trials=Trials(study.space, str(folder)),
        record=record,
        show=show,
        total=study.trials,
        unit=next((unit for unit in _UNITS if getattr(study.spec.budget, unit) is not None), _UNITS[0]),
        budget=next((limit for unit in _UNITS if (limit := getattr(study.spec.budget, unit)) is not None), None),
        sent=tracker.wake if tracker else lambda: None,
    )
    with joined_cluster(ray):
        own = {"count": max(1, evaluators.count)}
        check_cluster(ray, evaluators.model_copy(update=own))
        alone = evaluators.count == 0  # the trial's process does the work itself
        room = int(ray.cluster_resources().get("CPU", 1) // evaluators.threads)
        course = Course(
            count=study.trials,
            concurrent=study.concurrent or (max(1, room) if alone else evaluators.count),
            cpus=evaluators.threads if alone else 0,
            gpus=evaluators.gpus if alone else 0,
            asha=study.asha,
        )
        show.say(_begun(study, record, course.concurrent, watched.budget))
        run_trials(watched, course)


def _begun(study: HpoStudy, record: StudyRecord, concurrent: int, budget: float | None) -> str:
    stopped = "" if study.asha is None else ", none stopped early: the job has no budget"
    if study.asha is not None and budget is not None:
        stopped = f", stopped early by ASHA from {study.asha.grace:.0%} of their budget on"
    done = f", {len(record.ended)} of them done already" if record.ended else ""
    return f"hpo of {study.spec.name}: {study.trials} trials by {study.searcher}, {concurrent} at a time{stopped}{done}"


def _found(record: StudyRecord) -> Tuned:
    best, first = record.best(), record.ended.get(FIRST)
    if best is None or first is None:
        why = record.faults.get(FIRST, "it has not ended")
        raise BbtuneError(f"the job as it is has no result, so nothing can be compared with it: {why}")
    return Tuned(best, first, tuple(record.ended.values()), dict(record.faults), record.uid)


def _refuse_used(folder: Path) -> None:
    """Folders of runs and of other studies."""
    if folder.is_dir() and not (folder / RECORD).is_file():
        held = [name for name in (JOURNAL, SPEC, STUDY) if (folder / name).is_file()] or any(folder.iterdir())
        if held:
            raise BbtuneError(f"{folder} holds something else, expected a folder for a study; give another --out")


def _same_study(study: HpoStudy, journal: Journal) -> None:
    """Begin a study, or make sure that it is the one that was begun."""
    folder, now = journal.path.parent, study.options
    if not journal.records:
        (folder / SPACE).write_text(study.space_file.read_text(encoding="utf-8"), encoding="utf-8")
        start = {"event": "start", "format": FORMAT, "uid": uuid.uuid4().hex}
        journal.append({**start, "options": now, "unix_ms": now_ms()})
    then = journal.records[0]["options"]
    if changed := [f"{key} {then[key]} then, {now[key]} now" for key in now if now[key] != then[key]]:
        raise BbtuneError(f"{folder} holds a study that began otherwise ({'; '.join(changed)}); give another --out")
