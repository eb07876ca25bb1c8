"""Rows of a comparison: runs of one method on one task that differ by their seeds alone, with a label of their own."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bbtune.compare.runs import Run, model_name, tasks_of
from bbtune.cost import Spent
from bbtune.loop import Cost
from bbtune.result import Scored
from bbtune.seeds import generator
from bbtune.spec import flattened
from bbtune.task.metrics import Labels, gain_with_interval

_MOST_KEYS = 2  # of the job, that a label names
_MOST_CHARACTERS = 24  # of a value in a label
_NOT_THE_METHOD: Any = {"name": True, "seed": True, "tracking": True, "evaluators": True, "task": {"seed"}}
MAJORITY, ZERO_SHOT = "majority", "zero-shot"


@dataclass(frozen=True, eq=False)
class Row:
    """One method on one task and backbone.

    Attributes:
        label: unique in its task, and the same in all tasks.
        runs: by seed.
        stand_in: whether the row is taken from other runs, which know what majority and zero-shot score.
    """

    label: str
    task: str
    runs: tuple[Run, ...]
    stand_in: bool = False

    @property
    def method(self) -> str:
        """Name of the method."""
        return self.runs[0].method

    @property
    def dev(self) -> float:
        """Mean over the seeds."""
        return float(np.mean([run.dev for run in self.runs]))


Group = tuple[str, str, str, str]  # task, model, method, job without seeds


def make_rows(runs: Sequence[Run], apart: bool) -> tuple[list[Row], list[str]]:
    """Rows of all runs, stand-ins for majority and zero-shot where they are not given, and notes on both.

    Args:
        apart: whether runs of a task that differ by nothing but their seeds are rows of their own, if all do.
    """
    groups: dict[Group, list[Run]] = defaultdict(list)
    for run in sorted(runs, key=lambda run: (run.seed, run.stopped_ms)):
        groups[run.task, run.model, run.method, json.dumps(_settings(run), sort_keys=True)].append(run)
    single = {task for task in tasks_of(runs) if sum(key[0] == task for key in groups) == 1}
    labels = _labels(groups)
    rows, notes = [], []
    for key, members in groups.items():
        if apart and key[0] in single and len(members) > 1:
            rows += [Row(f"{labels[key]} ({said})", key[0], (run,)) for run, said in _told_apart(members)]
            continue
        by_seed = {run.seed: run for run in members}
        if len(by_seed) < len(members):
            notes.append(f"{labels[key]} on {key[0]}: several runs have the same job and seeds, the latest counts")
        rows.append(Row(labels[key], key[0], tuple(by_seed.values())))
    found, more = _stand_ins(rows)
    return rows + found, notes + more + _of_one_draw(runs)


def _of_one_draw(runs: Sequence[Run]) -> list[str]:
    """A sentence on every task whose seeds are all of the same examples."""
    found = []
    for task in tasks_of(runs):
        here = [run for run in runs if run.task == task]
        draws = {run.fingerprints.get("task") for run in here}
        if len({run.seed[0] for run in here}) > 1 and len(draws) == 1:
            found.append(f"{task} has the same examples for every task.seed: seeds tell nothing of other draws there")
    return found


def _settings(run: Run) -> dict[str, Any]:
    """All that a job says but seeds, name, tracking and evaluators, by dotted path."""
    return flattened(run.spec.model_dump(mode="json", exclude=_NOT_THE_METHOD))


def _labels(groups: Mapping[Group, Sequence[Run]]) -> dict[Group, str]:
    """Names of methods, and what tells those of the same name apart: a few settings, else the job's name."""
    several_models = len({key[1] for key in groups}) > 1
    found: dict[Group, tuple[str, str]] = {}
    for method in {key[2] for key in groups}:
        mine = [key for key in groups if key[2] == method]
        settings = {key: _settings(groups[key][0]) for key in mine}
        differing = sorted({name for key in mine for name in _differing(key, settings)})
        for key in mine:
            told = ", ".join(f"{name} {_short(settings[key].get(name))}" for name in differing)
            label = f"{method} ({told})" if told else method
            label = label if len(differing) <= _MOST_KEYS else f"{method} ({groups[key][0].name})"
            on = f" on {model_name(key[1])}" if several_models else ""
            found[key] = label + on, json.dumps({name: settings[key].get(name) for name in differing})
    return _numbered(found)


def _differing(key: Group, settings: Mapping[Group, Mapping[str, Any]]) -> set[str]:
    """Settings in which a group differs from others of its task, backbone and method."""
    mine, rivals = settings[key], [settings[other] for other in settings if other[:3] == key[:3]]
    return {name for rival in rivals for name in {*mine, *rival} if mine.get(name) != rival.get(name)}


def _short(value: Any) -> str:
    text = " ".join((value if isinstance(value, str) else json.dumps(value)).split())
    return text if len(text) <= _MOST_CHARACTERS else "..." + text[3 - _MOST_CHARACTERS :]


