"""Tasks whose answers are words: how they are read, drawn and scored."""

from __future__ import annotations

import csv
import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from bbtune.errors import TaskError
from bbtune.statistics import resample
from bbtune.task.free_form import SCORES, constant_scores
from bbtune.task.metrics import METRICS, Metric, gain_with_interval, score_with_interval
from bbtune.task.sources import load_task
from bbtune.task.task import Example, Task, truth_array
from bbtune.task_spec import TaskSpec

Rows = list[dict[str, Any]]
COLUMNS = {"text": "question", "label": "answer"}


def rows_of(number: int) -> Rows:
    return [{"question": f"What is {i} and {i} ?", "answer": f"It is {2 * i}"} for i in range(number)]


def written(path: Path, rows: Rows) -> Path:
    """A table in the format that its name ends in."""
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return path
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def load(path: Path, metric: str | None = "token_f1", **choices: Any) -> Task:
    source = "folder" if path.is_dir() else "file"
    columns = {} if path.is_dir() else {"columns": COLUMNS}
    return load_task(TaskSpec.model_validate({"source": f"{source}:{path}", "metric": metric, **columns, **choices}))


def fault(path: Path, *given: Any, **choices: Any) -> str:
    with pytest.raises(TaskError) as caught:
        load(path, *given, **choices)
    return str(caught.value)


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_a_table_of_questions_and_answers_is_drawn_without_labels(tmp_path: Path, ending: str) -> None:
    task = load(written(tmp_path / f"qa.{ending}", rows_of(40)), shots=5, holdout=0.25)
    assert (task.labels, task.metric) == ((), Metric("token_f1", 0))
    assert [len(split) for split in (task.train, task.dev, task.test)] == [5, 5, 10]
    every = {(example.text, example.answer) for split in (task.train, task.dev, task.test) for example in split}
    assert len(every) == 20
    assert every <= {(row["question"], row["answer"]) for row in rows_of(40)}
    assert {example.label for example in task.train} == {0}


def test_sixteen_examples_are_drawn_in_all_unless_told_otherwise(tmp_path: Path) -> None:
    task = load(written(tmp_path / "qa.csv", rows_of(80)))
    assert [len(split) for split in (task.train, task.dev, task.test)] == [16, 16, 40]


def test_too_few_examples_are_told_without_a_label(tmp_path: Path) -> None:
    path = written(tmp_path / "qa.csv", rows_of(20))
    said = "the table has 20 distinct texts, 10 of them held out for the test; expected 32 more for train and dev"
    assert said in fault(path)


def test_numbers_are_answers_too_and_white_space_in_answers_does_not_count(tmp_path: Path) -> None:
    rows = [{"question": "a", "answer": 42}, {"question": "b", "answer": 4.5}, {"question": "c", "answer": " two \n x"}]
    task = load(written(tmp_path / "qa.jsonl", rows), shots=1, holdout=0.4)
    found = {e.text: e.answer for split in (task.train, task.dev, task.test) for e in split}
    assert found == {"a": "42", "b": "4.5", "c": "two x"}


def test_patterns_are_kept_to_the_letter(tmp_path: Path) -> None:
    rows = [{"question": f"q{i}", "answer": r"^4  2\b "} for i in range(4)]
    task = load(written(tmp_path / "qa.jsonl", rows), "regex", shots=1, holdout=0.4)
    assert task.train[0].answer == r"^4  2\b "


def test_questions_with_contradicting_answers_are_in_no_split(tmp_path: Path) -> None:
    rows = [*rows_of(10), {"question": "What is 3 and 3 ?", "answer": "Seven"}, rows_of(5)[4]]
    task = load(written(tmp_path / "qa.csv", rows), shots=1)
    texts = [example.text for split in (task.train, task.dev, task.test) for example in split]
    assert "What is 3 and 3 ?" not in texts
    assert len(texts) == len(set(texts))


@pytest.mark.parametrize(
    ("answer", "metric", "said"),
    [
        ("", "token_f1", "field 'answer' is empty"),
        (None, "token_f1", "field 'answer' is missing, the row has ['question']"),
        (True, "exact_match", "field 'answer': expected text, got True"),
        (["a"], "exact_match", "field 'answer': expected text, got ['a']"),
        ("\ud800", "exact_match", "field 'answer' has half a character"),
        ("?!", "exact_match", "expected words, signs and articles do not count, got '?!'; take metric regex"),
        ("(", "regex", "expected a regular expression, got '(' (missing ), unterminated subpattern at position 0)"),
    ],
)
def test_an_answer_at_fault_is_told_with_its_line(tmp_path: Path, answer: Any, metric: str, said: str) -> None:
    path = written(tmp_path / "qa.jsonl", [*rows_of(3), {"question": "x", "answer": answer}])
    assert fault(path, metric).startswith(f"1 bad row\n{path}:4: {said}")


def folder_of(folder: Path, metric: str | None = "exact_match", labels: tuple[str, ...] = (), **row: Any) -> Path:
    folder.mkdir()
    card = {"name": "sums", "kind": "single", "labels": labels, "metric": metric}
    (folder / "task.json").write_text(json.dumps(card))
    for split in ("train", "dev", "test"):
        rows = [{"text": f"{split} {r['question']}", "label": r["answer"], **row} for r in rows_of(4)]
        written(folder / f"{split}.jsonl", rows)
    return folder


