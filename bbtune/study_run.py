"""Work through a study: run what it lacks, on Ray, and send it to MLflow as it comes."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from bbtune import api
from bbtune.compare.comparison import Comparison, compare
from bbtune.errors import BbtuneError, Fault, JobError, TrackingError
from bbtune.examine import examine
from bbtune.fan_out import Ended, fan_out
from bbtune.jobfile import load_job
from bbtune.journal import read_journal
from bbtune.mlflow_store import tracking_uri
from bbtune.progress import Show
from bbtune.result import JOURNAL, SPEC, STUDY, TuneResult
from bbtune.session import recorded_events, run_card
from bbtune.spec import BaseJob
from bbtune.study import Group, Member, Study, held, read_record, record_of, write_record
from bbtune.suite import by_job, parse_suite
from bbtune.tracking import flat, send_all, was_sent
from bbtune.tracking_groups import fetch_runs, finish_group, send_comparison, start_group


def validate_suite(path: str | Path, overrides: Sequence[str] = ()) -> list[Fault]:
    """Every fault of a suite and of its jobs with each seed; as of a single job, no weights are read.

    Args:
        overrides: ``key.path=value`` each, over every job.

    Raises:
        JobError: if the file cannot be read, or is no suite.
    """
    suite = parse_suite(path, overrides)
    found = {}
    for job, (spec, wrong, broken) in suite.jobs.items():
        seeded = [] if spec is None else [spec.with_seed(seed) for seed in suite.spec.seeds]
        found[job] = wrong + _judged(seeded, broken)
    return [*suite.faults, *by_job(found)]


def _judged(specs: Sequence[BaseJob], broken: set[str]) -> list[Fault]:
    return [fault for spec in specs for fault in examine(spec, broken)[3]]


def run_study(study: Study, show: Show) -> list[str]:
    """Run what a study lacks; what is there already is left as it is.

    Args:
        study: see :mod:`bbtune.study`.
        show: told of every run that ends.

    Returns:
        A sentence for each run that failed; all others are done.

    Raises:
        JobError: if data or model of a job cannot be had or do not fit it, before anything is run.
        BbtuneError: if the folder holds a run or a study of other jobs, or another process is at it.
    """
    record_of(study)  # refuses the folder of other jobs, before they are judged
    faults = by_job({group.name: _judged([of.spec for of in group.lacking], set()) for group in study.groups})
    if faults and not (study.folder / STUDY).is_file():
        raise _at_fault(study, faults)
    with held(study.folder):
        write_record(study.folder, record_of(study))
        record = _Record(study)
        if faults:
            record.send(show)
            raise _at_fault(study, faults)
        return _run_study(study, record, show)


def _at_fault(study: Study, faults: Sequence[Fault]) -> JobError:
    return JobError(faults, "suite" if len(study.groups) > 1 else "job")


def _run_study(study: Study, record: _Record, show: Show) -> list[str]:
    todo = [member for group in study.groups for member in group.lacking]
    done = len(study.members) - len(todo)
    show.say(f"study {study.name}: {len(study.members)} runs, {done} of them done already")
    faults = []
    show.runs(done, len(study.members))
    for ended in fan_out(todo, work_on) if todo else ():
        done += ended.fault is None
        if ended.fault is not None:
            faults.append(f"{ended.member.folder}: {ended.fault}")
        show.say(f"[{done}/{len(study.members)}] {_said(ended)}")
        show.runs(done, len(study.members))
        record.send()
    record.send(show)
    return faults


def work_on(spec: BaseJob, folder: Path) -> None:
    """Begin a run of a study, or go on with it; what MLflow is told is the study's business."""
    api.bring_to_end(spec, folder, tracked=False, shared=folder.parent)


def _said(ended: Ended) -> str:
    name = ended.member.folder.name
    if ended.fault is not None:
        return f"{name} failed: {ended.fault}"
    result = TuneResult.load(ended.member.folder)
    return f"{name}: test {result.scores['tuned'].test}, {result.cost.seconds:.0f} s"


