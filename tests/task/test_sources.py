"""Where tasks come from: task folders, tables, data sets of the `datasets` library."""

import csv
import json
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from bbtune.errors import TaskError
from bbtune.task.sources import load_task
from bbtune.task.task import Example, Task
from bbtune.task_spec import TaskSpec

Rows = list[dict[str, Any]]


def rows_of(per_label: int, labels: Sequence[Any] = (0, 1), about: str = "") -> Rows:
    return [{"text": f"{about}{i} of {label}", "label": label} for i in range(per_label) for label in labels]


def write_jsonl(path: Path, rows: Rows) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_csv(path: Path, rows: Rows) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def task_folder(folder: Path, seeds: Sequence[int] = (), per_label: int = 3, **card: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    whole = {"name": "films", "kind": "single", "labels": ["bad", "good"], **card}
    (folder / "task.json").write_text(json.dumps({key: value for key, value in whole.items() if value is not None}))
    write_jsonl(folder / "test.jsonl", rows_of(4, about="test "))
    for drawn in [folder / f"seed{seed}" for seed in seeds] or [folder]:
        for split in ("train", "dev"):
            write_jsonl(drawn / f"{split}.jsonl", rows_of(per_label, about=f"{drawn.name} {split} "))
    return folder


def load(source: str, path: Path, **choices: Any) -> Task:
    return load_task(TaskSpec(source=f"{source}:{path}", **choices))


def fault(source: str, path: Path, **choices: Any) -> str:
    with pytest.raises(TaskError) as caught:
        load(source, path, **choices)
    return str(caught.value)


def counts(split: Sequence[Example]) -> dict[int, int]:
    return dict(Counter(example.label for example in split))


def texts(split: Sequence[Example]) -> set[str]:
    return {example.text for example in split}


# Folders


def test_a_folder_without_draws_is_read_whole(tmp_path: Path) -> None:
    card = {"template": "{text} {mask}", "label_words": ["bad", ["good", "great"]], "metric": "macro_f1"}
    task = load("folder", task_folder(tmp_path / "t", **card))
    assert (task.name, task.kind, task.labels, task.template) == ("films", "single", ("bad", "good"), "{text} {mask}")
    assert task.label_words == (("bad",), ("good", "great"))
    assert (task.metric.name, task.metric.classes) == ("macro_f1", 2)
    assert [counts(split) for split in (task.train, task.dev, task.test)] == [{0: 3, 1: 3}, {0: 3, 1: 3}, {0: 4, 1: 4}]
    assert task.train[0] == Example("t train 0 of 0", None, 0)
    assert task.dev[0] == Example("t dev 0 of 0", None, 0)


def test_a_folder_with_draws_gives_that_of_the_seed_and_one_test_split(tmp_path: Path) -> None:
    folder = task_folder(tmp_path, seeds=(13, 100))
    first, second = load("folder", folder, seed=13), load("folder", folder, seed=100)
    assert first.train[0].text == "seed13 train 0 of 0"
    assert second.dev[0].text == "seed100 dev 0 of 0"
    assert first.test == second.test
    assert first.fingerprint != second.fingerprint


def test_a_seed_without_draw_lists_the_draws_there_are(tmp_path: Path) -> None:
    (task_folder(tmp_path, seeds=(100, 13, 21)) / "seeds").mkdir()
    assert fault("folder", tmp_path, seed=14) == (
        f"{tmp_path}: no draw with seed 14, expected one of [13, 21, 100]; set task.seed or seeds"
    )


def test_shots_take_the_first_of_each_label(tmp_path: Path) -> None:
    task = load("folder", task_folder(tmp_path, seeds=(13,)), shots=2)
    assert [example.text[-6:] for example in task.train] == ["0 of 0", "0 of 1", "1 of 0", "1 of 1"]
    assert counts(task.dev) == {0: 2, 1: 2}
    assert counts(task.test) == {0: 4, 1: 4}
    assert "expected 4 examples of label 'bad', got 3; lower task.shots" in fault("folder", tmp_path, shots=4)


def test_pairs_are_read_by_their_two_fields(tmp_path: Path) -> None:
    task_folder(tmp_path, kind="pair")
    for split in ("train", "dev", "test"):
        write_jsonl(
            tmp_path / f"{split}.jsonl", [{"text_a": "a", "text_b": f"{split} {i}", "label": i} for i in (0, 1)]
        )
    task = load("folder", tmp_path)
    assert task.train[1] == Example("a", "train 1", 1)
    assert task.train[1].fields() == {"text_a": "a", "text_b": "train 1"}


@pytest.mark.parametrize("label", [2, -1, "bad", "0", 1.0, True, [0]])
def test_a_label_that_is_no_number_of_the_card_is_told_with_its_line(tmp_path: Path, label: Any) -> None:
    write_jsonl(task_folder(tmp_path) / "dev.jsonl", [*rows_of(2), {"text": "x", "label": label}])
    assert fault("folder", tmp_path) == f"1 bad row\n{tmp_path}/dev.jsonl:5: unknown label {label!r}"


@pytest.mark.parametrize(
    ("card", "said"),
    [
        ({"labels": None}, "task.json: labels: Field required"),
        ({"name": None, "kind": None}, "task.json: name: Field required"),
        ({"kind": "triple"}, "task.json: kind: Input should be 'single' or 'pair', got 'triple'"),
        ({"metric": "acuracy"}, "got 'acuracy'; did you mean \"accuracy\"?"),
        ({"metric": "f1"}, "task.positive_label: metric f1 needs the label that counts, one of ['bad', 'good']"),
        ({"metric": "f1", "metric_positive_label": 2}, "task.positive_label: metric f1 needs the label that counts"),
        ({"metric": "f1", "metric_positive_label": "god"}, "task.positive_label: expected one of ['bad', 'good']"),
    ],
)
def test_a_card_at_fault_is_told(tmp_path: Path, card: dict[str, Any], said: str) -> None:
    assert said in fault("folder", task_folder(tmp_path, **card))


@pytest.mark.parametrize(
    ("card", "said"),
    [
        (b"{", "task.json: not JSON in UTF-8 ("),
        (b'"\xff"', "task.json: not JSON in UTF-8 ("),
        (b"[1]", "task.json: expected a JSON object, got [1]"),
        (b"5", "task.json: expected a JSON object, got 5"),
    ],
)
def test_a_card_that_is_no_json_object_is_told(tmp_path: Path, card: bytes, said: str) -> None:
    (task_folder(tmp_path) / "task.json").write_bytes(card)
    assert said in fault("folder", tmp_path)


@pytest.mark.parametrize("name", ["train", "dev", "test"])
def test_a_file_that_is_missing_or_empty_is_told(tmp_path: Path, name: str) -> None:
    path = task_folder(tmp_path) / f"{name}.jsonl"
    path.write_text("")
    assert fault("folder", tmp_path) == f"task films: expected at least one {name} example, got none"
    path.unlink()
    assert fault("folder", tmp_path) == f"{path}: no such file"


def test_a_folder_without_card_is_told_what_to_do(tmp_path: Path) -> None:
    assert fault("folder", tmp_path) == (
        f"{tmp_path}: expected a task folder with task.json, found none; for a table use file:PATH"
    )


def test_the_job_wins_over_the_card(tmp_path: Path) -> None:
    folder = task_folder(tmp_path, metric="f1", metric_positive_label=1)
    assert (load("folder", folder).metric.name, load("folder", folder).metric.positive) == ("f1", 1)
    assert load("folder", folder, positive_label="bad").metric.positive == 0
    assert load("folder", folder, metric="matthews").metric.name == "matthews"
    named = load("folder", folder, labels=["thumbs down", "thumbs up"], positive_label="thumbs down")
    assert (named.labels, named.metric.positive) == (("thumbs down", "thumbs up"), 0)


def test_labels_of_another_number_than_the_card_has_are_refused(tmp_path: Path) -> None:
    assert fault("folder", task_folder(tmp_path), labels=["a", "b", "c"]) == (
        "task.labels: expected 2 names, one for each of ['bad', 'good'], got ['a', 'b', 'c']"
    )


# Tables


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet"])
def test_a_table_in_any_format_gives_the_same_draw(tmp_path: Path, ending: str) -> None:
    rows = rows_of(6, ["neg", "pos"])
    path = tmp_path / f"films.{ending}"
    if ending == "parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif ending == "tsv":
        path.write_text("\n".join(["text\tlabel", *(f"{row['text']}\t{row['label']}" for row in rows)]))
    else:
        (write_csv if ending == "csv" else write_jsonl)(path, rows)
    task = load("file", path, shots=2, holdout=0.34)
    assert (task.name, task.kind, task.labels) == ("films", "single", ("neg", "pos"))
    assert [counts(split) for split in (task.train, task.dev, task.test)] == [{0: 2, 1: 2}, {0: 2, 1: 2}, {0: 2, 1: 2}]
    assert task.fingerprint == load("file", write_csv(tmp_path / "same.csv", rows), shots=2, holdout=0.34).fingerprint
    for example in (*task.train, *task.dev, *task.test):
        assert example.text.endswith(task.labels[example.label])


@pytest.mark.parametrize(
    ("values", "labels", "names"),
    [
        (["pos", "neg"], None, ("neg", "pos")),
        ([1, 0], None, ("0", "1")),
        ([10, 9, -1], None, ("-1", "9", "10")),
        (["²", "1"], None, ("1", "²")),
        (["--1", "1"], None, ("--1", "1")),
        (["pos", "neg"], ["pos", "neg"], ("pos", "neg")),
        ([0, 1], ["neg", "pos"], ("neg", "pos")),
    ],
)
def test_labels_are_read_by_name_or_number_and_every_example_keeps_its_own(
    tmp_path: Path, values: list[Any], labels: list[str] | None, names: tuple[str, ...]
) -> None:
    task = load("file", write_csv(tmp_path / "t.csv", rows_of(4, values)), shots=1, labels=labels)
    assert task.labels == names
    for example in (*task.train, *task.dev, *task.test):
        written = example.text.split(" of ")[1]
        assert written in (names[example.label], str(example.label))


@pytest.mark.parametrize(
    ("values", "labels", "said"),
    [
        ([0, 1], ["a", "b", "c"], "task.labels: expected 2 names"),
        (["neg", "pos"], ["negative", "pos"], "unknown label 'neg'"),
        (["neg", "pos"], ["a", "b"], "unknown label 'neg'"),
        (["only"], None, "expected at least two labels, got ['only']"),
    ],
)
def test_labels_that_do_not_fit_are_told(
    tmp_path: Path, values: list[Any], labels: list[str] | None, said: str
) -> None:
    assert said in fault("file", write_csv(tmp_path / "t.csv", rows_of(4, values)), shots=1, labels=labels)


def test_numbers_that_do_not_begin_at_0_take_names_in_their_order(tmp_path: Path) -> None:
    task = load("file", write_csv(tmp_path / "t.csv", rows_of(4, [1, 2])), shots=1, labels=["a", "b"])
    assert task.labels == ("a", "b")
    assert {example.label for example in (*task.train, *task.dev, *task.test)} == {0, 1}


def test_columns_can_have_other_names(tmp_path: Path) -> None:
    rows = [{"q": f"q{i}", "a": f"a{i}", "same?": ["no", "yes"][i % 2]} for i in range(12)]
    columns = {"text": "q", "text_b": "a", "label": "same?"}
    task = load("file", write_csv(tmp_path / "t.csv", rows), shots=1, columns=columns)
    assert (task.kind, task.labels) == ("pair", ("no", "yes"))
    for example in task.train:
        assert (example.text[1:], int(example.text[1:]) % 2) == ((example.text_b or "")[1:], example.label)


def test_a_column_that_is_missing_is_told_for_the_first_rows(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "t.csv", rows_of(4))
    lines = fault("file", path, columns={"text": "texts"}).split("\n")
    assert lines[0] == "8 bad rows"
    assert lines[1] == f"{path}:2: field 'texts' is missing, the row has ['label', 'text']; did you mean \"text\"?"
    assert lines[-1] == "... and 3 more"


def test_a_given_test_table_is_the_test_split_and_never_drawn_from(tmp_path: Path) -> None:
    rows = rows_of(8, ["neg", "pos"])
    given = write_jsonl(tmp_path / "test.jsonl", rows[:4])
    table = write_csv(tmp_path / "t.csv", rows)
    for seed in range(10):
        task = load("file", table, shots=3, seed=seed, test=f"file:{given}")
        assert texts(task.test) == {row["text"] for row in rows[:4]}
        assert texts((*task.train, *task.dev)) == {row["text"] for row in rows[4:]}


def test_a_label_that_only_the_test_table_has_is_told_with_its_line(tmp_path: Path) -> None:
    given = write_csv(tmp_path / "test.csv", [*rows_of(1, ["neg"]), {"text": "x", "label": "mixed"}])
    path = write_csv(tmp_path / "t.csv", rows_of(4, ["neg", "pos"]))
    assert fault("file", path, shots=1, test=f"file:{given}") == f"1 bad row\n{given}:3: unknown label 'mixed'"


def test_the_holdout_is_the_test_split_where_none_is_given(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "t.csv", rows_of(10))
    assert counts(load("file", path, shots=1, holdout=0.3).test) == {0: 3, 1: 3}
    assert counts(load("file", path, shots=1).test) == {0: 5, 1: 5}
    said = fault("file", path, shots=3)
    assert "label '0' has 10 distinct texts, 5 of them held out for the test; expected 6 more for train and dev" in said


def test_sixteen_shots_are_drawn_unless_told_otherwise(tmp_path: Path) -> None:
    task = load("file", write_csv(tmp_path / "t.csv", rows_of(70)))
    assert counts(task.train) == counts(task.dev) == {0: 16, 1: 16}


@pytest.mark.parametrize("content", ["", "text,label\n", "text,label\n\n"])
def test_a_table_without_rows_is_told(tmp_path: Path, content: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(content)
    assert "task t: expected at least one train example, got none" in fault("file", path)


# Data sets of the library `datasets`, from local folders


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder for a data set; the library is offline and caches beside it."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    config = pytest.importorskip("datasets.config")
    monkeypatch.setattr(config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "films"
    folder.mkdir()
    return folder


def write_classes(path: Path, rows: Rows, names: list[str]) -> None:
    import datasets

    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=names)})
    datasets.Dataset.from_list(rows, features=features).to_parquet(str(path))


