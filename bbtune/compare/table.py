"""The table of a comparison: one line for each method of a task, and for its mean over tasks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bbtune.compare.pairs import Pair, Scores
from bbtune.compare.rows import MAJORITY, Row
from bbtune.compare.runs import Run, model_name
from bbtune.statistics import Effect, hierarchical_bootstrap
from bbtune.task.metrics import Estimate

COSTS = ("evaluations", "examples", "backward_examples", "seconds", "peak_memory_mib", "requests", "dollars")
CSV = ["method", "backbone", "task", "metric", "seeds", "test_mean", "test_low", "test_high"]
CSV += ["gain", "gain_low", "gain_high", "dev_mean", "parameters", *COSTS]
PAIRS_CSV = ["task", "method", "reference", "cells", "difference", "low", "high", "p_bootstrap", "p_wilcoxon"]
PAIRS_CSV += ["p_sign_flips", "p_holm", "verdict"]
HEAD = ["method", "backbone", "task", "seeds", "test %", "gain, points", "parameters", "evals", "examples"]
HEAD += ["backward", "seconds", "MiB", "requests", "dollars"]
PAID = {HEAD.index(name) for name in ("requests", "dollars")}  # of APIs alone
Cell = str | int | float


@dataclass(frozen=True)
class Line:
    """A method on a task, or on all; costs are means over the seeds, memory the highest.

    Attributes:
        test: of the test split; gain: over zero-shot. Intervals over test examples, with several seeds over them too.
        seeds: of the task; of several, of the one with the fewest.
        cost: by name, as in COSTS; empty of a row that is taken from other runs.
    """

    label: str
    model: str
    task: str
    metric: str
    seeds: int
    test: Estimate
    gain: Estimate
    dev: float
    parameters: int
    cost: Mapping[str, float]

    def csv(self) -> list[Cell]:
        """Plain numbers, in the order of CSV."""
        test, gain = self.test, self.gain
        scores: list[Cell] = [test.value, test.low, test.high, gain.value, gain.low, gain.high, self.dev]
        cost: list[Cell] = [_whole(self.cost[name]) if self.cost else "" for name in COSTS]
        head: list[Cell] = [self.label, self.model, self.task, self.metric, self.seeds]
        return [*head, *scores, self.parameters if self.cost else "", *cost]

    def shown(self) -> list[str]:
        """For people, in the order of HEAD."""
        backbone = model_name(self.model) if self.model else ""
        test = f"{100 * self.test.value:.1f} [{100 * self.test.low:.1f}, {100 * self.test.high:.1f}]"
        gain = f"{100 * self.gain.value:+.1f} [{100 * self.gain.low:+.1f}, {100 * self.gain.high:+.1f}]"
        numbers = [self.parameters, *(self.cost[name] for name in COSTS[:-1])] if self.cost else []
        shown = [*(short(number) for number in numbers), f"{self.cost['dollars']:.4f}"] if self.cost else []
        return [self.label, backbone, self.task, str(self.seeds), test, gain, *(shown or [""] * (len(COSTS) + 1))]


def short(number: float) -> str:
    """A number in at most five characters: 22.7M."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(number) >= size:
            scaled = number / (1e3 if unit == "k" else size)
            return f"{scaled:.0f}{unit}" if scaled >= 100 else f"{scaled:.1f}{unit}"
    return f"{number:.0f}" if number == int(number) or abs(number) >= 100 else f"{number:.1f}"


def _whole(number: float) -> Cell:
    return int(number) if number == int(number) else round(number, 6)


def make_lines(rows: Sequence[Row], tuned: Scores, zero_shot: Scores) -> list[Line]:
    """Lines by task and test mean, then the means of the methods that all of several tasks have."""
    lines = [_line(row.label, row.task, {row.task: row.runs}, row.stand_in, tuned, zero_shot) for row in rows]
    lines.sort(key=lambda line: (line.task, -line.test.value))
    tasks = {row.task for row in rows}
    by_label: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_label[row.label].append(row)
    name = f"all {len(tasks)} tasks"
    means = [
        _line(label, name, {row.task: row.runs for row in mine}, mine[0].stand_in, tuned, zero_shot)
        for label, mine in by_label.items()
        if len(tasks) > 1 and {row.task for row in mine} == tasks
    ]
    return lines + sorted(means, key=lambda line: -line.test.value)


def _line(
    label: str, name: str, tasks: Mapping[str, Sequence[Run]], stand_in: bool, tuned: Scores, zero_shot: Scores
) -> Line:
    runs = [run for of_task in tasks.values() for run in of_task]
    test, gain = runs[0].test, runs[0].gain
    if len(runs) > 1:
        scores = {task: [tuned[run] for run in some] for task, some in tasks.items()}
        gains = {task: [tuned[run] - zero_shot[run] for run in some] for task, some in tasks.items()}
        least = -1.0 if any(run.metric.name == "matthews" for run in runs) else 0.0
        test = _within(hierarchical_bootstrap(scores), least, 1.0)
        gain = _within(hierarchical_bootstrap(gains), least - 1.0, 1.0 - least)
    return Line(
        label=label,
        model="" if label == MAJORITY and stand_in else runs[0].model,
        task=name,
        metric=" ".join(sorted({run.metric.name for run in runs})),
        seeds=min(len(of_task) for of_task in tasks.values()),
        test=test,
        gain=gain,
        dev=float(np.mean([run.dev for run in runs])),
        parameters=max(run.parameters for run in runs),
        cost={} if stand_in else _cost(runs),
    )


def _within(effect: Effect, least: float, most: float) -> Estimate:
    """With so few seeds an interval may pass what the metric can be."""
    return Estimate(effect.value, max(least, effect.low), min(most, effect.high))


def _cost(runs: Sequence[Run]) -> dict[str, float]:
    names = ("evaluations", "examples", "backward_examples", "seconds")
    means = {name: float(np.mean([getattr(run.cost, name) for run in runs])) for name in names}
    means |= {name: float(np.mean([getattr(run.paid, name) for run in runs])) for name in ("requests", "dollars")}
    return means | {"peak_memory_mib": max(run.peak_memory_mib for run in runs)}


def pair_csv(pair: Pair) -> list[Cell]:
    """Plain numbers, in the order of PAIRS_CSV."""
    effect = pair.effect
    if effect is None:
        return [pair.scope, pair.label, pair.reference, 0, *[""] * 7, pair.verdict]
    tests: list[Cell] = ["" if p is None else p for p in (pair.ranks, pair.flips)]
    numbers = [effect.value, effect.low, effect.high, effect.p, *tests, pair.corrected]
    return [pair.scope, pair.label, pair.reference, pair.cells, *numbers, pair.verdict]
