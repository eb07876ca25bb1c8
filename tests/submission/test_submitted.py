"""Jobs on a real cluster: submitted, followed, killed, stopped and gone on with."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from records import lines

from bbtune import api
from bbtune.result import TuneResult
from bbtune.service.ask import ask
from bbtune.service.state import Service, read_service
from bbtune.spec import BaseJob

pytestmark = [pytest.mark.slow, pytest.mark.ray]

BBTUNE = [sys.executable, "-m", "bbtune"]
# What a submission must not hand on, wherever it lies in the environment of who submits.
SECRETS = {"OPENAI_API_KEY": "sk-hush-openai", "MLFLOW_TRACKING_PASSWORD": "hush-mlflow"}


def free_port() -> int:
    """One that no other service wants out of habit."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A local service of two CPUs, for this module."""
    folder = tmp_path_factory.mktemp("service")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BBTUNE_SERVICE", str(folder))
        patch.setenv("BBTUNE_CACHE", str(folder / "cache"))
        for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"):
            patch.delenv(name, raising=False)
        ports = (f"--port-{part}={free_port()}" for part in ("ray", "dashboard", "mlflow"))
        begun = subprocess.run([*BBTUNE, "up", "--cpus", "2", *ports], capture_output=True, text=True)
        assert begun.returncode == 0, begun.stderr
        try:
            found = read_service(folder)
            assert found is not None
            yield found
        finally:
            subprocess.run([*BBTUNE, "down"], check=True, capture_output=True)


def bbtune(*arguments: str, timeout_s: float = 240, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*BBTUNE, *arguments],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        env={**os.environ, **SECRETS, **environment},
    )


def written(spec: BaseJob, folder: Path) -> str:
    (folder / "job.yaml").write_text(spec.to_yaml())
    return str(folder / "job.yaml")


def run_folder(service: Service, spec: BaseJob) -> Path:
    return service.storage / f"{spec.name}-{spec.spec_hash[:8]}"


def wait_for_lines(folder: Path, count: int) -> None:
    deadline = time.monotonic() + 120
    while lines(folder) < count:
        assert time.monotonic() < deadline, f"{lines(folder)} of {count} lines after 120 s"
        time.sleep(0.02)


def drivers(id: str) -> list[psutil.Process]:
    """Coordinators of a job; Ray names it in their environment."""
    found = []
    for process in psutil.process_iter():
        try:
            if "bbtune.coordinator" in process.cmdline() and id in process.environ().get(
                "RAY_JOB_CONFIG_JSON_ENV_VAR", ""
            ):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def details(service: Service, id: str) -> dict[str, Any]:
    answer = ask(f"{service.dashboard}/api/jobs/{id}", service.token_file.read_text().strip())
    assert answer.ok
    return dict(answer.json())


def learned(result: TuneResult) -> Any:
    return result.as_dict()["learned_sha256"]


def test_a_job_is_submitted_followed_recorded_and_only_run_once(service, make_job, tmp_path):
    spec = make_job("bert", name="plain", tracking={"enabled": True})
    done = bbtune("submit", written(spec, tmp_path), "--follow")
    assert done.returncode == 0, done.stdout + done.stderr
    id = f"plain-{spec.spec_hash[:8]}"
    assert done.stdout.startswith(f"submitted {id}\n")
    assert "plain: accuracy of 2 labels" in done.stdout
    folder = run_folder(service, spec)
    assert learned(TuneResult.load(folder)) == learned(api.run(spec, tmp_path / "here"))
    assert "MLflow is told nothing" not in done.stdout
    assert json.loads((folder / "tracking.json").read_text())
    again = bbtune("submit", written(spec, tmp_path), "--follow")
    assert again.returncode == 0, again.stderr
    assert again.stdout.startswith(f"submitted {id}-2\n")
    assert "generation" not in again.stdout
    assert "plain: accuracy of 2 labels" in again.stdout
    rows = bbtune("jobs").stdout.splitlines()
    assert [row.split()[:2] for row in rows if row.startswith("plain-")] == [
        [id, "succeeded"],
        [f"{id}-2", "succeeded"],
    ]
    assert "plain: accuracy" in bbtune("logs", id).stdout


def test_nothing_secret_is_in_what_the_server_tells_of_a_job(service, make_job, tmp_path):
    spec = make_job("bert", name="open")
    environment = tmp_path / "environment.yaml"
    environment.write_text("env_vars: {COLOUR: green}\n")
    assert bbtune("submit", written(spec, tmp_path), "--runtime-env", str(environment), "--id", "mine").returncode == 0
    told = json.dumps(details(service, "mine"))
    assert "green" in told
    for secret in (*SECRETS.values(), service.token_file.read_text().strip()):
        assert secret not in told
    assert set(details(service, "mine")["metadata"]) - {"job_submission_id"} == {
        "bbtune.work",
        "bbtune.folder",
        "bbtune.hash",
        "bbtune.version",
    }
    environment.write_text("env_vars: {OPENAI_API_KEY: hush-hush}\n")
    refused = bbtune("submit", written(spec, tmp_path), "--runtime-env", str(environment), "--id", "other")
    assert refused.returncode == 2
    assert "env_vars.OPENAI_API_KEY: looks like a credential" in refused.stderr
    assert "hush-hush" not in refused.stderr


