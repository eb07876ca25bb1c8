"""Many searches in the queue of one service: do all end, each once, and what do they leave in the head's memory?

Every search is a job of its own, submitted as ``bbtune submit`` does, on a tiny random model; all share one pool of
two evaluators. Ends with what each fifth of the queue took for a generation, and with the memory of the head's
processes before, meanwhile and after.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

_EVERY_S = 10.0
_HEAD = ("gcs_server", "raylet", "dashboard.py", "agent")  # processes, by what their command lines hold
_CONSOLE = Console(width=140)


def queue(jobs: int) -> None:
    """Submit them all to a service in a temporary folder, and wait for the last."""
    with tempfile.TemporaryDirectory(prefix="bbq-", dir="/tmp") as name:
        folder = Path(name)
        state = str(folder / "service")
        _bbtune("up", "--state", state)
        try:
            _run(folder, jobs)
        finally:
            _bbtune("down", "--state", state)


def _run(folder: Path, count: int) -> None:
    from bbtune.jobfile import load_job
    from bbtune.service.state import read_service
    from bbtune.submission.ray_jobs import RayJobs
    from bbtune.submission.server import find_server
    from bbtune.submission.submit import submit
    from bbtune.submission.work import Work

    service = read_service(folder / "service")
    assert service is not None
    server = RayJobs(find_server(service.dashboard, service.folder))
    path = _job(folder)
    memory = {0.0: _memory(service)}
    start = time.monotonic()
    for number in range(count):
        spec = load_job(path, [f"name=queued-{number:03}", f"seed={number}"])
        submit(server, Work(spec.name, spec.spec_hash, {"job": spec}), None, None)
    _CONSOLE.print(f"{count} submitted in {time.monotonic() - start:.0f} s")
    while True:
        states = Counter(job.status for job in server.all())
        memory[time.monotonic() - start] = _memory(service)
        _CONSOLE.print(f"{time.monotonic() - start:5.0f} s  {dict(states)}")
        if not states["PENDING"] and not states["RUNNING"]:
            break
        time.sleep(_EVERY_S)
    _report(service.storage, count, states, memory, time.monotonic() - start)


def _report(
    storage: Path, count: int, states: Counter[str], memory: dict[float, dict[str, float]], took: float
) -> None:
    """What came of them."""
    results = sorted(storage.glob("*/result.json"), key=lambda path: path.stat().st_mtime)
    runs = [path.parent for path in results]
    lines = {run.name: [json.loads(line) for line in (run / "journal.jsonl").read_text().splitlines()] for run in runs}
    once = sum(Counter(line["event"] for line in of)["start"] == 1 for of in lines.values())
    stops = sum(Counter(line["event"] for line in of)["stop"] == 1 for of in lines.values())
    _CONSOLE.print(
        f"{count} searches in {took:.0f} s: {dict(states)}, {len(runs)} with a result, {once} of them begun once and "
        f"{stops} ended once"
    )
    table = Table(
        "fifth of the queue", "median ms from one generation to the next", "head, MiB", "of it GCS", "job server"
    )
    sampled = list(memory.values())
    size = max(1, count // 5)
    for number in range(0, count, size):
        gaps = [gap for run in runs[number : number + size] for gap in _gaps(lines[run.name])]
        found = sampled[min(len(sampled) - 1, round((number + size) / count * (len(sampled) - 1)))]
        parts = [f"{sum(found.values()):.0f}", f"{found['gcs_server']:.0f}", f"{found['dashboard.py']:.0f}"]
        table.add_row(f"{number + 1} to {number + size}", f"{1000 * statistics.median(gaps):.1f}", *parts)
    _CONSOLE.print(table)
    first, last = sampled[0], sampled[-1]
    _CONSOLE.print(f"head before: {sum(first.values()):.0f} MiB, at the end: {sum(last.values()):.0f} MiB")


def _gaps(lines: list[dict[str, Any]]) -> list[float]:
    """Seconds from one generation's scores to the next."""
    times = [line["elapsed_s"] for line in lines if line["event"] == "scores" and line["split"] == "train"]
    return [after - before for before, after in pairwise(times)]


def _memory(service: Any) -> dict[str, float]:
    """Resident MiB of the head's own processes, by kind."""
    (head,) = [psutil.Process(one.pid) for one in service.processes if one.name == "ray"]
    found = dict.fromkeys(_HEAD, 0.0)
    for process in head.children(recursive=True):
        try:
            said = " ".join(process.cmdline()[:3])
            kind = next((kind for kind in _HEAD if kind in said), None)
            if kind is not None and "ray::" not in said:
                found[kind] += process.memory_info().rss / 2**20
        except psutil.NoSuchProcess:
            continue
    return found


def _job(folder: Path) -> Path:
    """A search of twenty generations on a tiny model and a tiny task."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from small_task import save_task
    from tiny_models import save_model

    save_model("bert", folder / "model")
    task = folder / "task"
    task.mkdir()
    save_task(task)
    job = {
        "name": "queued",
        "task": {"source": f"folder:{task}"},
        "backbone": {"model": f"path:{folder / 'model'}"},
        "prompt": {"tokens": 4, "intrinsic_dim": 6},
        "method": {"optimizer": "cma-diagonal", "blocks": "layerwise", "population": 8},
        "budget": {"evaluations": 161},
        "evaluators": {"count": 2, "cpus": 0.5, "pool": "shared", "idle_s": 60},
    }
    path = folder / "job.yaml"
    path.write_text(json.dumps(job))
    return path


def _bbtune(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "bbtune", *arguments], check=True)