def test_a_task_folder_has_answers_where_its_card_says_so(tmp_path: Path) -> None:
    task = load(folder_of(tmp_path / "t"), None, shots=2)
    assert (task.labels, task.metric.name) == ((), "exact_match")
    assert task.train == (
        Example("train What is 0 and 0 ?", None, 0, "It is 0"),
        Example("train What is 1 and 1 ?", None, 0, "It is 2"),
    )
    assert load(tmp_path / "t", "token_f1").metric.name == "token_f1"
    assert "train.jsonl: expected 5 examples, got 4; lower task.shots" in fault(tmp_path / "t", None, shots=5)


def test_a_task_of_labels_cannot_be_scored_as_words(tmp_path: Path) -> None:
    path = folder_of(tmp_path / "t", "accuracy", ("bad", "good"), label=0)
    said = "expected a metric of labels, folder:{} has the labels ['bad', 'good'], got regex; take one of ['accuracy'"
    assert said.format(path) in fault(path, "regex")


def test_fingerprints_of_tasks_with_labels_are_what_they_were_before_there_were_answers() -> None:
    splits = [(Example("a", None, 0), Example("b", "c", 1))] * 3
    task = Task("t", "pair", ("no", "yes"), Metric("accuracy", 2), *splits)
    plain = [[{"text": e.text, "text_b": e.text_b, "label": e.label} for e in split] for split in splits]
    said = [["no", "yes"], asdict(task.metric), None, None, *plain]
    assert task.fingerprint == hashlib.sha256(json.dumps(said).encode()).hexdigest()
    assert task.test_fingerprint == hashlib.sha256(json.dumps([["no", "yes"], plain[0]]).encode()).hexdigest()


def test_answers_are_part_of_the_fingerprints() -> None:
    def task(answer: str) -> Task:
        split = (Example("a", None, 0, answer),)
        return Task("t", "single", (), Metric("regex", 0), split, split, split)

    assert task("x").fingerprint != task("y").fingerprint
    assert task("x").test_fingerprint != task("y").test_fingerprint


def test_a_job_can_name_every_metric() -> None:
    named = get_args(get_args(TaskSpec.model_fields["metric"].annotation)[0])
    assert set(named) == {*METRICS, *SCORES}


@pytest.mark.parametrize("name", SCORES)
def test_the_metric_is_the_mean_of_the_scores_over_any_leading_dimensions(name: str) -> None:
    scores = np.random.default_rng(0).integers(0, 2, (3, 5, 7)).astype(float)
    metric = Metric(name, 0)
    assert metric.free_form
    np.testing.assert_allclose(metric(np.ones_like(scores), scores), scores.mean(axis=-1))
    assert not Metric("accuracy", 2).free_form


def test_a_perfect_prediction_of_answers_is_a_score_of_1() -> None:
    assert truth_array([Example("a", None, 0, "x")] * 3).tolist() == [1.0, 1.0, 1.0]
    assert truth_array([Example("a", None, 1), Example("b", None, 0)]).tolist() == [1, 0]


@pytest.mark.parametrize("name", ["exact_match", "regex"])
def test_shares_of_right_answers_have_the_interval_of_accuracy(name: str) -> None:
    truth, right = np.ones(20), np.r_[np.ones(12), np.zeros(8)]
    rng = np.random.default_rng(0)
    expected = score_with_interval(Metric("accuracy", 2), truth.astype(int), right.astype(int), rng)
    assert score_with_interval(Metric(name, 0), truth, right, rng) == expected


def test_intervals_of_a_mean_of_scores_are_bootstrapped_and_a_gain_is_the_mean_difference() -> None:
    rng, metric = np.random.default_rng(0), Metric("token_f1", 0)
    before, after = rng.random(40), rng.random(40)
    score = score_with_interval(metric, np.ones(40), after, rng)
    assert score.value == pytest.approx(after.mean())
    assert score.low < score.value < score.high
    gain = gain_with_interval(metric, np.ones(40), before, after, rng)
    assert gain.value == pytest.approx((after - before).mean())
    assert gain.low < gain.value < gain.high


def test_resampling_for_comparisons_keeps_scores_between_0_and_1() -> None:
    scores = np.random.default_rng(0).random(30)
    (sampled,) = resample(Metric("token_f1", 0), np.ones(30), [scores], resamples=500)
    assert sampled.value == pytest.approx(scores.mean())
    assert sampled.resampled.mean() == pytest.approx(scores.mean(), abs=0.02)


def test_the_constant_answer_is_the_most_frequent_of_train() -> None:
    train = ["Paris", "Rome", "the Rome", "Rome"]
    assert constant_scores("exact_match", train, ["rome", "Paris", "Rome!"]) == [1.0, 0.0, 1.0]
    assert constant_scores("token_f1", ["a b c", "x"], ["b c", "y"]) == [1.0, 0.0]
    assert constant_scores("token_f1", ["red car", "x"], ["car"]) == [pytest.approx(2 / 3)]


def test_a_constant_answer_to_patterns_fits_the_most_frequent_one() -> None:
    assert constant_scores("regex", [r"\b4\b", r"\b4\b", "5"], [r"\b4\b", "5", "4"]) == [1.0, 0.0, 1.0]
