"""The runs that are compared: read from their folders, and put together to rows, one for each method of a task."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bbtune.cost import Spent
from bbtune.errors import BbtuneError
from bbtune.jobfile import load_job
from bbtune.journal import array_digest
from bbtune.learned import Arrays
from bbtune.loop import Cost
from bbtune.result import JOURNAL, PREDICTED, RESULT, SPEC, Point, Scored, outcome
from bbtune.spec import BaseJob
from bbtune.task.metrics import Estimate, Labels, Metric


@dataclass(frozen=True, eq=False)
class Run:
    """What a comparison needs of one finished run; without what the method learned.

    Attributes:
        name: of the job; method: short; model: of the backbone, as the job names it.
        seeds, scores, gain, predicted, curve, paid, fingerprints: as in :class:`bbtune.result.TuneResult`.
    """

    folder: Path
    spec: BaseJob
    method: str
    task: str
    labels: tuple[str, ...]
    metric: Metric
    seeds: dict[str, int]
    scores: dict[str, Scored]
    gain: Estimate
    predicted: Arrays
    curve: tuple[Point, ...]
    cost: Cost
    paid: Spent
    parameters: int
    peak_memory_mib: float
    fingerprints: dict[str, str]
    stop_reason: str
    stopped_ms: int

    @property
    def name(self) -> str:
        """Of the job."""
        return self.spec.name

    @property
    def model(self) -> str:
        """Of the backbone, as the job names it."""
        return self.spec.backbone.named

    @property
    def seed(self) -> tuple[int, int]:
        """Of the few-shot draw, and of everything else."""
        return self.seeds["task"], self.seeds["job"]

    @property
    def split(self) -> str:
        """Names the test split; where the run has no fingerprint of it, the task, its seed and the true labels do."""
        of_task = f"{self.task}/{self.seeds['task']}"
        return f"{self.fingerprints.get('test', of_task)}/{array_digest(self.truth)}"

    @property
    def truth(self) -> Labels:
        """True labels (N,) of the test split."""
        return np.asarray(self.predicted["truth"])

    @property
    def tuned(self) -> Labels:
        """Labels (N,) that the method gives to the test split."""
        return np.asarray(self.predicted["tuned"])

    @property
    def zero_shot(self) -> Labels:
        """Labels (N,) that the untouched model gives to the test split."""
        return np.asarray(self.predicted["zero_shot"])

    @property
    def test(self) -> Estimate:
        """Of the method."""
        return self.scores["tuned"].test

    @property
    def dev(self) -> float:
        """Of the method."""
        return self.scores["tuned"].dev.value


def load_runs(paths: Iterable[str | Path]) -> tuple[list[Run], list[str]]:
    """Read finished runs.

    Args:
        paths: run folders, or folders that hold run folders at any depth.

    Returns:
        The runs, each once, and a sentence on every folder that is left out.

    Raises:
        BbtuneError: if a path is no folder, or nothing can be compared.
    """
    from safetensors import SafetensorError

    runs, left_out = [], []
    asked = [Path(path) for path in paths]
    for folder in dict.fromkeys(folder for path in asked for folder in _run_folders(path)):
        if not (folder / RESULT).is_file():
            left_out.append(f"{folder} is left out: it has not finished; bbtune resume {folder}")
            continue
        try:
            runs.append(_read(folder))
        except (BbtuneError, ValueError, KeyError, TypeError, OSError, SafetensorError) as error:
            said = " ".join(str(error).split())
            left_out.append(f"{folder} is left out: its result cannot be read ({type(error).__name__}: {said})")
    if not runs:
        where = ", ".join(map(str, asked)) or "no path"
        head = f"expected finished runs (folders with {RESULT}) in {where}, found none"
        raise BbtuneError("\n".join([head, *left_out]))
    return runs, left_out


def is_run(path: str | Path) -> bool:
    """Whether a folder is that of a run, finished or not."""
    return any((Path(path) / name).is_file() for name in (RESULT, JOURNAL))


def _run_folders(path: Path) -> list[Path]:
    """Folders of finished and unfinished runs."""
    if not path.is_dir():
        raise BbtuneError(f"{path}: expected a run folder or a folder of runs, found {_what(path)}")
    if is_run(path):
        return [path.resolve()]
    return sorted({file.parent.resolve() for name in (RESULT, JOURNAL) for file in path.rglob(name)})


def _what(path: Path) -> str:
    return "a file" if path.exists() else "nothing"


def _read(folder: Path) -> Run:
    from safetensors.numpy import load_file

    raw = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    spec, predicted = load_job(folder / SPEC), load_file(folder / PREDICTED)
    if missing := {"truth", "zero_shot", "tuned"} - set(predicted):
        raise ValueError(f"{PREDICTED} has no {', '.join(sorted(missing))}")
    return Run(
        folder=folder,
        spec=spec,
        method=raw["method"],
        metric=_metric(raw, spec, predicted),
        predicted=predicted,
        **outcome(raw),
    )


def _metric(raw: dict[str, Any], spec: BaseJob, predicted: Arrays) -> Metric:
    """The metric; which label f1 is of may be known to the task card alone, then the scores tell."""
    name, labels = raw["metric"], raw["labels"]
    if name != "f1":
        return Metric(name, len(labels))
    if spec.task.positive_label is not None:
        return Metric(name, len(labels), labels.index(spec.task.positive_label))
    metrics = [Metric(name, len(labels), label) for label in range(len(labels))]
    fits = [metric for metric in metrics if _gives(metric, raw["scores"], predicted)]
    if not fits:
        raise ValueError("no label has the f1 that the result says; set task.positive_label in its spec.yaml")
    return fits[0]


def _gives(metric: Metric, scores: dict[str, Any], predicted: Arrays) -> bool:
    names = ("zero_shot", "tuned")
    found = [float(metric(predicted["truth"], predicted[name])) for name in names]
    return bool(np.allclose(found, [scores[name]["test"]["value"] for name in names], atol=1e-9))


def model_name(model: str) -> str:
    """A backbone's name, short: without scheme, and of a path the end."""
    scheme, _, rest = model.partition(":")
    return Path(rest).name if scheme == "path" else rest.removeprefix("//")


def tasks_of(runs: Sequence[Run]) -> list[str]:
    """Names of the tasks, sorted."""
    return sorted({run.task for run in runs})