def test_a_driver_killed_in_the_middle_is_gone_on_with_by_the_next_submission(service, make_job, tmp_path):
    spec = make_job("bert", name="cut", budget={"evaluations": 1200}, evaluators={"count": 1})
    job, folder = written(spec, tmp_path), run_folder(service, spec)
    id = f"cut-{spec.spec_hash[:8]}"
    assert bbtune("submit", job).returncode == 0
    wait_for_lines(folder, 20)
    (driver,) = drivers(id)
    driver.send_signal(signal.SIGKILL)
    ended = bbtune("logs", id, "--follow")
    assert ended.returncode != 0
    assert f"{id}: failed; the same bbtune submit goes on with it" in ended.stderr
    kept = lines(folder)
    assert not (folder / "result.json").exists()
    done = bbtune("submit", job, "--follow", "--set", "evaluators.count=2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith(f"submitted {id}-2\n")
    assert lines(folder) > kept
    assert learned(TuneResult.load(folder)) == learned(
        api.run(spec.model_copy(update={"evaluators": make_job("bert").evaluators}), tmp_path / "whole")
    )


def test_a_job_runs_once_at_a_time_is_stopped_by_its_id_and_says_how_to_go_on(service, make_job, tmp_path):
    spec = make_job("bert", name="long", budget={"evaluations": 100_000})
    id = f"long-{spec.spec_hash[:8]}"
    assert bbtune("submit", written(spec, tmp_path)).returncode == 0
    wait_for_lines(run_folder(service, spec), 5)
    twice = bbtune("submit", written(spec, tmp_path))
    assert twice.returncode == 1
    assert f"the same job is running as {id}" in twice.stderr
    stopped = bbtune("stop", id)
    assert stopped.returncode == 0
    assert stopped.stdout == f"{id} stopped; the same bbtune submit goes on with it\n"
    assert f"interrupted; go on with: bbtune resume {run_folder(service, spec)}" in bbtune("logs", id).stdout
    assert bbtune("stop", id).stdout == f"{id} has ended before (stopped)\n"
    for command in ("stop", "logs"):
        unknown = bbtune(command, id.replace("long", "lung"))
        assert unknown.returncode == 1
        assert f'has no job {id.replace("long", "lung")}; did you mean "{id}"?' in unknown.stderr


def test_following_can_be_left_and_the_job_goes_on(service, make_job, tmp_path):
    spec = make_job("bert", name="left", budget={"evaluations": 100_000})
    id = f"left-{spec.spec_hash[:8]}"
    process = subprocess.Popen(
        [*BBTUNE, "submit", written(spec, tmp_path), "--follow"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_for_lines(run_folder(service, spec), 3)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 130
    assert f"{id} goes on; see it with: bbtune logs {id} --follow; end it with: bbtune stop {id}" in said
    assert "Traceback" not in said
    assert details(service, id)["status"] == "RUNNING"
    assert bbtune("stop", id).returncode == 0


def test_a_fault_that_only_the_cluster_sees_is_one_line_and_an_exit_code(service, make_job, tmp_path):
    spec = make_job("bert", name="gone")
    done = bbtune("submit", written(spec, tmp_path), "--follow", "--set", "backbone.model=path:/nowhere/model")
    assert done.returncode == 2
    assert re.search(r"^error: 1 fault in the job$", done.stdout, re.M)
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize("command", [["submit", "JOB"], ["jobs"], ["stop", "any"], ["logs", "any"]])
def test_without_the_token_every_command_is_refused_within_seconds(service, make_job, tmp_path, command):
    job = written(make_job("bert"), tmp_path)
    arguments = [job if part == "JOB" else part for part in command]
    elsewhere = {"BBTUNE_SERVICE": str(tmp_path / "none"), "HOME": str(tmp_path)}
    for token, said in (({}, "wants a token"), ({"RAY_AUTH_TOKEN": "wrong"}, "refuses the token")):
        began = time.monotonic()
        refused = bbtune(*arguments, "--address", service.dashboard, **elsewhere, **token)
        assert refused.returncode == 1
        assert refused.stderr.startswith(f"error: {service.dashboard} {said}")
        assert time.monotonic() - began < 10


def test_a_long_queue_begins_one_after_the_other(service, make_job, tmp_path):
    """Two CPUs, six jobs that take one each in their drivers: never more than two drivers."""
    ids, most = [], 0
    for number in range(6):
        spec = make_job("bert", name=f"queued{number}")
        ids.append(f"queued{number}-{spec.spec_hash[:8]}")
        assert bbtune("submit", written(spec, tmp_path)).returncode == 0
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        states = [details(service, id)["status"] for id in ids]
        most = max(most, sum(len(drivers(id)) for id in ids))
        if all(state == "SUCCEEDED" for state in states):
            break
        time.sleep(0.5)
    assert states == ["SUCCEEDED"] * 6
    assert most <= 2
