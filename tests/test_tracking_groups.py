"""MLflow: same names for every method, seeds nested under one run, comparisons, and runs that are fetched again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest

from bbtune.compare.runs import load_runs
from bbtune.errors import TrackingError
from bbtune.jobfile import parse_job
from bbtune.loop import Cost
from bbtune.plan import Reading
from bbtune.result import Point, Scored, TuneResult
from bbtune.spec import BaseJob
from bbtune.task.metrics import Estimate
from bbtune.tracking import RunCard, send_all, was_sent
from bbtune.tracking_groups import fetch_runs, finish_group, median_curve, send_comparison, start_group

METHODS: dict[str, dict[str, Any]] = {
    "cma": {"optimizer": "cma", "population": 4},
    "lora": {"name": "lora"},
    "logistic-regression": {"name": "logistic-regression"},
}
COMPARED = {"test_tuned", "test_tuned_low", "test_tuned_high", "test_zero_shot", "test_zero_shot_low"}
COMPARED |= {"test_zero_shot_high", "gain", "gain_low", "gain_high", "parameters", "peak_memory_mib", "seconds"}
COMPARED |= {"evaluations", "examples", "backward_examples", "layer_forwards"}
TRUTH, BEFORE = [0, 1, 0, 1], [0, 0, 0, 0]


def make_spec(method: str, experiment: str, seed: int = 0, **task: Any) -> BaseJob:
    raw = {
        "name": f"tiny-{method}-{seed}",
        "task": {"source": "folder:/nowhere", **task},
        "backbone": {"model": "path:/nowhere/bert"},
        "method": METHODS[method],
        "budget": {"evaluations": 4000},
        "tracking": {"experiment": experiment},
        "seed": seed,
    }
    spec, faults, _ = parse_job(raw)
    assert spec is not None
    assert not faults, faults
    return spec


def made_up(method: str, experiment: str, seed: int = 0, tuned: float = 0.75, **task: Any) -> TuneResult:
    """A result as a run on four texts would have it."""
    spec = make_spec(method, experiment, seed, **task)
    estimates = {"majority": 0.5, "zero_shot": 0.5, "tuned": tuned}
    scores = {name: Estimate(value, value - 0.1, value + 0.1) for name, value in estimates.items()}
    after = [label if i < 4 * tuned else 1 - label for i, label in enumerate(TRUTH)]
    return TuneResult(
        spec=spec,
        labels=("bad", "great"),
        metric="accuracy",
        learned={"w": np.zeros(3)},
        parameters=100,
        stop_reason="budget.evaluations",
        cost=Cost(40, 400, 1200, 2.0 + seed, 30),
        scores={name: Scored(dev=score, test=score) for name, score in scores.items()},
        gain=Estimate(tuned - 0.5, tuned - 0.6, tuned - 0.4),
        predicted={"truth": np.array(TRUTH), "zero_shot": np.array(BEFORE), "tuned": np.array(after)},
        curve=(Point(0, 4, 12, 0, 0.1, None, 0.5), Point(20 + seed, 200, 600, 15, 1.0, 0.5 - 0.1 * seed, tuned)),
        seeds={"job": seed, "task": 13},
        versions={"torch": "2"},
        fingerprints={"task": "a" * 64, "test": "b" * 64, "model": "c" * 64},
        task="tiny",
        reading=Reading("masked-lm", "{text} {mask}", (("bad",), ("great",))),
        peak_memory_mib=123.0,
        stopped_ms=1_700_000_000_000 + seed,
    )


def send(uri: str, result: TuneResult, folder: Path, parent_uid: str | None = None) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "spec.yaml").write_text(result.spec.to_yaml())
    result.save(folder)
    dataset = {"name": result.task, "digest": "a" * 32, "source": "folder:/nowhere"}
    uid = f"{result.spec.spec_hash}-{result.spec.tracking.experiment}"
    card = RunCard(uid, result.spec, {}, dataset, result.stopped_ms - 5000, parent_uid)
    return send_all(folder, card, [], result, uri)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A database made once: its migrations take seconds."""
    folder = tmp_path_factory.mktemp("mlflow")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    client = mlflow.MlflowClient(uri)
    for name in ("same-names", "long", "seeds", "late", "comparison", "fetched", "open"):
        client.create_experiment(name, artifact_location=str(folder / "artifacts" / name))
    return uri


