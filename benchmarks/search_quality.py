"""The study of searches: how good a prompt is after so many calls, on all tasks and seeds of study_cells.py.

    python benchmarks/search_quality.py run --data DIR --out ROOT [--tasks ..] [--seeds ..] [--methods ..]
    python benchmarks/search_quality.py report --out ROOT --csv FILE --page FILE [--against METHOD]

``run`` makes the cells (task x seed x method) that ROOT lacks; killed, it goes on where it was, and two processes may
share a ROOT. ``report`` reads the cells that are there, of one ROOT or several, and says which are not.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from study_cells import CHECKPOINTS, HALVES, METHODS, TASKS, TEXT_TOKENS, checkpoints, tasks_of, work_through
from study_references import REFERENCES, work_through_references

from bbtune.statistics import LEVEL, holm, interval, rank_test, sign_flip_test

Key = tuple[str, int, str]  # task, seed, method
Cells = Mapping[Key, dict[str, Any]]  # what their cell.json says, and the layer-forwards that the search spent
Values = Mapping[Key, float]
Floats = NDArray[np.float64]

SEEDS = [13, 21, 42]
NAMES = [*METHODS, *REFERENCES]
CURVES = [name for name in METHODS if checkpoints(name) == CHECKPOINTS]  # the others have one point
GROUPS = {"all tasks": tuple(TASKS), **HALVES}
_COLUMNS = ["calls", "found_at", "layer_forwards", "dev", "test"]

_INTRODUCTION = """# Search study

One sentence encoder (MiniLM), {tasks} tasks, texts cut at {tokens} tokens, seeds {seeds}; one run to {calls} calls
each. A call is one candidate on the train split. The prompt that dev selects at a checkpoint is scored on test;
nothing is chosen by looking at test scores. Settings are chosen on {chosen}.
Written by `benchmarks/search_quality.py report`.

* `paper-bbtv2`: to the letter (CMA-ES layer by layer, best ever, offsets of 50 tokens in 500 dimensions); `-1000` has
  so many calls, on three tasks. All others tune a prefix of 10 tokens in 200 dimensions a layer.
* `elitist-cma`: diagonal CMA-ES layer by layer, a layer changes where the loss falls. `spsa`: over all layers.
* `gauss-newton`, and `auto`, which chose it: one search, handed out by dev accuracy, or as `auto` does, the mean of
  three prompts with the lowest dev loss. `-by-loss`: the searches above, handed out as `auto` does.
* After 100 and 300 calls all are searches of {calls} cut off there; with so small a budget `auto` would take fewer
  probes.
