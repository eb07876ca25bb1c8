"""Processes are ended by what is on record of them, and nobody else's ever."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from processes import is_running

from bbtune.service.down import take_down
from bbtune.service.processes import MARK, below, find, start, stop
from bbtune.service.state import Recorded, Service, write_service

_PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
time.sleep(600)
"""
_DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"


def begun(code: str, log: Path) -> Recorded:
    """A Python process that has written its first line."""
    recorded = start("part", [sys.executable, "-c", code], dict(os.environ), log)
    while not log.read_text():
        time.sleep(0.02)
    return recorded


@pytest.fixture
def log(tmp_path):
    return tmp_path / "logs" / "part.log"


def test_a_process_is_started_in_a_session_of_its_own_with_a_private_log(log):
    recorded = begun(_PARENT, log)
    try:
        assert os.getsid(recorded.pid) == recorded.pid != os.getsid(0)
        assert (log.stat().st_mode & 0o777, log.parent.stat().st_mode & 0o777) == (0o600, 0o700)
        assert find(recorded) is not None
    finally:
        assert stop([recorded]) == []


def test_a_process_is_ended_with_all_below_it(log):
    recorded = begun(_PARENT, log)
    child = int(log.read_text())
    assert [one.pid for one in below(recorded)] == [child]
    assert stop([recorded]) == []
    assert not is_running(recorded.pid)
    assert not is_running(child)


def test_what_is_below_is_found_by_its_own_record_when_its_parent_was_killed(log):
    recorded = begun(_PARENT, log)
    (child,) = below(recorded)
    assert child.name.startswith("part/")
    os.kill(recorded.pid, 9)
    os.waitpid(recorded.pid, 0)
    assert is_running(child.pid)
    assert stop([recorded, child]) == []
    assert not is_running(child.pid)


def test_a_process_that_does_not_listen_is_killed(log, monkeypatch):
    monkeypatch.setattr("bbtune.service.processes._POLITE_S", 0.3)
    recorded = begun(_DEAF, log)
    assert stop([recorded]) == []
    assert not is_running(recorded.pid)


def test_the_log_of_the_time_before_is_kept(log):
    for _ in range(2):
        stop([begun("import time; print(time.time(), flush=True); time.sleep(600)", log)])
    assert log.with_suffix(".old").read_text() < log.read_text()


def test_what_has_the_mark_of_a_service_is_ended_though_nothing_on_record_leads_to_it(stranger):
    with subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(600)"], env={**os.environ, MARK: "/tmp/bbt-one"}
    ) as orphan:
        while not psutil.Process(orphan.pid).environ():
            time.sleep(0.02)
        assert stop([], "/tmp/bbt-other") == []
        assert orphan.poll() is None
        assert stop([], "/tmp/bbt-one") == []
        assert orphan.wait(timeout=5) is not None
    assert stranger.poll() is None


@pytest.fixture
def stranger():
    """A process that is none of ours."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as process:
        yield process
        process.kill()


def test_a_process_that_was_given_the_same_id_later_is_not_ours_and_is_left_alone(stranger):
    born = psutil.Process(stranger.pid).create_time()
    earlier = [Recorded("ray", stranger.pid, born - 60), Recorded("ray/raylet", stranger.pid, born + 60)]
    assert [find(one) for one in earlier] == [None, None]
    assert stop(earlier) == []
    assert stranger.poll() is None


def test_down_kills_no_process_that_was_given_a_recorded_id(stranger, tmp_path):
    born = psutil.Process(stranger.pid).create_time()
    where = {"dashboard": "http://127.0.0.1:1", "ray_address": "127.0.0.1:2", "mlflow": "http://127.0.0.1:3"}
    files = {"token_file": tmp_path / "token", "storage": tmp_path / "runs", "temp": tmp_path / "temp"}
    service = Service(folder=tmp_path, **where, **files, processes=(Recorded("ray", stranger.pid, born - 3600),))
    write_service(service)
    assert take_down(tmp_path) == service
    assert stranger.poll() is None
    assert take_down(tmp_path) is None


def test_down_of_a_folder_that_is_not_there_does_nothing(tmp_path):
    assert take_down(tmp_path / "missing") is None
    assert not (tmp_path / "missing").exists()


def test_a_process_that_has_ended_but_was_not_waited_for_is_not_found():
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        recorded = Recorded("part", process.pid, psutil.Process(process.pid).create_time())
        while psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.02)
        assert find(recorded) is None
        assert find(replace(recorded, pid=2**22 + 1)) is None