class _Record:
    """What MLflow has of a study: a run for each member, nested under one for its job."""

    def __init__(self, study: Study) -> None:
        self._folder = study.folder
        self._groups = [group for group in study.groups if group.members[0].spec.tracking.enabled]
        self._open: set[str] = set()

    def send(self, show: Show | None = None) -> None:
        """Send what is done and was not sent, and close the groups that are complete.

        Args:
            show: told of a failure, which ends no study.
        """
        problem = None
        for group in self._groups:
            try:
                self._send(group)
            except TrackingError as error:
                problem = str(error)
                break  # the other groups would wait for the same server
            except (BbtuneError, OSError, ValueError) as error:
                problem = f"{group.name}: {error}"
        if problem and show is not None:
            show.say(f"MLflow lacks part of the study ({problem}); the same command sends what is missing")

    def _send(self, group: Group) -> None:
        done = [member for member in group.members if member.is_done]
        record, complete = read_record(self._folder), len(done) == len(group.members)
        uid = record[group.name]["uid"]
        fresh = [member for member in done if not was_sent(member.folder, uid)]
        names = [member.folder.name for member in group.members]
        if not fresh and not (complete and record[group.name].get("closed") != names):
            return
        spec = group.members[0].spec
        uri, experiment = tracking_uri(spec.tracking.uri), spec.tracking.experiment
        if uid not in self._open:
            start_group(uri, experiment, uid, group.name, _common(group))
            self._open.add(uid)
        for member in fresh:
            _send_run(member, uid, uri)
        if complete:
            finish_group(uri, experiment, uid, [TuneResult.load(member.folder) for member in group.members])
            write_record(self._folder, {**record, group.name: {**record[group.name], "closed": names}})


def _common(group: Group) -> dict[str, str]:
    """Parameters that all members of a group have, under the names that a run has."""
    specs = [member.spec for member in group.members]
    found = [flat(spec.model_dump(mode="json")) for spec in specs]
    shared = {name: value for name, value in found[0].items() if all(of.get(name) == value for of in found)}
    return {"method": specs[0].method_name, **shared}


def _send_run(member: Member, parent_uid: str, uri: str) -> None:
    spec, records = load_job(member.folder / SPEC), read_journal(member.folder / JOURNAL)
    card = run_card(spec, records[0], parent_uid)
    send_all(member.folder, card, recorded_events(spec, records), TuneResult.load(member.folder), uri)


def compared(runs: Sequence[str], reference: str | None, out: Path, uri: str | None) -> Comparison:
    """Compare runs, and leave table, page and plots in a folder.

    Args:
        runs: folders that hold runs; what is no folder is an MLflow experiment.
        reference: method that the others are compared with.
        out: folder of the comparison.
        uri: of MLflow; without it as everywhere.

    Raises:
        TrackingError: if an experiment cannot be fetched.
        BbtuneError: if there are no runs, or no such reference.
    """
    where = tracking_uri(uri)
    with tempfile.TemporaryDirectory() as fetched:
        paths: list[Path] = []
        for number, name in enumerate(runs):
            if Path(name).is_dir():
                paths.append(Path(name))
                continue
            paths.append(Path(fetched) / str(number))
            try:
                there = fetch_runs(where, name, paths[-1])
            except TrackingError as error:
                raise TrackingError(f"{name} is no folder; as an MLflow experiment: {error}") from error
            if not there:
                raise TrackingError(f"expected finished runs in the MLflow experiment {name}, found none")
        return compare(paths, reference, out)


def record_comparison(found: Comparison, runs: Sequence[str], uri: str | None, experiment: str | None) -> None:
    """Give a comparison to MLflow.

    Args:
        found: written to a folder.
        runs: that it is of, as they were given; the first that is no folder is an experiment, and gets it.
        uri: of MLflow; without it as everywhere.
        experiment: that gets it instead; without any, nothing is sent.

    Raises:
        TrackingError: if MLflow cannot be reached, or refuses.
    """
    experiment = experiment or next((name for name in runs if not Path(name).is_dir()), None)
    if experiment is None:
        return
    params = {"reference": found.reference, "runs": ", ".join(runs)}
    name = f"comparison of {Path(runs[0]).name}"
    send_comparison(tracking_uri(uri), experiment, name, found.metrics(), params, found.files)
