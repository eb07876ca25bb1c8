"""MLflow: complete records, and runs that do not care when it is gone."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import mlflow
import pytest
from views import Witness, interrupt

from bbtune import api
from bbtune.errors import TrackingError
from bbtune.journal import read_journal
from bbtune.loop import Cost, Generation
from bbtune.mlflow_store import tracking_uri
from bbtune.tracked_metrics import event_metrics


def recorded(uri: str, experiment: str) -> Any:
    client = mlflow.MlflowClient(uri)
    found = client.get_experiment_by_name(experiment)
    runs = client.search_runs([found.experiment_id])
    assert len(runs) == 1
    return client, runs[0]


def assert_whole(uri: str, experiment: str, folder: Path, result: Any) -> None:
    """The MLflow run holds every generation once, parameters, tags, data set, artifacts and final scores."""
    client, run = recorded(uri, experiment)
    finals = [client.get_metric_history(run.info.run_id, name) for name in ("test_tuned", "gain", "seconds")]
    assert [len(history) for history in finals] == [1, 1, 1]
    steps = [m.step for m in client.get_metric_history(run.info.run_id, "best_loss")]
    calls = [r for r in read_journal(folder / "journal.jsonl") if r["event"] == "scores" and r["split"] == "train"]
    assert len(steps) == len(calls)
    assert steps[-1] == result.cost.evaluations
    assert sorted(set(steps)) == steps
    assert run.info.status == "FINISHED"
    assert run.data.params["prompt.intrinsic_dim"] == "6"
    assert run.data.params["method"] == "cma-diagonal"
    assert run.data.params["task"] == "tiny"
    assert run.data.tags["bbtune.spec_hash"] == result.spec.spec_hash
    assert run.data.tags["bbtune.version.torch"].startswith("2.")
    assert run.data.metrics["test_tuned"] == result.scores["tuned"].test.value
    assert run.data.metrics["dev_score"] == result.scores["tuned"].dev.value
    assert {"dev_score", "layer", "evaluations_per_s", "gain_low", "test_zero_shot"} <= set(run.data.metrics)
    assert run.data.metrics["examples"] == result.cost.examples
    assert run.data.metrics["layer_forwards"] == result.cost.layer_forwards
    assert run.data.metrics["parameters"] == result.parameters
    assert run.data.metrics["peak_memory_mib"] == result.peak_memory_mib
    assert [entry.dataset.name for entry in run.inputs.dataset_inputs] == ["tiny"]
    files = {artifact.path for artifact in client.list_artifacts(run.info.run_id)}
    learned = {"learned.safetensors", "predicted.safetensors"}
    assert files == {"spec.yaml", "journal.jsonl", "result.json", "plot.png"} | learned


def test_a_generation_is_sent_with_what_it_cost():
    sent = event_metrics(Generation(3, (1,), Cost(21, 170, 510, 2.0), 0, 0.5, 0.4, 0.75, None, 0.7))
    assert sent == {
        "loss": 0.5,
        "best_loss": 0.4,
        "train_score": 0.75,
        "dev_score": 0.7,
        "layer": 1.0,
        "examples": 170.0,
        "layer_forwards": 510.0,
        "evaluations_per_s": 10.5,
    }


def test_what_is_said_goes_before_the_environment_and_that_before_a_local_database(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert tracking_uri(None) == f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert tracking_uri(None) == "http://127.0.0.1:9"
    assert tracking_uri("sqlite:///other.db") == "sqlite:///other.db"


@pytest.fixture(scope="session")
def database(tmp_path_factory):
    """A database made once: its migrations take seconds."""
    folder = tmp_path_factory.mktemp("mlflow")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    client = mlflow.MlflowClient(uri)
    for name in ("local", "resumed", "twice"):
        client.create_experiment(name, artifact_location=str(folder / "artifacts" / name))
    return uri


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class Server:
    """A real MLflow server on loopback."""

    def __init__(self, folder: Path, port: int) -> None:
        self.uri = f"http://127.0.0.1:{port}"
        self._command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
        self._command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{folder / 'server.db'}"]
        self._command += ["--artifacts-destination", str(folder / "artifacts")]

    def start(self) -> None:
        environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen(self._command, env=environment, start_new_session=True, **quiet)
        for _ in range(600):
            try:
                urllib.request.urlopen(self.uri + "/health", timeout=1).close()
                return
            except OSError:
                time.sleep(0.2)
        raise AssertionError("the MLflow server did not start")

    def kill(self) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


def test_a_local_database_gets_the_whole_record(make_job, tmp_path, database):
    job = make_job("bert", tracking={"enabled": True, "uri": database, "experiment": "local"})
    result = api.run(job, tmp_path / "run")
    assert_whole(database, "local", tmp_path / "run", result)


def test_a_record_sent_twice_is_not_doubled(make_job, tmp_path, database):
    job = make_job("bert", tracking={"enabled": True, "uri": database, "experiment": "twice"})
    result = api.run(job, tmp_path / "run")
    api.sync(tmp_path / "run")
    api.sync(tmp_path / "run")
    assert_whole(database, "twice", tmp_path / "run", result)


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_a_resumed_run_goes_on_in_the_same_record(make_job, tmp_path, database):
    job = make_job("bert", tracking={"enabled": True, "uri": database, "experiment": "resumed"})
    with pytest.raises(KeyboardInterrupt):
        api.run(job, tmp_path / "run", Witness(5, interrupt))
    result = api.resume(tmp_path / "run", ["evaluators.count=1"])  # another number is no obstacle to the record
    assert_whole(database, "resumed", tmp_path / "run", result)


@pytest.mark.slow
def test_a_server_killed_in_the_middle_does_not_end_the_run_and_sync_completes_the_record(
    make_job, tmp_path, monkeypatch
):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")  # the first answer of a new server can take long
    server = Server(tmp_path, free_port())
    server.start()
    killed: list[bool] = []

    def kill_once_recorded() -> None:
        client = mlflow.MlflowClient(server.uri)
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            found = client.get_experiment_by_name("killed")
            runs = client.search_runs([found.experiment_id]) if found else []
            if runs and runs[0].data.metrics:
                break
            time.sleep(0.1)
        assert runs
        assert runs[0].info.status == "RUNNING"
        server.kill()
        killed.append(True)

    job = make_job("bert", tracking={"enabled": True, "uri": server.uri, "experiment": "killed"})
    view = Witness(6, kill_once_recorded)
    try:
        result = api.run(job, tmp_path / "run", view)
    finally:
        server.kill()
    assert killed
    assert result.stop_reason == "budget.evaluations"
    assert any(f"bbtune sync {tmp_path / 'run'}" in line for line in view.said)
    with pytest.raises(TrackingError, match="MLflow failed"):
        api.sync(tmp_path / "run")
    server.start()
    try:
        api.sync(tmp_path / "run")
        assert_whole(server.uri, "killed", tmp_path / "run", result)
    finally:
        server.kill()


def test_a_server_that_never_answers_does_not_end_the_run(make_job, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(50)
        uri = f"http://127.0.0.1:{listener.getsockname()[1]}"
        job = make_job("bert", tracking={"enabled": True, "uri": uri})
        view = Witness()
        result = api.run(job, tmp_path / "run", view)
    assert (tmp_path / "run" / "result.json").is_file()
    assert result.stop_reason == "budget.evaluations"
    assert any("MLflow lacks part of the record" in line for line in view.said)


def test_no_credentials_of_an_address_are_kept(make_job, tmp_path, monkeypatch):
    secret = "http://someone:hunter2@127.0.0.1:9"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", secret)
    view = Witness()
    api.run(make_job("bert", tracking={"enabled": True}), tmp_path / "run", view)
    kept = "".join(path.read_text(errors="ignore") for path in (tmp_path / "run").iterdir())
    assert "hunter2" not in kept + "".join(view.said)
