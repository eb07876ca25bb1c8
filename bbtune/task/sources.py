"""Where tasks come from: ``folder:``, ``file:``, ``hf:`` and ``builtin:``, or a program (``object:``)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from bbtune.errors import TaskError, did_you_mean
from bbtune.task.data import TaskData
from bbtune.task.fewshot import FewShotTable, draw_splits, first_per_label
from bbtune.task.free_form import SCORES
from bbtune.task.metrics import METRICS, Metric
from bbtune.task.rows import Columns, Row, read_rows, to_answered, to_examples
from bbtune.task.task import Example, Task
from bbtune.task.template import FIELDS
from bbtune.task.verbalizer import words_per_label
from bbtune.task_spec import ColumnsSpec, TaskSpec

_BUILTIN = Path(__file__).parent / "builtin"
Reader = Callable[[list[Row]], list[Example]]


def load_task(spec: TaskSpec, data: TaskData | None = None) -> Task:
    """The task that a job names.

    Args:
        data: of a program, where the job names them.

    Raises:
        TaskError: the source is missing or its rows are at fault; file and line are named.
    """
    scheme, _, name = spec.source.partition(":")
    if scheme == "object":
        return _load_data(data, spec)
    return _SOURCES[scheme](name, spec)


class TaskCard(BaseModel):
    """What ``task.json`` of a task folder must and may say; other keys are for readers."""

    model_config = ConfigDict(strict=True, frozen=True)
    name: str
    kind: Literal["single", "pair"]
    labels: list[str]
    template: str | None = None
    label_words: list[str | list[str]] | None = None
    metric: str | None = None
    metric_positive_label: int | str | None = None


def _load_builtin(name: str, spec: TaskSpec) -> Task:
    known = sorted(path.name for path in _BUILTIN.iterdir() if path.is_dir())
    if name not in known:
        raise TaskError(f"no built-in task {name!r}, expected one of {known}{did_you_mean(name, known)}")
    return _load_folder(str(_BUILTIN / name), spec)


def _load_folder(name: str, spec: TaskSpec) -> Task:
    """A folder with ``task.json``, ``test.jsonl`` and train and dev files, in ``seedN`` folders or beside the card."""
    folder = Path(name)
    card = _read_card(folder)
    draws = _draws(folder)
    if draws and spec.seed not in draws:
        raise TaskError(f"{folder}: no draw with seed {spec.seed}, expected one of {draws}; set task.seed or seeds")
    drawn = folder / f"seed{spec.seed}" if draws else folder
    read, labels = _card_reader(spec, card)
    splits = {
        split: read(read_rows(path / f"{split}.jsonl"))
        for split, path in (("train", drawn), ("dev", drawn), ("test", folder))
    }
    return Task(
        name=card.name,
        kind=card.kind,
        labels=labels,
        metric=make_metric(spec, labels, card.metric, card.metric_positive_label),
        train=first_per_label(splits["train"], spec.shots, labels, f"{drawn}/train.jsonl"),
        dev=first_per_label(splits["dev"], spec.shots, labels, f"{drawn}/dev.jsonl"),
        test=tuple(splits["test"]),
        template=card.template,
        label_words=None if card.label_words is None else words_per_label(card.label_words),
    )


def _draws(folder: Path) -> list[int]:
    return sorted(int(p.name[4:]) for p in folder.glob("seed*") if p.name[4:].isdigit() and p.is_dir())


def drawn_seeds(spec: TaskSpec) -> list[int] | None:
    """Seeds of the draws that a task comes with, none where it has one draw whatever the seed; None of a table."""
    scheme, _, name = spec.source.partition(":")
    folders = {"folder": Path(name), "builtin": _BUILTIN / name}
    return _draws(folders[scheme]) if scheme in folders else None


def _card_reader(spec: TaskSpec, card: TaskCard) -> tuple[Reader, tuple[str, ...]]:
    """How the rows of a task folder are read, and the names of the labels: none where answers are words."""
    fields, metric = FIELD_NAMES[card.kind], spec.metric or card.metric
    if metric is not None and metric in SCORES:
        _refuse_labels(spec.source, metric, tuple(card.labels))
        return lambda rows: to_answered(rows, fields, metric), ()
    labels = _labels(spec, tuple(card.labels))

    def label_of(value: Any) -> int | None:
        return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(labels) else None

    return lambda rows: to_examples(rows, fields, label_of), labels


FIELD_NAMES = {
    "single": Columns(FIELDS["single"][0], None, "label"),
    "pair": Columns(FIELDS["pair"][0], FIELDS["pair"][1], "label"),
}


def _read_card(folder: Path) -> TaskCard:
    path = folder / "task.json"
    if not path.is_file():
        raise TaskError(f"{folder}: expected a task folder with task.json, found none; for a table use file:PATH")
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise TaskError(f"{path}: not JSON in UTF-8 ({error})") from error
    if not isinstance(card, dict):
        raise TaskError(f"{path}: expected a JSON object, got {card!r}")
    try:
        return TaskCard.model_validate(card)
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, item['loc']))}: {item['msg']}, got {item['input']!r}" for item in error.errors()]
        raise TaskError(f"{path}: {'; '.join(faults)}") from error


def _load_file(name: str, spec: TaskSpec) -> Task:
    path = Path(name)
    test = read_rows(Path(spec.test.removeprefix("file:"))) if spec.test else None
    return _from_table(path.stem, read_rows(path), test, spec, None)


def _load_data(data: TaskData | None, spec: TaskSpec) -> Task:
    """Texts and labels of a program."""
    if data is None or data.source != spec.source:
        raise TaskError(f"expected bbtune.TaskData of {spec.source}, got {data.source if data else 'none'}; give task=")
    columns = ColumnsSpec(text_b="text_b" if data.pairs else None)
    return _from_table(data.name, data.rows, data.test, spec.model_copy(update={"columns": columns}), None)


def _load_hf(name: str, spec: TaskSpec) -> Task:
    """A data set of the hub (``hf:NAME`` or ``hf:NAME@CONFIG``), or a local folder that ``datasets`` can read."""
    try:
        import datasets
    except ModuleNotFoundError as error:
        raise TaskError("hf: sources need the package datasets; pip install datasets") from error
    path, _, config = name.partition("@")
    datasets.disable_progress_bars()
    try:
        loaded = datasets.load_dataset(path, config or None)
    except Exception as error:  # the library raises whatever its back ends raise
        raise TaskError(
            f"hf:{name} cannot be loaded ({type(error).__name__}: {error}); check the name and the network"
        ) from error
    if "train" not in loaded:
        raise TaskError(f"hf:{name}: expected a split named train, got {sorted(loaded)}")
    held = next((split for split in ("test", "validation") if split in loaded and _labelled(loaded[split], spec)), None)
    feature = loaded["train"].features.get(spec.columns.label)
    names = tuple(feature.names) if hasattr(feature, "names") else None
    rows = {
        s: [Row(f"hf:{name} {s} row {i}", dict(r)) for i, r in enumerate(loaded[s], 1)] for s in ("train", held) if s
    }
    return _from_table(path.rstrip("/").split("/")[-1], rows["train"], rows[held] if held else None, spec, names)


def _labelled(split: Any, spec: TaskSpec) -> bool:
    """Whether a split has real labels (the public test splits of GLUE hold -1)."""
    if spec.columns.label not in split.column_names:
        return False
    labels = list(split[spec.columns.label])
    return -1 not in labels and None not in labels


def _from_table(
    name: str, rows: list[Row], test: list[Row] | None, spec: TaskSpec, names: tuple[str, ...] | None
) -> Task:
    columns = Columns(spec.columns.text, spec.columns.text_b, spec.columns.label)
    read, labels = _reader(spec, columns, rows, names)
    table = FewShotTable(
        rows=read(rows), test=read(test) if test is not None else None, labels=labels, place=spec.source
    )
    train, dev, held = draw_splits(table, spec.shots or 16, spec.holdout, spec.seed)
    return Task(
        name=name,
        kind="single" if columns.text_b is None else "pair",
        labels=labels,
        metric=make_metric(spec, labels, None, None),
        train=train,
        dev=dev,
        test=held,
    )


def _reader(
    spec: TaskSpec, columns: Columns, rows: list[Row], names: tuple[str, ...] | None
) -> tuple[Reader, tuple[str, ...]]:
    """How rows are read, and the names of the labels: none where answers are words."""
    metric = spec.metric
    if metric is not None and metric in SCORES:
        _refuse_labels(spec.source, metric, names or ())
        return lambda some: to_answered(some, columns, metric), ()
    values = [row.values.get(columns.label) for row in rows]
    labels = _labels(spec, names or _distinct(values))
    label_of = _label_reader(labels, values if names is None else [], _distinct(values))
    return lambda some: to_examples(some, columns, label_of), labels


def _refuse_labels(source: str, metric: str, labels: tuple[str, ...]) -> None:
    if labels:
        wrong = f"expected a metric of labels, {source} has the labels {list(labels)}, got {metric}"
        raise TaskError(f"task.metric: {wrong}; take one of {list(METRICS)}")


def _distinct(values: list[Any]) -> tuple[str, ...]:
    """Label names as they occur, numbers in the order of numbers."""
    names = {str(value) for value in values if value is not None and str(value).strip()}
    numeric = all(re.fullmatch(r"-?\d+", name) for name in names)
    return tuple(sorted(names, key=int) if numeric else sorted(names))


def _label_reader(labels: tuple[str, ...], values: list[Any], found: tuple[str, ...]) -> Callable[[Any], int | None]:
    """Read labels by name; where no value is a name, by the place of the value among those found, or from 0."""
    by_name = {name: number for number, name in enumerate(labels)}
    if not any(str(value) in by_name for value in values):
        numbers = bool(found) and all(re.fullmatch(r"-?\d+", value) for value in found)
        from_0 = not values or not numbers or min(map(int, found)) == 0
        by_name = {(str(i) if from_0 else found[i]): i for i in range(len(labels))}
    return lambda value: by_name.get(str(value))


def _labels(spec: TaskSpec, found: tuple[str, ...]) -> tuple[str, ...]:
    if spec.labels is None:
        return found
    if len(spec.labels) != len(found):
        raise TaskError(f"task.labels: expected {len(found)} names, one for each of {list(found)}, got {spec.labels}")
    return tuple(spec.labels)


def make_metric(spec: TaskSpec, labels: tuple[str, ...], name: str | None, positive: int | str | None) -> Metric:
    """The job's metric, else the card's, else accuracy."""
    if spec.positive_label is not None:
        positive = spec.positive_label
    chosen = spec.metric or name or "accuracy"
    if chosen in SCORES:
        return Metric(chosen, 0)
    if isinstance(positive, str):
        if positive not in labels:
            raise TaskError(f"task.positive_label: expected one of {list(labels)}, got {positive!r}")
        positive = labels.index(positive)
    if chosen not in METRICS:
        known = [*METRICS, *SCORES]
        raise TaskError(f"metric: expected one of {known}, got {chosen!r}{did_you_mean(chosen, known)}")
    if chosen == "f1" and positive not in range(len(labels)):
        raise TaskError(f"task.positive_label: metric f1 needs the label that counts, one of {list(labels)}")
    return Metric(chosen, len(labels), positive if chosen == "f1" else None)


_SOURCES: dict[str, Callable[[str, TaskSpec], Task]] = {
    "builtin": _load_builtin,
    "file": _load_file,
    "folder": _load_folder,
    "hf": _load_hf,
}