def _numbered(labels: Mapping[Group, tuple[str, str]]) -> dict[Group, str]:
    """Labels that are each one method's.

    Where groups of a task share one, later groups get a number, in the order of their models and of the settings that
    differ: the same number in all tasks.
    """
    shared = {
        label for (_, label), n in Counter((key[0], label) for key, (label, _) in labels.items()).items() if n > 1
    }
    known: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for key, (label, differing) in labels.items():
        known[label].add((key[1], differing))
    found = {}
    for key, (label, differing) in labels.items():
        place = sorted(known[label]).index((key[1], differing)) if label in shared else 0
        found[key] = f"{label} #{place + 1}" if place else label
    return found


def _told_apart(runs: Sequence[Run]) -> list[tuple[Run, str]]:
    """Runs of one job, each with the seeds that tell it from the others; with its folder if none does."""
    varying = [at for at in range(2) if len({run.seed[at] for run in runs}) > 1]
    names = [", ".join(f"{('task.seed', 'seed')[at]} {run.seed[at]}" for at in varying) for run in runs]
    if len(set(names)) < len(runs):
        names = [", ".join(filter(None, [name, run.folder.name])) for name, run in zip(names, runs, strict=True)]
    return list(zip(runs, names, strict=True))


def _stand_ins(rows: Sequence[Row]) -> tuple[list[Row], list[str]]:
    """Rows for majority and zero-shot, as the runs of others know them, where they are not given; and notes on them."""
    found: list[Row] = []
    notes: list[str] = []
    models = sorted({run.model for row in rows for run in row.runs})
    for task in sorted({row.task for row in rows}):
        runs = [run for row in rows if row.task == task for run in row.runs]
        if all(run.method != MAJORITY for run in runs):
            found.append(Row(MAJORITY, task, tuple(_majority(run) for run in _one_per_cell(runs)), stand_in=True))
        for model in sorted({run.model for run in runs}):
            with_it = [run for run in runs if run.model == model]
            if any(run.method == ZERO_SHOT for run in with_it):
                continue
            label = ZERO_SHOT if len(models) == 1 else f"{ZERO_SHOT} on {model_name(model)}"
            found.append(Row(label, task, tuple(_zero_shot(run) for run in _one_per_cell(with_it)), stand_in=True))
            if _disagree(with_it):
                said = "their templates or label words differ, and the row is of the first"
                notes.append(f"the runs on {task} have different zero-shot answers: {said}")
    if names := [name for name in (MAJORITY, ZERO_SHOT) if any(row.method == name for row in found)]:
        said = "".join(_constants(found))
        notes.append(f"from the other runs, which have it beside their results: {' and '.join(names)}{said}")
    return found, notes


def _constants(found: Sequence[Row]) -> Iterator[str]:
    """What the constant answers of stand-ins are."""
    words = {run.metric.free_form for row in found if row.method == MAJORITY for run in row.runs}
    if False in words:
        yield "; majority is the best constant answer in hindsight"
    if True in words:
        yield "; majority of answers in words is the most frequent answer of train"


def _one_per_cell(runs: Sequence[Run]) -> list[Run]:
    return list({(run.seed, run.split): run for run in reversed(runs)}.values())[::-1]


def _disagree(runs: Sequence[Run]) -> bool:
    first = {(run.seed, run.split): run.zero_shot for run in reversed(runs)}
    return any(not np.array_equal(first[run.seed, run.split], run.zero_shot) for run in runs)


def _majority(run: Run) -> Run:
    best = _best_constant(run)
    gain = gain_with_interval(run.metric, run.truth, run.zero_shot, best, generator(0, "majority"))
    changes: dict[str, Any] = {"predicted": {**run.predicted, "tuned": best}, "gain": gain}
    return _untuned(run, MAJORITY, run.scores["majority"], changes)


def _best_constant(run: Run) -> Labels:
    """Labels, or scores of answers in words, (N,) if the answer is always the same."""
    if run.metric.free_form:
        return np.asarray(run.predicted["majority"])
    constants = [np.full_like(run.truth, label) for label in range(run.metric.classes)]
    return constants[int(np.argmax([run.metric(run.truth, constant) for constant in constants]))]


def _zero_shot(run: Run) -> Run:
    none = replace(run.gain, value=0.0, low=0.0, high=0.0)
    changes = {"predicted": {**run.predicted, "tuned": run.zero_shot}, "gain": none}
    return _untuned(run, ZERO_SHOT, run.scores["zero_shot"], changes)


def _untuned(run: Run, method: str, scored: Scored, changes: Mapping[str, Any]) -> Run:
    nothing: dict[str, Any] = {"curve": (), "cost": Cost(), "paid": Spent(), "parameters": 0, "peak_memory_mib": 0.0}
    return replace(run, method=method, scores={**run.scores, "tuned": scored}, **nothing, **changes)