def test_hf_csv_files_give_train_and_test(hub: Path) -> None:
    write_csv(hub / "train.csv", rows_of(4, ["neg", "pos"]))
    write_csv(hub / "test.csv", rows_of(2, ["neg", "pos"], about="test "))
    task = load("hf", hub, shots=2)
    assert (task.name, task.labels) == ("films", ("neg", "pos"))
    assert [counts(split) for split in (task.train, task.dev, task.test)] == [{0: 2, 1: 2}] * 3
    assert texts(task.test) == {row["text"] for row in rows_of(2, ["neg", "pos"], about="test ")}


def test_hf_without_test_split_holds_out_a_share(hub: Path) -> None:
    write_csv(hub / "train.csv", rows_of(8))
    assert counts(load("hf", hub, shots=2, holdout=0.25).test) == {0: 2, 1: 2}


@pytest.mark.parametrize("names", [["neg", "pos"], ["1", "2"], ["1", "0"]])
def test_hf_class_names_become_the_labels_and_its_numbers_stay_numbers(hub: Path, names: list[str]) -> None:
    write_classes(hub / "train.parquet", rows_of(4), names)
    task = load("hf", hub, shots=1)
    assert task.labels == tuple(names)
    for example in (*task.train, *task.dev, *task.test):
        assert example.text.endswith(f"of {example.label}")


