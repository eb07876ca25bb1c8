"""Whether methods differ: every row against a reference, on the cells that both have."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from bbtune.compare.rows import Row
from bbtune.compare.runs import Run
from bbtune.errors import BbtuneError, did_you_mean
from bbtune.spec import JobSpec
from bbtune.statistics import (
    LEVEL,
    Effect,
    Sampled,
    effect_of,
    hierarchical_bootstrap,
    holm,
    rank_test,
    resample,
    sign_flip_test,
)

FEWEST_CELLS = 6  # for the tests that take cells as the sample
TAUS = np.linspace(0.0, 0.2, 81)  # of the performance profile
RULE = f"""A cell is a task with its seeds, and counts where both methods were scored on the same test split. With one \
cell, test examples are resampled (paired bootstrap): this compares two prompts, not two methods. With several, \
examples are resampled for all seeds of a task at once, and the spread over seeds is added by Student's t; a score is \
the mean over tasks of the mean over seeds. From {FEWEST_CELLS} cells on, Wilcoxon's signed-rank test and the sign \
flips of the mean over cells must both agree, where so many cells can reach {LEVEL} at all. Every p-value is corrected \
by Holm for the number of rows beside the reference, and the largest is shown; intervals are not corrected. A method \
is called better or worse below {LEVEL}, where the interval leaves out 0. Tasks are taken as given: nothing is said of \
others."""

_NO_DIFFERENCE = "no significant difference"

Scores = Mapping[Run, Sampled]


@dataclass(frozen=True)
class Pair:
    """One row beside the reference.

    Attributes:
        scope: the task, or all tasks that both have.
        cells: of both methods; 0 where they cannot be compared, and ``why_not`` says why.
        effect: row - reference; its p is not corrected.
        ranks, flips: p of Wilcoxon's and the sign-flip test, None where they do not count.
        corrected: the largest of the p-values, each corrected by Holm.
    """

    scope: str
    label: str
    reference: str
    cells: int
    effect: Effect | None = None
    ranks: float | None = None
    flips: float | None = None
    corrected: float = 1.0
    why_not: str = ""

    @property
    def verdict(self) -> str:
        """``better``, ``worse``, ``no significant difference`` or ``not comparable``."""
        if self.effect is None:
            return "not comparable"
        if self.corrected >= LEVEL or self.effect.low <= 0 <= self.effect.high:
            return _NO_DIFFERENCE
        return "better" if self.effect.value > 0 else "worse"

    def sentence(self) -> str:
        """The verdict, with all it rests on."""
        if self.effect is None:
            return f"{self.label} and {self.reference} cannot be compared on {self.scope}: {self.why_not}"
        who = f"{self.label} is {self.verdict} than {self.reference} on {self.scope}"
        if self.verdict == _NO_DIFFERENCE:
            who = f"{_NO_DIFFERENCE} between {self.label} and {self.reference} on {self.scope}"
        value, low, high = (f"{100 * number:+.1f}" for number in (self.effect.value, self.effect.low, self.effect.high))
        seeds = "one seed each, so this compares two prompts, not two methods"
        over = seeds if self.cells == 1 else f"over {self.cells} {self._cells_are}"
        p = f"p = {self.corrected:.2g}" if self.corrected >= 0.001 else "p < 0.001"
        return f"{who}: {value} points [{low}, {high}], {p}, {over}"

    @property
    def _cells_are(self) -> str:
        return "cells (task and seeds)" if self.scope.startswith("all ") else "seeds"


def sample(runs: Sequence[Run]) -> tuple[Scores, Scores]:
    """Scores of all runs on resamples of their test splits, tuned and zero-shot."""
    splits: dict[tuple[str, object], list[Run]] = defaultdict(list)
    for run in runs:
        splits[run.split, run.metric].append(run)
    tuned: dict[Run, Sampled] = {}
    zero_shot: dict[Run, Sampled] = {}
    for (split, _), members in splits.items():
        both = [(run.tuned.tobytes(), run.zero_shot.tobytes()) for run in members]
        distinct = {
            key: row
            for run, keys in zip(members, both, strict=True)
            for key, row in zip(keys, (run.tuned, run.zero_shot), strict=True)
        }
        sampled = resample(members[0].metric, members[0].truth, list(distinct.values()), split)
        by_answers = dict(zip(distinct, sampled, strict=True))
        for run, (mine, untouched) in zip(members, both, strict=True):
            tuned[run], zero_shot[run] = by_answers[mine], by_answers[untouched]
    return tuned, zero_shot


def common_cells(one: Row, other: Row) -> list[tuple[Run, Run]]:
    """Runs of two rows of a task that belong together.

    They do by all seeds; if none has its like, by the seed of the few-shot draw where it tells the runs of each row
    apart; if each row is one run, by the test split alone.
    """
    for at in (slice(0, 2), slice(0, 1)):
        first, second = ({run.seed[at]: run for run in row.runs} for row in (one, other))
        told_apart = len(first) == len(one.runs) and len(second) == len(other.runs)
        pairs = [(run, second[seed]) for seed, run in first.items() if seed in second]
        if told_apart and (pairs := [pair for pair in pairs if _same_test(*pair)]):
            return pairs
    alone = len(one.runs) == len(other.runs) == 1 and _same_test(one.runs[0], other.runs[0])
    return [(one.runs[0], other.runs[0])] if alone else []


def _same_test(one: Run, other: Run) -> bool:
    return one.split == other.split and one.metric == other.metric


def _why_not(one: Row, other: Row) -> str:
    metrics = {run.metric for row in (one, other) for run in row.runs}
    if len(metrics) > 1:
        return f"their metrics differ ({', '.join(sorted({str(metric.name) for metric in metrics}))}); set task.metric"
    first, second = ({run.split for run in row.runs} for row in (one, other))
    if first & second:
        return "no run of the one has the seeds of a run of the other; run both with the same seeds"
    shown = " and ".join(", ".join(sorted({split[:12] for split in splits})) for splits in (first, second))
    return f"their test splits differ ({shown}); run both with the same task data and task.seed"


def against(rows: Sequence[Row], reference: str, scores: Scores) -> list[Pair]:
    """Every other row beside the reference: on each task, then on all tasks that they share, if there are several."""
    cells: dict[str, dict[str, list[tuple[Run, Run]]]] = defaultdict(dict)  # label -> task -> cells
    pairs: list[Pair] = []
    for task in sorted({row.task for row in rows}):
        here = [row for row in rows if row.task == task]
        beside = next((row for row in here if row.label == reference), None) or best_on_dev(here)
        of_task: list[Pair] = []
        for row in here:
            if row is beside:
                continue
            found = common_cells(row, beside)
            if beside.label == reference and found:
                cells[row.label][task] = found
            pair = _pair(task, row.label, beside.label, {task: found}, scores)
            of_task.append(replace(pair, why_not="" if found else _why_not(row, beside)))
        pairs += _corrected(of_task)
    shared = {label: tasks for label, tasks in cells.items() if len(tasks) > 1}
    overall = [_pair(f"all {len(tasks)} tasks", label, reference, tasks, scores) for label, tasks in shared.items()]
    return pairs + _corrected(overall)


def _pair(
    scope: str, label: str, reference: str, cells: Mapping[str, Sequence[tuple[Run, Run]]], scores: Scores
) -> Pair:
    differences = {task: [scores[one] - scores[other] for one, other in pairs] for task, pairs in cells.items()}
    flat = [difference for of_task in differences.values() for difference in of_task]
    if not flat:
        return Pair(scope, label, reference, 0)
    effect = effect_of(flat[0]) if len(flat) == 1 else hierarchical_bootstrap(differences)
    if len(flat) < FEWEST_CELLS:
        return Pair(scope, label, reference, len(flat), effect)
    values = np.array([difference.value for difference in flat])
    return Pair(scope, label, reference, len(flat), effect, rank_test(values), sign_flip_test(values))


def _corrected(pairs: Sequence[Pair]) -> list[Pair]:
    """Pairs of one scope, the best first, with Holm's correction; tests that so few cells cannot decide are dropped."""
    able = [0.5 ** (pair.cells - 1) * len(pairs) < LEVEL for pair in pairs]
    pairs = [pair if can else replace(pair, ranks=None, flips=None) for pair, can in zip(pairs, able, strict=True)]
    largest = dict.fromkeys(range(len(pairs)), 0.0)
    for ps in (
        {i: pair.effect.p for i, pair in enumerate(pairs) if pair.effect is not None},
        {i: pair.ranks for i, pair in enumerate(pairs) if pair.ranks is not None},
        {i: pair.flips for i, pair in enumerate(pairs) if pair.flips is not None},
    ):
        for i, p in zip(ps, holm(list(ps.values())), strict=True):
            largest[i] = max(largest[i], p)
    found = [replace(pair, corrected=largest[i] if pair.effect else 1.0) for i, pair in enumerate(pairs)]
    return sorted(found, key=lambda pair: -pair.effect.value if pair.effect else np.inf)


