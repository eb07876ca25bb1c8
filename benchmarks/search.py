"""Where the time of a whole search goes: the model, the optimizer, messages, the journal, MLflow.

    python benchmarks/search.py jobs/quickstart.yaml --set evaluators.count=0 --rounds 3

Runs the job through the product's own code in a temporary folder (MLflow's database too, unless --set names one),
each round in a process of its own, and prints a table for each, and one of medians. The clocks are put around the
seams from outside. A part's seconds are those of the search's own thread:

* model: inside a worker's method; of several actors, the mean.
* MLflow: handing over events, and, where the model runs in this process, what the search's thread waits in it for
  neither core nor result: MLflow's thread may have held the interpreter. No more than that thread's CPU is counted.
* idle: an actor has nothing to do, because it was done before the others, or because there are fewer candidates than
  actors (a judgement on dev, the starting point).
* messages: the rest of a pool's call, that is serialisation, Ray, an actor that waits for its next call.

Where every core has its actor, MLflow's thread takes one from them now and then: its seconds of CPU stand below the
table. The first use of an optimizer's library (make) counts as the optimizer's. Other work on the machine makes the
model wait for a core, and the other shares look small; so they are also told without these waits. Actors must be on
this machine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import chdir
from dataclasses import asdict, dataclass
from functools import partial, wraps
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console

import bbtune.journal
from bbtune import api, prompt_search
from bbtune.build import limits
from bbtune.evaluation import local, ray_pool
from bbtune.evaluation.evaluator import PromptEvaluator
from bbtune.evaluation.worker import Worker
from bbtune.jobfile import load_job
from bbtune.journal import Journal
from bbtune.loop import Cost, Generation, Stopped
from bbtune.method import Fitted, Method
from bbtune.progress import make_show
from bbtune.prompt_search import PromptSearch
from bbtune.search import BlockSearch, Search
from bbtune.search_plan import SearchPlan
from bbtune.session import Session
from bbtune.spec import JobSpec
from bbtune.tracking import Tracker

Stamp = tuple[int, float, float, float, float]  # process, begin, end, seconds on a core, seconds waiting for one

CORE, QUEUE, LOCK = "on a core", "waiting for a core", "waiting otherwise"
IDLE_END, IDLE_FEW = "idle at the end of a generation", "idle, fewer candidates than actors"
_LOOP = "loop, losses, metric"
# The lines of the table, and what each sums up.
LINES: dict[str, list[str]] = {
    "model": [CORE, QUEUE, LOCK],
    "optimizer": ["ask", "tell", "stop_reasons"],
    "messages": [],
    "journal": ["digest", "append", "fsync"],
    "MLflow": ["take", "interpreter held"],
    IDLE_END: [],
    IDLE_FEW: [],
    "progress line": [],
    _LOOP: [],
}
_OVERHEAD = ["optimizer", "messages", "journal", "MLflow"]


@dataclass(frozen=True)
class Figures:
    """One run, in seconds.

    Attributes:
        parts: of the search's wall time.
        around: of the command outside the search.
        mlflow_cpu: of MLflow's thread in the search; process_cpu: of the whole process.
    """

    title: str
    evaluations: int
    wall: float
    parts: dict[str, float]
    around: dict[str, float]
    mlflow_cpu: float
    process_cpu: float


def main() -> None:
    """Run the rounds and print their tables."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("job", type=Path)
    asked.add_argument("--set", dest="sets", action="append", default=[], metavar="KEY=VALUE", help="over the job file")
    asked.add_argument("--rounds", type=int, default=1)
    asked.add_argument("--figures", type=Path, help=argparse.SUPPRESS)  # where a round leaves its own
    given = asked.parse_args()
    if given.figures:
        given.figures.write_text(json.dumps(asdict(one_run(given.job, given.sets, given.figures.parent))))
        return
    rounds = []
    with tempfile.TemporaryDirectory(prefix="bbtune-") as folder:
        for number in range(given.rounds):
            place = Path(folder) / str(number)
            place.mkdir()
            sets = [word for one in given.sets for word in ("--set", one)]
            command = [sys.executable, __file__, str(given.job), *sets, "--figures", str(place / "figures.json")]
            subprocess.run(command, check=True)
            rounds.append(Figures(**json.loads((place / "figures.json").read_text())))
            print(table(rounds[-1]), flush=True)
    if len(rounds) > 1:
        print(table(median(rounds)))


def one_run(job: Path, sets: Sequence[str], folder: Path) -> Figures:
    """A run in this process, with clocks around its seams."""
    spec = load_job(job, [f"tracking.uri=sqlite:///{folder}/mlflow.db", *sets])
    watch = Watch(spec)
    watch.attach()
    with chdir(folder), make_show(Console(stderr=True), limits(spec)) as view:
        watch.around(view, "event", "progress line")
        result = api.run(spec, folder / "run", view)
    return watch.figures(result.cost)


