"""Read rows from files, each with the place it came from, and turn them into examples."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal

from bbtune.errors import TaskError, did_you_mean
from bbtune.task.free_form import truth_fault
from bbtune.task.task import Example


@dataclass(frozen=True)
class Row:
    """One record and the place it came from, such as ``train.csv:17``."""

    place: str
    values: dict[str, Any]


@dataclass(frozen=True)
class Columns:
    """Names of the columns that hold the text, the second text of a pair (or None) and the label or answer."""

    text: str
    text_b: str | None
    label: str


_SHOWN = 5


def read_rows(path: Path) -> list[Row]:
    """All rows of a CSV, TSV, JSONL or Parquet file.

    Raises:
        TaskError: naming file and line, if the file is missing, of another kind, not UTF-8, or broken.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise TaskError(f"{path}: expected a file that ends in {', '.join(_READERS)}, got {path.suffix or 'no ending'}")
    if not path.is_file():
        raise TaskError(f"{path}: no such file")
    return reader(path)


def to_examples(rows: Sequence[Row], columns: Columns, label_of: Callable[[Any], int | None]) -> list[Example]:
    """Examples of rows.

    Args:
        label_of: label value -> label id, None for an unknown value.

    Raises:
        TaskError: listing the bad rows by place: missing field, empty text, unknown label.
    """

    def fault_of(label: Any) -> str | None:
        return f"unknown label {label!r}" if label_of(label) is None else None

    texts = _texts(rows, columns, fault_of)
    labels = [label_of(row.values[columns.label]) for row in rows]
    return [Example(*pair, label) for pair, label in zip(texts, labels, strict=True) if label is not None]


def to_answered(rows: Sequence[Row], columns: Columns, metric: str) -> list[Example]:
    """Examples of rows whose label column holds the answer: words, or a number.

    Args:
        metric: of :data:`bbtune.task.free_form.SCORES`; ``regex`` keeps patterns to the letter.

    Raises:
        TaskError: listing the bad rows by place.
    """

    def fault_of(answer: Any) -> str | None:
        number = isinstance(answer, int | float) and not isinstance(answer, bool)
        return (None if number else _text_fault(columns.label, answer)) or truth_fault(metric, str(answer))

    texts = _texts(rows, columns, fault_of)
    answers = [str(row.values[columns.label]) for row in rows]
    kept = answers if metric == "regex" else [_text(answer) for answer in answers]
    return [Example(*pair, 0, answer) for pair, answer in zip(texts, kept, strict=True)]


def raise_row_faults(faults: Sequence[str]) -> None:
    """Raise one TaskError for all bad rows, the first few of them spelt out."""
    if faults:
        more = [f"... and {len(faults) - _SHOWN} more"] if len(faults) > _SHOWN else []
        raise TaskError(
            "\n".join([f"{len(faults)} bad rows" if len(faults) > 1 else "1 bad row", *faults[:_SHOWN], *more])
        )


def _texts(
    rows: Sequence[Row], columns: Columns, fault_of: Callable[[Any], str | None]
) -> list[tuple[str, str | None]]:
    """The text, or pair of texts, of each row, if all rows are well.

    Args:
        fault_of: what is wrong with a value of the label column.
    """
    raise_row_faults([f"{row.place}: {fault}" for row in rows if (fault := _row_fault(row, columns, fault_of))])
    second = columns.text_b
    return [(_text(row.values[columns.text]), None if second is None else _text(row.values[second])) for row in rows]


def _row_fault(row: Row, columns: Columns, fault_of: Callable[[Any], str | None]) -> str | None:
    for name in (columns.text, columns.text_b):
        if name is None:
            continue
        if (value := row.values.get(name)) is None:
            return _missing(name, row)
        if fault := _text_fault(name, value):
            return fault
    if (label := row.values.get(columns.label)) is None:
        return _missing(columns.label, row)
    return fault_of(label)


def _text_fault(name: str, value: Any) -> str | None:
    if not isinstance(value, str):
        return f"field {name!r}: expected text, got {value!r}"
    if half_character(value):
        return f"field {name!r} has half a character (a lone surrogate)"
    return None if value.strip() else f"field {name!r} is empty"


def half_character(text: str) -> bool:
    """Whether a text has a lone surrogate, which cannot be written as UTF-8."""
    return not text.isprintable() and any("\ud800" <= character <= "\udfff" for character in text)


def _missing(name: str, row: Row) -> str:
    present = sorted(key for key, value in row.values.items() if value is not None)
    return f"field {name!r} is missing, the row has {present}{did_you_mean(name, present)}"


def _text(value: str) -> str:
    return " ".join(value.split())


def _decoded(path: Path) -> str:
    raw = path.read_bytes()
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise TaskError(f"{path}:{line}: not UTF-8 ({error.reason}); save the file as UTF-8") from error


def _read_jsonl(path: Path) -> list[Row]:
    rows, faults = [], []
    for number, line in enumerate(_decoded(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except json.JSONDecodeError as error:
            faults.append(f"{path}:{number}: broken JSON ({error.msg} at column {error.colno})")
            continue
        if isinstance(values, dict):
            rows.append(Row(f"{path}:{number}", values))
        else:
            faults.append(f"{path}:{number}: expected a JSON object, got {line[:40]!r}")
    raise_row_faults(faults)
    return rows


def _read_delimited(path: Path, delimiter: str) -> list[Row]:
    quoting: Literal[0, 3] = 0 if delimiter == "," else 3  # QUOTE_MINIMAL, QUOTE_NONE
    reader = csv.reader(io.StringIO(_decoded(path), newline=""), delimiter=delimiter, quoting=quoting, strict=True)
    rows: list[Row] = []
    faults: list[str] = []
    header: list[str] = []
    first_line = 1  # of the record; quoted fields may span several
    try:
        for values in reader:
            place, first_line = f"{path}:{first_line}", reader.line_num + 1
            if not header:
                header = values
            elif len(values) > len(header):
                faults.append(f"{place}: more fields than the {len(header)} of the header")
            elif values:
                rows.append(Row(place, dict(zip_longest(header, values))))
    except csv.Error as error:
        raise TaskError(f"{path}:{first_line}: {error}") from error
    raise_row_faults(faults)
    return rows


def _read_parquet(path: Path) -> list[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise TaskError(f"{path}: not a Parquet file that can be read ({error})") from error
    return [Row(f"{path}: row {number}", values) for number, values in enumerate(table.to_pylist(), 1)]


_READERS: dict[str, Callable[[Path], list[Row]]] = {
    ".csv": lambda path: _read_delimited(path, ","),
    ".tsv": lambda path: _read_delimited(path, "\t"),
    ".jsonl": _read_jsonl,
    ".parquet": _read_parquet,
}
