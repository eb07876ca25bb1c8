"""What a service is doing, in lines."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from bbtune.errors import BbtuneError
from bbtune.service.ask import ask
from bbtune.service.cluster import Cluster, look_at, refusal
from bbtune.service.log import last_lines
from bbtune.service.parts import MLFLOW, RAY
from bbtune.service.processes import find
from bbtune.service.state import Service
from bbtune.service.token import service_token

_DEAD = "has died; `bbtune up` starts it again"
_OVER = ("SUCCEEDED", "FAILED", "STOPPED")


@dataclass(frozen=True)
class Status:
    """Lines to show, and whether all that should run does and answers."""

    lines: list[str]
    healthy: bool


def look(service: Service) -> Status:
    """Ask every part of a service how it is, seconds at the most."""
    ray, mlflow = _ray(service), _mlflow(service)
    free = shutil.disk_usage(service.folder).free
    rest = [
        f"runs    {service.storage}",
        f"token   {service.token_file}",
        f"disk    {_gib(_size(service.folder))} in {service.folder}, {_gib(free)} free",
    ]
    return Status([*ray.lines, *mlflow.lines, *rest], ray.healthy and mlflow.healthy)


def _ray(service: Service) -> Status:
    born = _birth(service, RAY)
    if born is None:
        lost = "; jobs that ran are gone from it: submit them again, they go on where they were"
        return Status([f"Ray     {_DEAD}{lost}", f"        {last_lines(service, RAY)}"], False)
    try:
        token = service_token(service.token_file)
    except BbtuneError as error:
        return Status([f"Ray     runs, but {error}"], False)
    first = f"Ray     up for {_duration(born)}, job server {service.dashboard}, head {service.ray_address}"
    if said := refusal(service.dashboard, ask(f"{service.dashboard}/api/version", token)):
        return Status([first, f"        but {said}"], False)
    cluster = look_at(service.dashboard, token)
    return Status([first, *(["        does not tell its state"] if cluster is None else _told(cluster))], True)


def _told(cluster: Cluster) -> list[str]:
    used = [f"{name}s {used:g} of {total:g} in use" for name, (used, total) in sorted(cluster.resources.items())]
    over = sum(cluster.jobs.get(state, 0) for state in _OVER)
    jobs = f"{cluster.jobs.get('RUNNING', 0)} running, {cluster.jobs.get('PENDING', 0)} waiting, {over} over"
    nodes = "1 node" if cluster.nodes == 1 else f"{cluster.nodes} nodes"
    return [f"        {', '.join([nodes, *used])}", f"jobs    {jobs}"]


def _mlflow(service: Service) -> Status:
    born = _birth(service, MLFLOW)
    if born is None:
        kept = "; runs go on without it, `bbtune sync FOLDER` sends it what it lacks"
        return Status([f"MLflow  {_DEAD}{kept}", f"        {last_lines(service, MLFLOW)}"], False)
    answer = ask(f"{service.mlflow}/health")
    first = f"MLflow  up for {_duration(born)}, {service.mlflow}"
    if answer.ok:
        return Status([first], True)
    said = answer.reason or f"HTTP {answer.status}"
    return Status([first, f"        but it does not answer ({said}); bbtune down, then bbtune up"], False)


def _birth(service: Service, name: str) -> float | None:
    """When the process of a part was born, None if it has ended."""
    for one in service.processes:
        if one.name == name and find(one):
            return one.create_time
    return None


def _duration(born: float) -> str:
    minutes = max(0, int(time.time() - born)) // 60
    if minutes < 1:
        return "less than a minute"
    hours, days = minutes // 60, minutes // 1440
    return (
        f"{minutes} min" if hours < 1 else f"{hours} h {minutes % 60} min" if days < 1 else f"{days} d {hours % 24} h"
    )


def _size(folder: Path) -> int:
    """Bytes of all files below a folder; those that go away meanwhile are not counted."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat(follow_symlinks=False).st_size
        except OSError:
            continue
    return total


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"