def runs_of(uri: str, experiment: str, where: str = "") -> list[Any]:
    client = mlflow.MlflowClient(uri)
    return list(client.search_runs([client.get_experiment_by_name(experiment).experiment_id], where))


def test_a_search_and_baselines_have_metrics_and_params_of_the_same_names(database: str, tmp_path: Path) -> None:
    for method in METHODS:
        send(database, made_up(method, "same-names"), tmp_path / method)
    runs = runs_of(database, "same-names")
    assert {run.data.params["method"] for run in runs} == set(METHODS)
    assert {run.data.params["task"] for run in runs} == {"tiny"}
    names = [set(run.data.metrics) for run in runs]
    assert names[0] == names[1] == names[2]
    assert names[0] >= COMPARED
    assert runs[0].data.metrics["backward_examples"] == 30


def test_a_param_longer_than_mlflow_takes_is_cut(database: str, tmp_path: Path) -> None:
    send(database, made_up("cma", "long", template="{text} {mask} " + "x" * 9000), tmp_path / "run")
    template = runs_of(database, "long")[0].data.params["task.template"]
    assert len(template) == 6000
    assert template.endswith("x…")


def test_seeds_are_nested_under_their_group_and_sending_all_twice_doubles_nothing(
    database: str, tmp_path: Path
) -> None:
    results = [made_up("lora", "seeds", seed, tuned) for seed, tuned in enumerate((0.5, 0.75, 1.0))]
    client = mlflow.MlflowClient(database)
    for _ in range(2):
        parent = start_group(database, "seeds", "group-1", "lora on tiny", {"method": "lora", "task": "tiny"})
        for result in results:
            send(database, result, tmp_path / result.spec.name, "group-1")
        assert client.get_run(parent).data.tags["bbtune.kind"] == "group"
        finish_group(database, "seeds", "group-1", results)
    assert len(runs_of(database, "seeds")) == 4
    nested = runs_of(database, "seeds", f"tags.mlflow.parentRunId = '{parent}'")
    assert {run.info.run_name for run in nested} == {result.spec.name for result in results}
    group = client.get_run(parent)
    assert group.info.status == "FINISHED"
    assert group.info.end_time == group.info.start_time  # it was opened after its runs
    assert group.data.params == {"method": "lora", "task": "tiny"}
    assert set(group.data.metrics) >= set(nested[0].data.metrics) | {"n_seeds", "dev_score", "best_loss"}
    expected = {"test_tuned": 0.75, "test_tuned_std": 0.25, "gain": 0.25, "n_seeds": 3.0, "seconds": 3.0}
    assert {name: group.data.metrics[name] for name in expected} == pytest.approx(expected)
    assert len(client.get_metric_history(parent, "test_tuned")) == 1
    curve = sorted((point.step, point.value) for point in client.get_metric_history(parent, "dev_score"))
    assert curve == [(0, 0.5), (20, 0.5), (21, 0.5), (22, 0.75)]


def test_a_group_is_running_until_it_is_finished_and_needs_a_start(database: str) -> None:
    parent = start_group(database, "open", "group-2", "open", {})
    assert mlflow.MlflowClient(database).get_run(parent).info.status == "RUNNING"
    with pytest.raises(TrackingError, match="no group group-3; open it first"):
        finish_group(database, "open", "group-3", [made_up("lora", "open")])
    with pytest.raises(TrackingError, match="at least one run, got none"):
        finish_group(database, "open", "group-2", [])


def test_a_run_that_was_sent_before_is_nested_later(database: str, tmp_path: Path) -> None:
    first, second = made_up("lora", "late", 0), made_up("lora", "late", 1)
    send(database, first, tmp_path / "a")  # without a group, as a resumed run does
    assert not was_sent(tmp_path / "a", "group-4")
    send(database, second, tmp_path / "b", "group-4")  # before its group is there
    parent = start_group(database, "late", "group-4", "late", {})
    send(database, first, tmp_path / "a", "group-4")
    assert was_sent(tmp_path / "a", "group-4")
    assert not was_sent(tmp_path / "a", "group-5")
    nested = runs_of(database, "late", f"tags.mlflow.parentRunId = '{parent}'")
    assert len(nested) == 2
    assert len(runs_of(database, "late")) == 3


