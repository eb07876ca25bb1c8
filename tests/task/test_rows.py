"""Rows of files: what is read, and how bad rows are told."""

import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bbtune.errors import TaskError
from bbtune.task.rows import Columns, Row, read_rows, to_examples
from bbtune.task.task import Example

SINGLE = Columns("text", None, "label")
PAIR = Columns("text_a", "text_b", "label")


def label_of(value: Any) -> int | None:
    return {"neg": 0, "pos": 1}.get(value)


def written(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def fault(path: Path) -> str:
    with pytest.raises(TaskError) as caught:
        read_rows(path)
    return str(caught.value).replace(f"{path.parent}/", "")


def example_fault(rows: list[Row], columns: Columns = SINGLE) -> list[str]:
    with pytest.raises(TaskError) as caught:
        to_examples(rows, columns, label_of)
    return str(caught.value).split("\n")


def test_csv_fields_may_hold_quotes_commas_and_newlines(tmp_path: Path) -> None:
    path = written(tmp_path, "t.csv", 'text,label\n"He said ""no"", twice",neg\n"one\ntwo",pos\n\nlast,pos\n')
    assert read_rows(path) == [
        Row(f"{path}:2", {"text": 'He said "no", twice', "label": "neg"}),
        Row(f"{path}:3", {"text": "one\ntwo", "label": "pos"}),
        Row(f"{path}:6", {"text": "last", "label": "pos"}),
    ]


def test_tsv_quotes_are_text(tmp_path: Path) -> None:
    path = written(tmp_path, "t.tsv", 'text\tlabel\n"open quote\tneg\na, "b"\tpos\n')
    assert [row.values["text"] for row in read_rows(path)] == ['"open quote', 'a, "b"']


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.csv", "text,label\nx,neg\n"),
        ("t.tsv", "text\tlabel\nx\tneg\n"),
        ("t.jsonl", '{"text": "x", "label": "neg"}\n'),
        ("T.CSV", "text,label\nx,neg"),
    ],
)
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_byte_order_mark_and_windows_line_ends_change_nothing(
    tmp_path: Path, name: str, content: str, mark: bytes, ending: str
) -> None:
    path = written(tmp_path, name, mark + content.replace("\n", ending).encode())
    assert [row.values for row in read_rows(path)] == [{"text": "x", "label": "neg"}]


def test_jsonl_lines_end_at_newlines_only(tmp_path: Path) -> None:
    path = written(tmp_path, "t.jsonl", '{"text": "a\u2028b\x85c", "label": 0}\n  \n{"text": "d", "label": 1}')
    assert read_rows(path) == [
        Row(f"{path}:1", {"text": "a\u2028b\x85c", "label": 0}),
        Row(f"{path}:3", {"text": "d", "label": 1}),
    ]


