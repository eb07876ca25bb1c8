"""The real service: it comes up, says how it is, and goes down without leaving a process."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from running import (
    bbtune,
    environment,
    everything_of,
    head_of,
    job_state,
    mentioning,
    request,
    started,
    still_running,
    submitted,
)

from bbtune.service.processes import find
from bbtune.service.state import Service, read_service

pytestmark = [pytest.mark.slow, pytest.mark.ray]


@pytest.fixture
def state(tmp_path: Path):
    """A state folder whose service is down at the end, whatever the test did."""
    folder = tmp_path / "state"
    yield folder
    bbtune(folder, "down")
    assert still_running(mentioning(folder)) == []


def wait_until(holds, timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def has_stopped(state: Path, service: Service, before: list) -> None:
    """Nothing runs, what was of use for the service alone is gone, its data are there."""
    assert still_running(before) == []
    assert still_running(mentioning(service.folder, service.temp)) == []
    assert read_service(state) is None
    assert not service.token_file.exists()
    assert not service.temp.exists()


def test_a_service_comes_up_runs_a_job_and_goes_down_without_a_process_left(state):
    service = started(state, "--cpus", 2)
    assert state.stat().st_mode & 0o777 == service.temp.stat().st_mode & 0o777 == 0o700
    assert service.token_file.stat().st_mode & 0o777 == 0o600
    told = state / "environment"
    submitted(service, "one", f"env > {told}.new && mv {told}.new {told} && sleep 600")
    wait_until(told.exists)
    inherited = dict(line.split("=", 1) for line in told.read_text().splitlines() if "=" in line)
    assert (inherited["MLFLOW_TRACKING_URI"], inherited["BBTUNE_STORAGE"]) == (service.mlflow, str(service.storage))
    assert inherited["RAY_ADDRESS"] == service.ray_address

    seen = bbtune(state, "status")
    assert seen.returncode == 0, seen.stdout
    for words in ("1 node, CPUs", "of 2 in use", "1 running, 0 waiting, 0 over", service.mlflow, service.dashboard):
        assert words in seen.stdout

    before = everything_of(service)
    assert len(before) > 20
    assert any("sleep" in process.name() for process in before)
    done = bbtune(state, "down")
    assert (done.returncode, done.stderr) == (0, "")
    has_stopped(state, service, before)
    assert (state / "mlflow.db").stat().st_size > 0
    assert service.storage.is_dir()
    assert (state / "logs" / "ray" / "raylet.out").is_file()

    again = bbtune(state, "down")
    assert (again.returncode, "no service is up" in again.stdout) == (0, True)
    gone = bbtune(state, "status")
    assert (gone.returncode, "bbtune up" in gone.stdout) == (1, True)


def test_up_of_a_service_that_is_up_changes_nothing(state):
    service = started(state)
    before = {process.pid for process in everything_of(service)}
    done = bbtune(state, "up")
    assert (done.returncode, "is up already" in done.stdout) == (0, True)
    assert read_service(state) == service
    assert before <= {process.pid for process in everything_of(service)}


def test_a_killed_head_is_told_and_started_again_beside_the_mlflow_that_runs(state):
    service = started(state)
    before = everything_of(service)
    os.kill(head_of(service, "ray").pid, signal.SIGKILL)
    wait_until(lambda: find(head_of(service, "ray")) is None)
    seen = bbtune(state, "status")
    assert seen.returncode == 1
    assert "Ray     has died; `bbtune up` starts it again" in seen.stdout
    assert "the end of" in seen.stdout
    sick = bbtune(state, "doctor")
    assert sick.returncode == 1
    assert "ray died\n        -> bbtune up" in sick.stdout

    renewed = started(state)
    assert head_of(renewed, "mlflow") == head_of(service, "mlflow")
    assert (renewed.dashboard, renewed.mlflow) == (service.dashboard, service.mlflow)
    left = [process for process in before if process.pid not in {p.pid for p in everything_of(renewed)}]
    assert still_running(left) == []
    submitted(renewed, "after", "true")
    wait_until(lambda: job_state(renewed, "after") == "SUCCEEDED")


def test_what_killed_parts_leave_is_cleaned_by_down(state):
    service = started(state)
    submitted(service, "one", "sleep 600")
    wait_until(lambda: job_state(service, "one") == "RUNNING")
    before = everything_of(service)
    for one in service.processes:
        if one.name in ("ray", "mlflow", "ray/raylet"):
            os.kill(one.pid, signal.SIGKILL)
    done = bbtune(state, "down")
    assert done.returncode == 0, done.stderr
    has_stopped(state, service, before)


def test_two_services_run_side_by_side_and_each_goes_down_alone(state, tmp_path):
    second_state = tmp_path / "second"
    first = started(state, "--cpus", 1)
    second = started(second_state, "--cpus", 1)
    try:
        assert not {first.dashboard, first.ray_address, first.mlflow} & {
            second.dashboard,
            second.ray_address,
            second.mlflow,
        }
        for service, name in ((first, "one"), (second, "two")):
            submitted(service, name, "true")
        wait_until(lambda: job_state(first, "one") == job_state(second, "two") == "SUCCEEDED")
        assert request(f"{first.dashboard}/api/jobs/", token=second.token_file.read_text())[0] == 403
        of_first = everything_of(first)
    finally:
        assert bbtune(second_state, "down").returncode == 0
    assert len(still_running(of_first)) >= 20
    assert bbtune(state, "status").returncode == 0


def test_a_port_that_is_taken_is_told_and_nothing_is_started(state):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = bbtune(state, "up", "--port-dashboard", port)
    assert done.returncode == 1
    assert f"error: --port-dashboard: {port} is taken by process {os.getpid()}" in done.stderr
    assert mentioning(state) == []
    assert read_service(state) is None


def test_a_part_that_does_not_start_is_told_with_its_log_and_the_other_is_stopped(state):
    state.mkdir()
    (state / "mlflow.db").write_bytes(b"this is no database" * 100)
    done = bbtune(state, "up")
    assert done.returncode == 1
    assert "mlflow did not start; the end of" in done.stderr
    assert "file is not a database" in done.stderr
    assert still_running(mentioning(state)) == []
    assert read_service(state) is None
    assert (state / "mlflow.db").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_up_leaves_nothing(state, number):
    command = [sys.executable, "-m", "bbtune", "up"]
    with subprocess.Popen(command, env=environment(BBTUNE_SERVICE=str(state)), stderr=subprocess.PIPE) as process:
        wait_until(lambda: read_service(state) is not None and len(read_service(state).processes) == 2)
        service = read_service(state)
        wait_until(lambda: len(everything_of(service)) > 3)  # Ray has begun to start its own
        before = everything_of(service)
        process.send_signal(number)
        time.sleep(1)  # while it ends what it has started
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert b"interrupted" in errors
    has_stopped(state, service, before)


def test_what_a_killed_up_had_started_is_cleaned_by_down(state):
    command = [sys.executable, "-m", "bbtune", "up"]
    with subprocess.Popen(command, env=environment(BBTUNE_SERVICE=str(state)), stderr=subprocess.PIPE) as process:
        wait_until(lambda: read_service(state) is not None and len(read_service(state).processes) == 2)
        service = read_service(state)
        wait_until(lambda: len(everything_of(service)) > 3)
        process.kill()
    before = everything_of(service)
    assert bbtune(state, "down").returncode == 0
    has_stopped(state, service, before)
