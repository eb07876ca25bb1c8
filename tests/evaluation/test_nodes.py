"""A cluster of three machines: one is killed or freezes in the middle of a search, another comes; the trace stays."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bbtune import api
from bbtune.journal import read_journal

pytestmark = [pytest.mark.ray, pytest.mark.slow]

# The head holds the coordinator; the other two nodes hold an evaluator each.
PROGRAM = """
import json, os, signal, sys, time
import psutil
from ray.cluster_utils import Cluster
from bbtune import api
from bbtune.jobfile import load_job

job, out, how, at = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
common = {"object_store_memory": 80 * 2**20}
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **common})
nodes = [cluster.add_node(num_cpus=1, **common) for _ in range(2)]
os.environ["RAY_ADDRESS"] = cluster.address


def processes(node):
    pids = [info.process.pid for infos in node.all_processes.values() for info in infos]
    roots = [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]
    return {of.pid: of for root in roots for of in [root, *root.children(recursive=True)]}.values()


class View:
    times = []

    def __enter__(self): return self
    def __exit__(self, *_): ...
    def runs(self, done, total): ...
    def say(self, text): print(text, file=sys.stderr)
    def event(self, event):
        self.times.append(time.monotonic())
        if how != "nothing" and event.number == at:
            for of in processes(nodes[0]):
                of.send_signal(signal.SIGKILL if how == "kill" else signal.SIGSTOP)
        if how != "nothing" and event.number == at + 10:
            nodes.append(cluster.add_node(num_cpus=1, **common))


view = View()
start = time.monotonic()
try:
    api.run(load_job(job), out, view)
    took = time.monotonic() - view.times[0]
    gaps = [b - a for a, b in zip(view.times, view.times[1:])]
    print(json.dumps({"search_s": took, "longest_gap_s": max(gaps)}))
finally:
    if how == "freeze":
        for of in processes(nodes[0]):
            of.send_signal(signal.SIGCONT)
    cluster.shutdown()
"""


def trace(folder: Path) -> list[dict[str, Any]]:
    kept = ("split", "z_sha256", "loss", "metric", "examples", "layer_forwards")
    return [{key: r[key] for key in kept} for r in read_journal(folder / "journal.jsonl") if r["event"] == "scores"]


def searched(job: Path, out: Path, how: str, at: int = 20) -> tuple[dict[str, float], str]:
    """Seconds of a search on the three nodes, and what was said."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_ADDRESS")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(job), str(out), how, str(at)],
        env=environment | {"RAY_worker_niceness": "0", "RAY_TMPDIR": "/tmp"},
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    figures = json.loads(done.stdout.strip().splitlines()[-1])
    return figures, done.stderr


@pytest.fixture(scope="module")
def job(make_job, tmp_path_factory) -> Path:
    """A search of sixty generations."""
    path = tmp_path_factory.mktemp("job") / "job.yaml"
    path.write_text(make_job("bert", budget={"evaluations": 241}, evaluators={"count": 2}).to_yaml())
    return path


@pytest.fixture(scope="module")
def undisturbed(job, tmp_path_factory) -> list[dict[str, Any]]:
    """The trace of the search in this process."""
    from bbtune.jobfile import load_job

    folder = tmp_path_factory.mktemp("alone") / "run"
    api.run(load_job(job, ["evaluators.count=0"]), folder)
    return trace(folder)


@pytest.mark.parametrize("how", ["kill", "freeze"])
def test_a_node_that_is_lost_and_one_that_comes_change_nothing_but_seconds(how, job, undisturbed, tmp_path):
    _, said = searched(job, tmp_path / "run", how)
    assert trace(tmp_path / "run") == undisturbed
    if how == "kill":
        assert "an evaluator was lost" in said
