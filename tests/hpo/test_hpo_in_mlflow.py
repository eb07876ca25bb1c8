"""What MLflow gets of a study: a run for it, its trials nested below, nothing twice."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from spaces import raw_of, record_in, space_of

from bbtune.hpo.record import STOPPED_EARLY, Ended, StudyRecord
from bbtune.hpo.tracking import StudyTracker, finish_study
from bbtune.hpo.trial import Trials, run_trial
from bbtune.mlflow_store import PARENT, Store
from bbtune.spec import JobSpec


def end_trial(trials: Trials, record: StudyRecord, number: int, reason: str = "budget.evaluations") -> None:
    """Run a trial for real."""
    settings = record.propose(number)
    assert settings is not None
    folder = trials.place(number, settings)
    *_, (standing, _) = run_trial(trials.space.spec(settings), folder)
    record.end(Ended(number, settings, folder.name, standing, reason, [], standing.unix_ms + 5))


@pytest.fixture
def spec(make_job: Any, mlflow_database: str, request: pytest.FixtureRequest) -> JobSpec:
    tracking = {"enabled": True, "uri": mlflow_database, "experiment": request.node.name}
    return make_job("bert", name="tiny", tracking=tracking)


def runs(spec: JobSpec) -> list[Any]:
    store = Store(str(spec.tracking.uri))
    return list(store.client.search_runs([store.experiment_id(spec.tracking.experiment)]))


def history(spec: JobSpec, run: Any, name: str) -> list[tuple[int, float]]:
    found = Store(str(spec.tracking.uri)).client.get_metric_history(run.info.run_id, name)
    return sorted((point.step, point.value) for point in found)


def test_trials_are_nested_below_their_study_and_sent_again_without_doubling(spec, tmp_path) -> None:
    space = space_of(spec)
    trials = Trials(space, str(tmp_path))
    journal, record = record_in(tmp_path, space)
    with journal:
        end_trial(trials, record, 0)
        with StudyTracker(tmp_path, spec, record) as tracker:
            end_trial(trials, record, 1, STOPPED_EARLY)
            tracker.wake()
        assert tracker.problem is None
        before = runs(spec)
        (tmp_path / "tracking.json").unlink()  # as if it had been killed before it noted what it sent
        with StudyTracker(tmp_path, spec, record) as tracker:
            pass
        assert tracker.problem is None
    found = runs(spec)
    assert len(found) == len(before) == 3
    (parent,) = [run for run in found if PARENT not in run.data.tags]
    children = sorted((run for run in found if run is not parent), key=lambda run: run.info.run_name)
    assert [run.info.run_name for run in children] == ["trial-00", "trial-01"]
    assert {run.data.tags[PARENT] for run in children} == {parent.info.run_id}
    assert [run.data.tags["bbtune.stop_reason"] for run in children] == ["budget.evaluations", STOPPED_EARLY]
    assert children[1].data.params["method.sigma"] == str(record.proposals[1]["method.sigma"])
    assert [step for step, _ in history(spec, parent, "best_dev_score")] == [1, 2]
    assert len(history(spec, children[0], "dev_score")) > 3


def test_what_the_study_itself_lacks_is_sent_though_all_trials_are_there(spec, tmp_path, monkeypatch) -> None:
    space = space_of(spec)
    journal, record = record_in(tmp_path, space)
    with journal:
        end_trial(Trials(space, str(tmp_path)), record, 0)
        with monkeypatch.context() as patch:
            patch.setattr("bbtune.hpo.tracking.best_curve", lambda _: 1 / 0)  # as if it had been killed here
            with StudyTracker(tmp_path, spec, record):
                pass
        with StudyTracker(tmp_path, spec, record) as tracker:
            pass
        assert tracker.problem is None
    (parent,) = [run for run in runs(spec) if PARENT not in run.data.tags]
    assert [step for step, _ in history(spec, parent, "best_dev_score")] == [1]


def test_the_end_of_a_study_closes_its_run_with_the_chosen_settings(spec, tmp_path) -> None:
    space = space_of(spec)
    journal, record = record_in(tmp_path, space)
    best = tmp_path / "best.yaml"
    best.write_text("a: job")
    with journal:
        end_trial(Trials(space, str(tmp_path)), record, 0)
        record.propose(1)
        with StudyTracker(tmp_path, spec, record):
            pass
        settings = record.proposals[1]
        chosen = record.best()
        assert chosen is not None
        for _ in range(2):  # the same command, given again
            finish_study(spec.tracking, record.uid, replace(chosen, number=1, settings=settings), [best])
    (parent,) = [run for run in runs(spec) if PARENT not in run.data.tags]
    assert parent.info.status == "FINISHED"
    assert parent.data.params["best.trial"] == "1"
    assert parent.data.params["best.method.accept"] == settings["method.accept"]
    artifacts = Store(str(spec.tracking.uri)).client.list_artifacts(parent.info.run_id)
    assert [file.path for file in artifacts] == ["best.yaml"]


def test_no_fault_of_mlflow_reaches_the_study(make_job, tmp_path, monkeypatch) -> None:
    spec = make_job("bert", tracking={"enabled": True, "uri": "http://127.0.0.1:9"})
    monkeypatch.setattr("bbtune.hpo.tracking.start_group", lambda *_: 1 / 0)
    journal, record = record_in(tmp_path, space_of(spec))
    with journal:
        with StudyTracker(tmp_path, spec, record) as tracker:
            tracker.wake()
        assert tracker.problem == "division by zero"
        assert raw_of(spec)