def title(spec: JobSpec) -> str:
    """What was run, in words."""
    where = f"{spec.evaluators.count} actors" if spec.evaluators.count else "in this process"
    return f"{spec.name}, {where}, tracking {'on' if spec.tracking.enabled else 'off'}"


class Watch:
    """Adds up the seconds that the parts of a job's search take."""

    def __init__(self, spec: JobSpec) -> None:
        self._spec = spec
        self._workers = max(1, spec.evaluators.count)
        self._spent: dict[str, float] = defaultdict(float)
        self._search: dict[str, float] = {}
        self._began = self._ended = 0.0
        self._cpu = (0.0, 0.0)  # of MLflow's thread and of the process, in the search
        self._tracker: Tracker | None = None

    def attach(self) -> None:
        """Put clocks around the seams of this process."""
        for name in ("ask", "tell", "stop_reasons"):
            self.around(BlockSearch, name, name)
        self.around(bbtune.journal, "_record", "digest")
        self.around(Journal, "append", "append")
        self.around(os, "fsync", "fsync")
        self.around(Tracker, "take", "take")
        self.around(Tracker, "close", "close")
        local.Worker = lambda plan: TimedWorker(Worker(plan))  # type: ignore[assignment, misc]
        prompt_search.RayPool = partial(ray_pool.RayPool, host=TimedHost)  # type: ignore[assignment, misc]
        for pool in (local.LocalPool, ray_pool.RayPool):
            self._unpack(pool)
        self._around_search()

    def around(self, owner: Any, name: str, part: str) -> None:
        """Time every call of an attribute."""
        work = getattr(owner, name)

        @wraps(work)
        def timed(*args: Any, **kwargs: Any) -> Any:
            start = time.monotonic()
            try:
                return work(*args, **kwargs)
            finally:
                self._spent[part] += time.monotonic() - start

        setattr(owner, name, timed)

    def _unpack(self, pool: type) -> None:
        """Take the stamps off the results of a pool, and share out the time of the call."""
        work = pool.run  # type: ignore[attr-defined]

        def run(self_: Any, method: str, calls: Sequence[Any], deadline: float | None = None) -> list[Any]:
            start = time.monotonic()
            answers = work(self_, method, calls, deadline)
            seconds = time.monotonic() - start
            for part, spent in shares(seconds, [stamp for _, stamp in answers], self._workers).items():
                self._spent[part] += spent
            return [result for result, _ in answers]

        pool.run = run  # type: ignore[attr-defined]

    def _around_search(self) -> None:
        """Count the search alone, and keep its sums before the test split is scored."""
        fitted, work = Session._fitted, PromptSearch._events

        def remembering(session: Session, method: Method, tracker: Tracker | None) -> Fitted:
            self._tracker = tracker
            return fitted(session, method, tracker)

        def timed(method: PromptSearch, search: Search, evaluator: PromptEvaluator) -> Iterator[Generation | Stopped]:
            self._spent.clear()
            before = _cpu_seconds(self._tracker)
            self._began = time.monotonic()
            for event in work(method, search, evaluator):
                if isinstance(event, Stopped):
                    self._ended = time.monotonic()
                    after = _cpu_seconds(self._tracker)
                    self._cpu = (after[0] - before[0], after[1] - before[1])
                    self._search = dict(self._spent)
                yield event

        Session._fitted = remembering  # type: ignore[method-assign]
        PromptSearch._events = timed  # type: ignore[method-assign]

    def figures(self, cost: Cost) -> Figures:
        """What was seen of a run that has just ended."""
        start = time.monotonic() - (time.time() - psutil.Process().create_time())
        wall, close = self._ended - self._began, self._spent["close"]
        after = time.monotonic() - self._ended - close
        around = {"imports, cluster, model, calibration": self._began - start, "test": after, "closing MLflow": close}
        beside = self._spec.evaluators.count == 0 and self._spec.evaluators.threads == 1
        parts = lines(self._search, wall, self._cpu[0] if beside else 0.0)
        return Figures(title(self._spec), cost.evaluations, wall, parts, around, *self._cpu)


def lines(spent: dict[str, float], wall: float, mlflow_beside: float) -> dict[str, float]:
    """Seconds of each line of the table and of what it sums up; together they are the wall time.

    Args:
        spent: by part.
        wall: of the search.
        mlflow_beside: CPU seconds of MLflow's thread, where a worker of one thread shares the interpreter with it.
    """
    found = defaultdict(float, spent)
    found["interpreter held"] = max(0.0, min(found[LOCK], mlflow_beside))
    found[LOCK] -= found["interpreter held"]
    found["append"] -= found["fsync"]
    for line, parts in LINES.items():
        if parts:
            found[line] = sum(found[part] for part in parts)
    inside = ("model", "optimizer", "messages", "journal", "MLflow", IDLE_END, IDLE_FEW, "progress line")
    found[_LOOP] = wall - sum(found[line] for line in inside)
    return {name: found[name] for line, parts in LINES.items() for name in (line, *parts)}