def test_parquet_rows_carry_their_number(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"text": ["a", "b"], "label": [0, None]}), path)
    assert read_rows(path) == [
        Row(f"{path}: row 1", {"text": "a", "label": 0}),
        Row(f"{path}: row 2", {"text": "b", "label": None}),
    ]


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=1, max_size=5))
@settings(max_examples=30, deadline=None)
def test_any_text_survives_jsonl(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    lines = "\n".join(json.dumps({"text": text, "label": "pos"}, ensure_ascii=False) for text in texts)
    path = written(tmp_path_factory.mktemp("rows"), "t.jsonl", lines)
    assert [row.values["text"] for row in read_rows(path)] == texts


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("t.jsonl", b'{"text": "ok"}\n{"text": \n', "t.jsonl:2: broken JSON (Expecting value at column 10)"),
        ("t.jsonl", b'{"text": "ok"}\n["a"]\n', "t.jsonl:2: expected a JSON object, got '[\"a\"]'"),
        ("t.jsonl", b'{"text": "ok"}\n\n{"text": "\xff"}\n', "t.jsonl:3: not UTF-8 (invalid start byte); save the"),
        ("t.jsonl", b'\xef\xbb\xbf{"text": "ok"}\n\xff\n', "t.jsonl:2: not UTF-8"),
        ("t.csv", "text,label\nschön,neg\n".encode("latin-1"), "t.csv:2: not UTF-8"),
        ("t.csv", "text,label\nx,neg\n".encode("utf-16"), "t.csv:1: not UTF-8"),
        ("t.csv", b"text,label\na,neg\na, b,neg\n", "t.csv:3: more fields than the 2 of the header"),
        ("t.tsv", b"text\tlabel\na\tb\tneg\n", "t.tsv:2: more fields than the 2 of the header"),
        ("t.csv", b'text,label\n"a" b,neg\n', "t.csv:2: ',' expected after '\"'"),
        ("t.csv", b'text,label\nx,neg\n"open,neg\n', "t.csv:3: unexpected end of data"),
        ("t.csv", b'text,label\nx,neg\n\n\n"open,neg\ny,pos\nz,pos\n', "t.csv:5: unexpected end of data"),
        ("t.parquet", b"text,label\n", "t.parquet: not a Parquet file that can be read ("),
        ("t.xlsx", b"", "t.xlsx: expected a file that ends in .csv, .tsv, .jsonl, .parquet, got .xlsx"),
        ("t", b"", "t: expected a file that ends in .csv, .tsv, .jsonl, .parquet, got no ending"),
    ],
)
def test_a_file_at_fault_is_named_with_the_line(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    assert said in fault(written(tmp_path, name, content))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert fault(tmp_path / "t.csv") == "t.csv: no such file"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"label": "neg"}, "field 'text' is missing, the row has ['label']"),
        ({"txt": "a", "label": "neg"}, "field 'text' is missing, the row has ['label', 'txt']; did you mean \"txt\"?"),
        ({"text": None, "label": "neg"}, "field 'text' is missing, the row has ['label']"),
        ({"text": "a"}, "field 'label' is missing, the row has ['text']"),
        ({"text": "a", "label": None}, "field 'label' is missing, the row has ['text']"),
        ({"text": "a", "labels": "neg"}, "field 'label' is missing, the row has ['labels', 'text']; did you mean"),
        ({"text": "", "label": "neg"}, "field 'text' is empty"),
        ({"text": " \t\n", "label": "neg"}, "field 'text' is empty"),
        ({"text": 5, "label": "neg"}, "field 'text': expected text, got 5"),
        ({"text": ["a"], "label": "neg"}, "field 'text': expected text, got ['a']"),
        ({"text": "a", "label": "Neg"}, "unknown label 'Neg'"),
        ({"text": "a", "label": ""}, "unknown label ''"),
    ],
)
def test_a_row_at_fault_is_told_by_place_and_reason(values: dict[str, Any], said: str) -> None:
    head, line = example_fault([Row("t.csv:2", {"text": "fine", "label": "pos"}), Row("t.csv:3", values)])
    assert head == "1 bad row"
    assert line.startswith(f"t.csv:3: {said}")


def test_both_texts_of_a_pair_are_asked_for() -> None:
    rows = [
        Row("t:1", {"text_a": "a", "label": "neg"}),
        Row("t:2", {"text_b": "b", "label": "neg"}),
        Row("t:3", {"text_a": "a", "text_b": " ", "label": "neg"}),
    ]
    assert example_fault(rows, PAIR) == [
        "3 bad rows",
        "t:1: field 'text_b' is missing, the row has ['label', 'text_a']; did you mean \"text_a\"?",
        "t:2: field 'text_a' is missing, the row has ['label', 'text_b']; did you mean \"text_b\"?",
        "t:3: field 'text_b' is empty",
    ]


@pytest.mark.parametrize("count", [2, 5, 6, 100])
def test_the_first_five_bad_rows_are_spelt_out_and_the_rest_counted(count: int) -> None:
    lines = example_fault([Row(f"t.csv:{i}", {"text": "a", "label": "?"}) for i in range(count)])
    shown = [f"t.csv:{i}: unknown label '?'" for i in range(min(count, 5))]
    assert lines == [f"{count} bad rows", *shown, *([f"... and {count - 5} more"] if count > 5 else [])]


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("t.jsonl", '{"text": "a"}\n', '{"text"\n'),
        ("t.csv", "text,label\n", "a,b,c\n"),
    ],
)
def test_broken_lines_of_a_file_are_counted_too(tmp_path: Path, name: str, good: str, bad: str) -> None:
    lines = fault(written(tmp_path, name, good + 8 * bad)).split("\n")
    assert lines[0] == "8 bad rows"
    assert [line.split(": ")[0] for line in lines[1:-1]] == [f"{name}:{i}" for i in range(2, 7)]
    assert lines[-1] == "... and 3 more"


def test_a_row_with_too_few_fields_lacks_the_last_ones(tmp_path: Path) -> None:
    path = written(tmp_path, "t.csv", "text,label\na,neg\nb\n")
    assert example_fault(read_rows(path))[1] == f"{path}:3: field 'label' is missing, the row has ['text']"


def test_runs_of_white_space_become_one_space() -> None:
    rows = [Row("t:1", {"text_a": "  a \n\tb", "text_b": "c\u00a0 d ", "label": "pos"})]
    assert to_examples(rows, PAIR, label_of) == [Example("a b", "c d", 1)]


def test_the_second_text_is_left_alone_where_none_is_asked_for() -> None:
    rows = [Row("t:1", {"text": "a", "text_b": "", "label": "neg"})]
    assert to_examples(rows, SINGLE, label_of) == [Example("a", None, 0)]