* dbpedia has 4 examples per class, the others 16."""
_BY_TASK = """Percent, mean over the seeds, ± half the 95 % interval over test examples (bootstrap). References have no
calls; the majority label is taken in hindsight."""
_MEANS = "With 95 % intervals over the cells, task x seed (bootstrap): the tasks differ, so they are wide."
_AREAS = """The mean test accuracy in percent over a whole run: from the zero-shot score at 0, the curve steps to the
score of each checkpoint's prompt where the search found it. Against calls it ends at the last checkpoint; against
layer-forwards at the least that any search of the same task and seed has spent."""
_PAIRED = """Differences in points over the cells that both methods have, with 95 % intervals (bootstrap). p-values are
of Wilcoxon's signed-rank test and of sign flips of the mean, each with Holm's correction for the number of methods in
the table. A method is called better or worse only where both are below {level}. The seeds of a task share its test
examples; the tests take cells as independent."""
_DIFFERENCES = """Mean over the seeds in points, with the 95 % interval of the paired bootstrap over test examples; the
draw of seeds is taken as given."""


def load_cells(roots: Iterable[Path], seeds: Iterable[int]) -> Cells:
    """All cells that are there."""
    keys = [(task, seed, name) for task in TASKS for seed in seeds for name in NAMES]
    folders = [(key, root / "-".join(map(str, key))) for key in keys for root in roots]
    found = {key: folder for key, folder in folders if (folder / "cell.json").is_file()}
    return {key: _cell(folder) for key, folder in found.items()}


def _cell(folder: Path) -> dict[str, Any]:
    """What a cell says, and the layer-forwards of its whole search; none of a reference."""
    cell = json.loads((folder / "cell.json").read_text())
    journal, spent = folder.parent / cell.get("searched", folder.name) / "journal.jsonl", 0
    for line in journal.read_text().splitlines() if journal.is_file() else []:
        with suppress(ValueError):  # a last line that a crash tore
            spent += json.loads(line).get("layer_forwards", 0)
    return cell | {"spent": spent}


def at(cell: Mapping[str, Any], calls: int) -> dict[str, Any]:
    """The point of a checkpoint; a reference, or a search with another budget, has but one."""
    points: list[dict[str, Any]] = cell["points"]
    return next((point for point in points if point["calls"] == calls), points[-1])


def area(steps: Sequence[tuple[float, float]], end: float) -> float:
    """Mean height over 0 to ``end`` of a curve that takes each value at its place, and keeps it up to the next."""
    places = np.minimum([*(place for place, _ in steps), end], end)
    return float(np.diff(places) @ [value for _, value in steps] / end)


def quantities(cells: Cells) -> dict[str, dict[Key, float]]:
    """All that methods are compared by, in points."""
    found = {}
    for calls in CHECKPOINTS:
        found[f"test accuracy after {calls} calls"] = {
            key: 100 * at(cell, calls)["test"] for key, cell in cells.items()
        }
    spent: dict[tuple[str, int], int] = {}
    for key, cell in cells.items():
        if key[2] in CURVES:
            spent[key[:2]] = min(spent.get(key[:2], cell["spent"]), cell["spent"])
    found["curve against calls"] = _areas(cells, "found_at", dict.fromkeys(spent, CHECKPOINTS[-1]))
    found["curve against layer-forwards"] = _areas(cells, "layer_forwards", spent)
    return found


def _areas(cells: Cells, place: str, ends: Mapping[tuple[str, int], int]) -> dict[Key, float]:
    """Areas of the searches that have a zero-shot cell beside them, where their curves begin."""
    found = {}
    for key, cell in cells.items():
        start = cells.get((*key[:2], "zero-shot"))
        if key[2] in CURVES and start:
            steps = [(0, start["points"][0]["test"]), *((point[place], point["test"]) for point in cell["points"])]
            found[key] = 100 * area(steps, ends[key[:2]])
    return found


def paired(values: Values, name: str, against: str) -> dict[tuple[str, int], float]:
    """Differences of two methods where both have a value."""
    both = {(task, seed) for task, seed, _ in values}
    pairs = {pair: (values.get((*pair, name)), values.get((*pair, against))) for pair in sorted(both)}
    return {pair: one - other for pair, (one, other) in pairs.items() if one is not None and other is not None}


def compare(values: Values, against: str) -> dict[str, tuple[float, float, str]]:
    """Corrected p-values of both tests for every other method, and what they say."""
    pairs = {name: np.array(list(paired(values, name, against).values())) for name in NAMES if name != against}
    pairs = {name: differences for name, differences in pairs.items() if len(differences)}
    ranks, flips = (holm([test(d) for d in pairs.values()]) for test in (rank_test, sign_flip_test))
    found = {}
    for (name, differences), rank, flip in zip(pairs.items(), ranks, flips, strict=True):
        said = f"{name} is {'better' if differences.mean() > 0 else 'worse'} than {against}"
        if max(rank, flip) >= LEVEL:
            said = f"no significant difference between {name} and {against}"
        found[name] = rank, flip, said
    return found


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]
    return "\n".join(lines) if len(lines) > 2 else "There is no such cell yet."


def _of(n: int, wanted: int, what: str) -> str:
    return "" if n == wanted else f" ({n} of {wanted} {what})"


def _means(values: Mapping[tuple[str, int], float], seeds: Sequence[int], form: str = ".1f") -> list[str]:
    """Mean and interval of each group of tasks."""
    found = []
    for group in GROUPS.values():
        some = [value for (task, _), value in values.items() if task in group]
        said = f"{np.mean(some):{form}}" if some else "none"
        if len(some) > 1:
            said += " [{:{form}}, {:{form}}]".format(*interval(some), form=form)
        found.append(said + _of(len(some), len(group) * len(seeds), "cells"))
    return found


def _right(cells: Cells, key: Key, calls: int) -> Floats:
    return np.array(list(at(cells[key], calls)["right"]), dtype=float)


def _task_mean(cells: Cells, task: str, name: str, calls: int, seeds: Sequence[int]) -> str:
    there = [_right(cells, (task, seed, name), calls) for seed in seeds if (task, seed, name) in cells]
    if not there:
        return "none"
    low, high = interval(np.mean(there, axis=0))
    return f"{100 * np.mean(there):.1f} ± {50 * (high - low):.1f}{_of(len(there), len(seeds), 'seeds')}"


def _task_difference(cells: Cells, task: str, names: Sequence[str], calls: int, seeds: Sequence[int]) -> str:
    both = [seed for seed in seeds if all((task, seed, name) in cells for name in names)]
    if not both:
        return "none"
    one, other = (np.mean([_right(cells, (task, seed, name), calls) for seed in both], axis=0) for name in names)
    low, high = interval(100 * (one - other))
    word = "worse" if high < 0 else "better" if low > 0 else "not worse than by noise"
    return f"{100 * np.mean(one - other):+.1f} [{low:+.1f}, {high:+.1f}] {word}{_of(len(both), len(seeds), 'seeds')}"


def page(cells: Cells, seeds: Sequence[int], against: Sequence[str]) -> str:
    """The report in Markdown."""
    values, last = quantities(cells), CHECKPOINTS[-1]
    counts = {name: sum(key[2] == name for key in cells) for name in NAMES}
    there = [name for name in NAMES if counts[name]]
    asked = [(name, calls) for name in there for calls in (checkpoints(name) if name in METHODS else [last])]
    shown = [[name, str(calls) if name in METHODS else ""] for name, calls in asked]
    by_task = [[_task_mean(cells, task, name, calls, seeds) for task in TASKS] for name, calls in asked]
    means = [
        _means({key[:2]: 100 * at(cell, calls)["test"] for key, cell in cells.items() if key[2] == name}, seeds)
        for name, calls in asked
    ]
    facts = {"tasks": len(TASKS), "tokens": TEXT_TOKENS, "seeds": ", ".join(map(str, seeds)), "calls": last}
    parts = [_INTRODUCTION.format(chosen=", ".join(next(iter(HALVES.values()))), **facts)]
    rows = [[name, f"{counts[name]} of {len(tasks_of(name)) * len(seeds)} cells"] for name in NAMES]
    parts += ["## Cells", _table(["method", "there"], rows)]
    rows = [[*name, *row] for name, row in zip(shown, by_task, strict=True)]
    parts += ["## Test accuracy by task", _BY_TASK, _table(["method", "calls", *TASKS], rows)]
    rows = [[*name, *row] for name, row in zip(shown, means, strict=True)]
    parts += ["## Test accuracy, averages", _MEANS, _table(["method", "calls", *GROUPS], rows)]
    parts += ["## Area under the curve", _AREAS]
    for name in [name for name in values if name.startswith("curve")]:
        rows = [[method, *_means(_only(values[name], method), seeds)] for method in there if method in CURVES]
        parts += [f"### The {name}", _table(["method", *GROUPS], rows)]
    return "\n\n".join(parts + [part for other in against for part in _beside(cells, values, seeds, other)]) + "\n"


def _only(values: Values, name: str) -> dict[tuple[str, int], float]:
    return {(task, seed): value for (task, seed, method), value in values.items() if method == name}


def _beside(cells: Cells, values: Mapping[str, Values], seeds: Sequence[int], other: str) -> list[str]:
    """Paired tests and differences by task beside one method."""
    parts = [f"## Beside {other}", _PAIRED.format(level=LEVEL)]
    if other in CURVES:
        values = {**values, **_sooner(cells, other)}
    for quantity, of in values.items():
        rows = [
            [name, *_means(paired(of, name, other), seeds, "+.1f"), f"{rank:.2g}", f"{flip:.2g}", said]
            for name, (rank, flip, said) in compare(of, other).items()
        ]
        parts += [
            f"### {quantity.capitalize()}",
            _table(["method", *GROUPS, "Wilcoxon", "sign flips", "in words"], rows),
        ]
    parts += [f"### By task, beside {other}", _DIFFERENCES]
    names = list(compare(next(iter(values.values())), other))
    for calls in CHECKPOINTS:
        rows = [[name, *(_task_difference(cells, t, (name, other), calls, seeds) for t in TASKS)] for name in names]
        parts += [f"After {calls} calls:", _table(["method", *TASKS], rows)]
    return parts


def _sooner(cells: Cells, other: str) -> dict[str, dict[Key, float]]:
    """Test accuracy of the others after half of the calls, that of one method after all of them."""
    *_, half, last = CHECKPOINTS
    found = {key: 100 * at(cell, last if key[2] == other else half)["test"] for key, cell in cells.items()}
    return {f"test accuracy after {half} calls, {other} after {last}": found}


def write_csv(cells: Cells, path: Path) -> None:
    """One line for each point of each cell."""
    with path.open("w", newline="") as file:
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow(["task", "seed", "method", *_COLUMNS, "seconds"])
        for key, cell in cells.items():
            lines.writerows([*key, *(point[name] for name in _COLUMNS), cell["seconds"]] for point in cell["points"])


def main() -> None:
    """Run cells, or report on them."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = asked.add_subparsers(dest="command", required=True)
    run, report = commands.add_parser("run"), commands.add_parser("report")
    for command in (run, report):
        command.add_argument("--out", type=Path, nargs="+", required=True, help="roots of cells; run fills the first")
        command.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    run.add_argument("--data", type=Path, required=True, help="folder of task folders")
    run.add_argument("--tasks", nargs="+", choices=TASKS, default=[*TASKS])
    run.add_argument("--methods", nargs="+", choices=NAMES, default=NAMES)
    report.add_argument("--csv", type=Path, required=True)
    report.add_argument("--page", type=Path, required=True)
    report.add_argument("--against", nargs="+", choices=NAMES, default=NAMES[:1], help="methods to compare all with")
    given = asked.parse_args()
    if given.command == "run":
        asked_tasks = {name: [task for task in given.tasks if task in tasks_of(name)] for name in given.methods}
        names = [(task, seed, name) for seed in given.seeds for name, tasks in asked_tasks.items() for task in tasks]
        work_through_references(given.out[0], given.data, [name for name in names if name[2] in REFERENCES])
        work_through(given.out[0], given.data, [name for name in names if name[2] in METHODS])
        return
    cells = load_cells(given.out, given.seeds)
    write_csv(cells, given.csv)
    given.page.write_text(page(cells, given.seeds, given.against))


if __name__ == "__main__":
    main()