def shares(seconds: float, stamps: Sequence[Stamp], workers: int) -> dict[str, float]:
    """How a pool's call of so many seconds was spent, as the mean over its workers."""
    begin, last = min(stamp[1] for stamp in stamps), max(stamp[2] for stamp in stamps)
    ends: dict[int, float] = {}
    for process, _, end, _, _ in stamps:
        ends[process] = max(end, ends.get(process, 0.0))
    busy = sum(stamp[2] - stamp[1] for stamp in stamps) / workers
    core, queue = (sum(stamp[i] for stamp in stamps) / workers for i in (3, 4))
    unused = (last - begin) * max(0, workers - len(ends))
    idle = (unused + sum(last - end for end in ends.values())) / workers
    return {
        CORE: core,
        QUEUE: queue,
        LOCK: busy - core - queue,
        IDLE_FEW if len(stamps) < workers else IDLE_END: idle,
        "messages": seconds - busy - idle,
    }


class TimedWorker:
    """A worker whose methods return their result with the time they took."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def __getattr__(self, name: str) -> Callable[..., tuple[Any, Stamp]]:
        return partial(stamped, getattr(self._worker, name))


class TimedHost(ray_pool.ModelHost):
    """What runs in an actor, with timed workers."""

    def prepare(self, search: str, plan: SearchPlan) -> None:
        """Make the worker of a search."""
        super().prepare(search, plan)
        self._workers[search] = TimedWorker(self._workers[search])  # type: ignore[assignment]


def stamped(work: Callable[..., Any], *args: Any) -> tuple[Any, Stamp]:
    """A call's result, and when and how it ran."""
    begin, core, queue = time.monotonic(), time.thread_time(), queued()
    result = work(*args)
    return result, (os.getpid(), begin, time.monotonic(), time.thread_time() - core, queued() - queue)


def queued() -> float:
    """Seconds that this thread has been ready to run and had no core; 0 where the system does not say."""
    try:
        return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError):
        return 0.0


def _cpu_seconds(tracker: Tracker | None) -> tuple[float, float]:
    """CPU seconds so far of MLflow's thread, and of this process."""
    thread = tracker._thread.ident if tracker else None
    mlflow = time.clock_gettime(time.pthread_getcpuclockid(thread)) if thread else 0.0
    return mlflow, time.process_time()


def median(rounds: Sequence[Figures]) -> Figures:
    """Medians of several runs of one job; the shares are of the median wall time, so they need not add up to 1."""

    def middle(parts: list[dict[str, float]]) -> dict[str, float]:
        return {name: statistics.median(one[name] for one in parts) for name in parts[0]}

    return Figures(
        f"median of {len(rounds)}: {rounds[0].title}",
        rounds[0].evaluations,
        statistics.median(one.wall for one in rounds),
        middle([one.parts for one in rounds]),
        middle([one.around for one in rounds]),
        statistics.median(one.mlflow_cpu for one in rounds),
        statistics.median(one.process_cpu for one in rounds),
    )


def table(run: Figures) -> str:
    """A run's lines: seconds, share of the search's wall time."""
    parts = run.parts

    def row(name: str, seconds: float) -> str:
        return f"  {name:<42}{seconds:>9.3f}{seconds / run.wall:>9.2%}"

    speed = f"{run.evaluations} evaluations in {run.wall:.2f} s, {run.evaluations / run.wall:.2f} evaluations/s"
    text = [f"{run.title}: {speed}", f"  {'part of the search':<42}{'seconds':>9}{'share':>9}"]
    for line, inner in LINES.items():
        text += [row(line, parts[line]), *(row(f"    {name}", parts[name]) for name in inner)]
    overhead = sum(parts[name] for name in _OVERHEAD)
    text.append(row("optimizer + messages + journal + MLflow", overhead))
    text.append(row("all but the model", sum(parts[name] for name in LINES if name != "model")))
    text.append(f"  had the model never waited for a core, the four were {overhead / (run.wall - parts[QUEUE]):.2%}")
    share = run.mlflow_cpu / run.process_cpu
    text.append(f"  MLflow's thread: {run.mlflow_cpu:.2f} s of CPU, {share:.0%} of this process' in the search")
    text.append("  outside the search: " + ", ".join(f"{name} {s:.2f} s" for name, s in run.around.items()))
    return "\n".join(text)


if __name__ == "__main__":
    main()
