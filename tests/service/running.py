"""A real service for tests: in its own folder, on free ports, with nothing of the caller's environment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import psutil

from bbtune.service.state import Recorded, Service, read_service

_FOREIGN = ("RAY_", "MLFLOW_", "BBTUNE_")


def environment(**more: str) -> dict[str, str]:
    """This process's, without what points at other services."""
    return {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)} | more


def bbtune(state: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """``bbtune ARGUMENTS`` with a state folder, as a process of its own."""
    command = [sys.executable, "-m", "bbtune", *map(str, arguments)]
    return subprocess.run(
        command, env=environment(BBTUNE_SERVICE=str(state)), capture_output=True, text=True, timeout=300
    )


def started(state: Path, *options: object) -> Service:
    """A service that is up."""
    done = bbtune(state, "up", *options)
    assert done.returncode == 0, done.stdout + done.stderr
    service = read_service(state)
    assert service is not None
    return service


def head_of(service: Service, name: str) -> Recorded:
    """The process of a part that has started its others."""
    return next(one for one in service.processes if one.name == name)


def everything_of(service: Service) -> list[psutil.Process]:
    """All that runs of a service: what is on record, what is below that, and what names its folders in its command."""
    found = set(mentioning(service.folder, service.temp))
    for one in service.processes:
        if psutil.pid_exists(one.pid):
            process = psutil.Process(one.pid)
            found |= {process, *process.children(recursive=True)}
    return sorted(found, key=lambda process: process.pid)


def mentioning(*folders: Path) -> list[psutil.Process]:
    """Processes whose commands name a folder; this one and zombies left out."""
    found = []
    for process in psutil.process_iter():
        try:
            words = " ".join(process.cmdline())
            alive = process.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            continue
        if alive and process.pid != os.getpid() and any(str(folder) in words for folder in folders):
            found.append(process)
    return found


def still_running(processes: list[psutil.Process]) -> list[str]:
    """Those that have not ended, in words."""
    alive = []
    for process in processes:
        try:
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                alive.append(f"{process.pid} {process.name()} {process.cmdline()[:4]}")
        except psutil.NoSuchProcess:
            continue
    return alive


def request(
    url: str, method: str = "GET", token: str | None = None, body: bytes | None = None, timeout_s: float = 30
) -> tuple[int, bytes]:
    """HTTP status and body of one request."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    if body is not None:
        headers["Content-Type"] = "application/json"
    asked = urllib.request.Request(url, data=body, method=method, headers=headers)
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(asked, timeout=timeout_s) as answer:
            return int(answer.status), answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def submitted(service: Service, name: str, entrypoint: str) -> str:
    """A job of the service, through its HTTP interface."""
    body = json.dumps({"entrypoint": entrypoint, "submission_id": name}).encode()
    status, answer = request(f"{service.dashboard}/api/jobs/", "POST", service.token_file.read_text(), body)
    assert status == 200, answer
    return name


def job_state(service: Service, name: str) -> str:
    """``RUNNING``, ``PENDING`` ..."""
    return str(_jobs(service)[name]["status"])


def job_names(service: Service) -> set[str]:
    """Of all jobs that the service knows."""
    return set(_jobs(service))


def _jobs(service: Service) -> dict[str, Any]:
    status, answer = request(f"{service.dashboard}/api/jobs/", token=service.token_file.read_text())
    assert status == 200, answer
    return {job["submission_id"]: job for job in json.loads(answer) if job["submission_id"]}