@pytest.mark.parametrize("hidden", [-1, None])
def test_hf_test_splits_without_labels_are_passed_over_for_validation(hub: Path, hidden: int | None) -> None:
    write_classes(hub / "train.parquet", rows_of(4), ["neg", "pos"])
    write_classes(hub / "test.parquet", [{"text": "secret", "label": hidden}], ["neg", "pos"])
    write_classes(hub / "validation.parquet", rows_of(1, about="validation "), ["neg", "pos"])
    assert texts(load("hf", hub, shots=1).test) == {"validation 0 of 0", "validation 0 of 1"}


def test_hf_rows_at_fault_are_named_by_split_and_number(hub: Path) -> None:
    rows = rows_of(4, ["neg", "pos"])
    rows[2]["text"] = " "
    write_csv(hub / "train.csv", rows)
    assert fault("hf", hub, shots=1) == f"1 bad row\nhf:{hub} train row 3: field 'text' is empty"


def test_hf_without_train_split_is_told(hub: Path) -> None:
    write_csv(hub / "test.csv", rows_of(4))
    assert fault("hf", hub) == f"hf:{hub}: expected a split named train, got ['test']"


def test_hf_sources_that_cannot_be_loaded_are_told_in_our_words(hub: Path) -> None:
    said = fault("hf", hub)
    assert said.startswith(f"hf:{hub} cannot be loaded (")
    assert said.endswith("check the name and the network")


