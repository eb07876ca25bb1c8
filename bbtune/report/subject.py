"""What a report is of: a finished run, others to stand beside it, and the test split as far as it can be read again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bbtune.compare.rows import MAJORITY, ZERO_SHOT, Row
from bbtune.compare.runs import Run, load_runs
from bbtune.errors import BbtuneError, JournalError, TaskError, hide_credentials
from bbtune.journal import Record, read_journal
from bbtune.result import JOURNAL, TuneResult
from bbtune.storage.home import finished
from bbtune.storage.place import Place
from bbtune.task.data import TaskData
from bbtune.task.sources import load_task
from bbtune.task.task import Example


@dataclass(frozen=True)
class Subject:
    """What a report is of.

    Attributes:
        place: of the run, as its user names it.
        row: the run as a row of a comparison, beside: the others, each under a label of its own.
        start: first line of the run's journal; empty where it cannot be read.
        texts: the test split, in the order of the predictions; None where it cannot be had, and ``no_texts`` says why.
    """

    place: Place
    result: TuneResult
    row: Row
    beside: tuple[Row, ...]
    start: Record
    texts: tuple[Example, ...] | None
    no_texts: str = ""

    @property
    def run(self) -> Run:
        """The run as comparisons see it."""
        return self.row.runs[0]

    @property
    def words(self) -> bool:
        """Whether answers are words, not labels."""
        return self.run.metric.free_form


def read_subject(place: Place, beside: Sequence[Place], data: TaskData | None = None) -> Subject:
    """Read runs and the data of their task.

    Args:
        data: of the task, where a program gave them to the run.

    Raises:
        BbtuneError: if a place holds no finished run, or one beside was scored on another test split.
    """
    with finished(place) as (folder, result):
        run, start = _run_in(folder), _start(folder)
    others = []
    for other in beside:
        with finished(other) as (folder, _):
            others.append(_run_in(folder))
        _refuse_other_test(run, others[-1], other)
    mine = Row(run.method, run.task, (run,))
    named = zip(_labels(others, [str(other) for other in beside], {mine.label}), others, strict=True)
    rows = tuple(Row(label, run.task, (of,)) for label, of in named)
    texts, why = _texts(result, data)
    return Subject(place, result, mine, rows, start, texts, why)


def _run_in(folder: Path) -> Run:
    return load_runs([folder])[0][0]


def _start(folder: Path) -> Record:
    try:
        records = read_journal(folder / JOURNAL)
    except JournalError:  # of another version, or left out of a copy
        return {}
    return records[0] if records else {}


def _refuse_other_test(run: Run, other: Run, place: Place) -> None:
    if run.split != other.split:
        seen, expected = (of.fingerprints.get("test", "unknown")[:12] for of in (other, run))
        raise BbtuneError(
            f"--beside {place}: expected a run on the same test split ({expected}, task {run.task}), got {seen}, task "
            f"{other.task}; run both with the same task data and task.seed"
        )
    if run.metric != other.metric:
        raise BbtuneError(
            f"--beside {place}: expected a run with metric {run.metric.name}, got {other.metric.name}; set task.metric"
        )


def _labels(runs: Sequence[Run], places: Sequence[str], taken: set[str]) -> list[str]:
    """A name for each run: its method; where that is not enough with its job, the end of its place, or a number."""
    names = [run.method for run in runs]
    ends = [place.rstrip("/").rsplit("/", 1)[-1] for place in places]
    for more in ([run.name for run in runs], ends, [f"{end}, {i}" for i, end in enumerate(ends, 1)]):
        counts = Counter([*names, *taken, MAJORITY, ZERO_SHOT])
        told = [f"{run.method} ({of})" for run, of in zip(runs, more, strict=True)]
        names = [new if counts[name] > 1 else name for name, new in zip(names, told, strict=True)]
    return names


def _texts(result: TuneResult, data: TaskData | None) -> tuple[tuple[Example, ...] | None, str]:
    try:
        task = load_task(result.spec.task, data)
    except (TaskError, OSError) as error:
        return None, f"the task's data cannot be read here ({hide_credentials(str(error))})"
    if task.test_fingerprint != result.fingerprints.get("test"):
        return None, "the task's data have changed since the run: its test split is another one now"
    return task.test, ""