def test_a_curve_keeps_its_last_value_and_losses_that_are_not_known_do_not_count() -> None:
    point = Point(10, 0, 0, 0, 0.0, None, 0.5)
    short, long = [point], [point, replace(point, evaluations=30, dev=0.9, best_loss=0.2)]
    late = [replace(point, evaluations=20, dev=0.7, best_loss=0.4)]
    assert median_curve([short, long, late]) == {
        10: {"dev_score": 0.5},
        20: {"dev_score": 0.5, "best_loss": 0.4},
        30: {"dev_score": 0.7, "best_loss": pytest.approx(0.3)},
    }
    assert median_curve([[], []]) == {}


def test_a_comparison_has_its_metrics_and_its_files_and_no_others(database: str, tmp_path: Path) -> None:
    files = [tmp_path / "table.md", tmp_path / "gain.png"]
    for path in (*files, tmp_path / "secrets.env"):
        path.write_text("| method |")
    run_id = send_comparison(database, "comparison", "all", {"pairs": 3.0}, {"task": "tiny"}, files)
    client = mlflow.MlflowClient(database)
    run = client.get_run(run_id)
    assert run.data.tags["bbtune.kind"] == "comparison"
    assert (run.data.metrics, run.data.params) == ({"pairs": 3.0}, {"task": "tiny"})
    assert run.info.status == "FINISHED"
    assert {artifact.path for artifact in client.list_artifacts(run_id)} == {"table.md", "gain.png"}


def test_finished_runs_are_fetched_and_can_be_compared(database: str, tmp_path: Path) -> None:
    sent = {}
    for method in ("cma", "lora"):
        result = made_up(method, "fetched")
        sent[send(database, result, tmp_path / "runs" / method, "group-5")] = result
    start_group(database, "fetched", "group-5", "both", {})
    finish_group(database, "fetched", "group-5", list(sent.values()))
    send_comparison(database, "fetched", "all", {}, {}, [])
    unfinished = make_spec("cma", "fetched", 9)
    send_all(
        tmp_path,
        RunCard("unfinished", unfinished, {}, {"name": "tiny", "digest": "a", "source": "s"}, 1),
        [],
        None,
        database,
    )
    folders = fetch_runs(database, "fetched", tmp_path / "into")
    assert {folder.name for folder in folders} == set(sent)
    assert fetch_runs(database, "fetched", tmp_path / "into") == folders
    runs, left_out = load_runs([tmp_path / "into"])
    assert left_out == []
    for run in runs:
        assert run.spec == sent[run.folder.name].spec
        assert run.scores == sent[run.folder.name].scores
        assert run.tuned.tolist() == sent[run.folder.name].predicted["tuned"].tolist()


def test_an_experiment_that_is_not_there_is_answered_with_those_that_are(database: str, tmp_path: Path) -> None:
    with pytest.raises(TrackingError, match=r'got "fetcht"; it has .*fetched.*; did you mean "fetched"\?'):
        fetch_runs(database, "fetcht", tmp_path)


@pytest.mark.parametrize(
    "call",
    [
        lambda uri, folder: start_group(uri, "e", "u", "n", {}),
        lambda uri, folder: finish_group(uri, "e", "u", [made_up("cma", "e")]),
        lambda uri, folder: send_comparison(uri, "e", "n", {}, {}, [folder]),
        lambda uri, folder: fetch_runs(uri, "e", folder),
    ],
    ids=["start_group", "finish_group", "send_comparison", "fetch_runs"],
)
def test_a_server_that_is_gone_is_told_in_words_without_credentials(
    call: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(TrackingError, match="MLflow failed") as caught:
        call("http://someone:hunter2@127.0.0.1:9", tmp_path)
    assert "hunter2" not in str(caught.value)