# Real data

REAL = os.environ.get("BBTUNE_DATA")
TASKS = {"agnews": 4, "dbpedia": 14, "mr": 2, "mrpc": 2, "rte": 2, "snli": 3, "sst-2": 2, "yelp-2": 2}


@pytest.mark.skipif(REAL is None, reason="BBTUNE_DATA is not set to a folder with the eight few-shot tasks")
@pytest.mark.parametrize("seed", [13, 100])
@pytest.mark.parametrize("name", TASKS)
def test_real_tasks_have_sixteen_shots_of_each_label_and_share_no_text(name: str, seed: int) -> None:
    task = load("folder", Path(str(REAL)) / name, seed=seed)
    card = json.loads((Path(str(REAL)) / name / "task.json").read_text(encoding="utf-8"))
    assert (task.name, task.kind, task.metric.name) == (name, card["kind"], card["metric"])
    assert len(task.labels) == len(task.label_words or ()) == TASKS[name]
    assert counts(task.train) == counts(task.dev) == dict.fromkeys(range(TASKS[name]), 16)
    assert set(counts(task.test)) == set(range(TASKS[name]))
    train, dev, test = ({(e.text, e.text_b) for e in split} for split in (task.train, task.dev, task.test))
    assert len(train | dev | test) == len(train) + len(dev) + len(test)
    assert (task.metric.positive is None) == (task.metric.name != "f1")