def best_on_dev(rows: Sequence[Row]) -> Row:
    """The row with the highest mean score on dev; never chosen by test."""
    return max([row for row in rows if not row.stand_in] or rows, key=lambda row: row.dev)


def choose_reference(rows: Sequence[Row], asked: str | None) -> tuple[str, str]:
    """The label of the reference, and a note on how it was chosen.

    Raises:
        BbtuneError: if the one asked for is not there, or is not one.
    """
    if asked is not None:
        return _asked(rows, asked), ""
    given = [row for row in rows if not row.stand_in]
    searches = list(dict.fromkeys(row.label for row in given if isinstance(row.runs[0].spec, JobSpec)))
    if len(searches) == 1 and len({row.label for row in given}) > 1:
        return searches[0], f"the reference is {searches[0]}, the only search"
    devs: dict[str, list[float]] = defaultdict(list)
    for row in given:
        devs[row.label].append(row.dev)
    if len(devs) == 1:
        return next(iter(devs)), ""
    best = max(devs, key=lambda label: (len(devs[label]), np.mean(devs[label])))
    most = " on the most tasks" if len({len(scores) for scores in devs.values()}) > 1 else ""
    return best, f"the reference is {best}, the best on dev{most}"


def _asked(rows: Sequence[Row], asked: str) -> str:
    labels = list(dict.fromkeys(row.label for row in rows))
    if asked in labels:
        return asked
    named = {row.label for row in rows if row.method == asked}
    named |= {row.label for row in rows if not row.stand_in and any(run.name == asked for run in row.runs)}
    if len(named) == 1:
        return named.pop()
    hint = did_you_mean(asked, labels)
    said = "which is several of them" if named else "which is none"
    raise BbtuneError(f"reference: expected one of {', '.join(labels)}, got {asked!r}, {said}{hint}")


def profile(rows: Sequence[Row]) -> tuple[dict[str, list[float]], int]:
    """Share of cells in which a method is within each of TAUS of the best, and the number of cells.

    A cell counts if at least two of the methods have it; a method that lacks one is not near the best in it.
    """
    cells: dict[tuple[str, tuple[int, int]], dict[str, float]] = defaultdict(dict)
    for row in rows:
        for run in row.runs:
            cells[row.task, run.seed][row.label] = run.test.value
    counted = [scores for scores in cells.values() if len(scores) > 1]
    labels = list(dict.fromkeys(row.label for row in rows))
    gaps = np.array([[max(scores.values()) - scores.get(label, -np.inf) for label in labels] for scores in counted])
    if not counted:
        return {}, 0
    near = (gaps[:, :, None] <= TAUS + 1e-9).mean(axis=0)
    return {label: near[i].tolist() for i, label in enumerate(labels)}, len(counted)
