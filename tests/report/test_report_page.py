"""The report of a run: everything is on it, in words, and nothing of it comes from elsewhere."""

from __future__ import annotations

import json
import re
import shutil
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import typer.main
from pages import Page
from typer.testing import CliRunner

from bbtune.cli import app
from bbtune.errors import BbtuneError
from bbtune.jobfile import parse_job
from bbtune.methods import BASELINES
from bbtune.plan import Reading
from bbtune.report.changes import MOST
from bbtune.report.manner import BASELINES as SAID
from bbtune.report.page import write_report
from bbtune.result import RESULT, TuneResult
from bbtune.task.data import TaskData
from bbtune.task.sources import load_task

SECTIONS = ["Scores", "How the run went", "Right and wrong answers", "Texts that changed", "The prompt", "Cost"]
SECTIONS += ["Use it", "How it was made"]
TRUTH = np.array([1, 0, 0, 1, 0, 1, 0, 1])


def predicted(zero_shot: list[int], tuned: list[int], truth: Any = TRUTH) -> dict[str, Any]:
    return {"truth": np.asarray(truth), "zero_shot": np.asarray(zero_shot), "tuned": np.asarray(tuned)}


def test_the_page_says_what_was_tuned_and_what_came_of_it(finished: Path, tmp_path: Path) -> None:
    page, result = Page(write_report(finished, tmp_path / "page.html")), TuneResult.load(finished)
    page.check_alone()
    assert re.findall(r'<h2 id="\w+">([^<]*)</h2>', page.whole) == SECTIONS
    assert page.tags.count("h1") == 1
    assert page.tags.count("table") == page.tags.count("caption")
    assert page.tags.count("svg") == page.whole.count('role="img" aria-label="') == 4
    said = result.verdict()
    for words in (
        said[0].upper() + said[1:],
        "It learned from 4 solved examples per label (8 in all) and 8 more to choose by. 8 other texts served as the",
        "to sort texts into 2 labels: <b>negative</b>, positive & more.",
        "whose inner states are set at 2 layers of the model. 12 numbers decide it. The search “cma-diagonal”",
        "The model's own weights were not touched",
        "An interval made like this holds the score on endlessly many such texts in 95 of 100 cases",
        f"bbtune predict {finished} 'a new text'",
        result.spec.spec_hash,
        "intrinsic_dim: 6",
        f"layer-forwards texts times layers of the model that ran {result.cost.layer_forwards:,}",
    ):
        assert words in page.text
    assert "backward" not in page.text.replace("backward_examples", "")


def test_the_commands_on_a_page_are_those_of_the_program(finished: Path, tmp_path: Path) -> None:
    page = write_report(finished, tmp_path / "page.html").read_text(encoding="utf-8")
    told = re.findall(r"<pre>bbtune (\w+) ", page)
    assert {"predict", "serve", "show"} <= set(told) <= set(typer.main.get_command(app).commands)


def test_a_page_is_the_same_every_time(finished: Path, tmp_path: Path) -> None:
    first, second = (write_report(finished, tmp_path / name) for name in ("one.html", "two.html"))
    assert first.read_bytes() == second.read_bytes()


def test_texts_that_changed_are_shown_with_what_is_true_of_them(copy: Any, tmp_path: Path) -> None:
    folder = copy("run", predicted=predicted([0, 0, 0, 1, 1, 0, -1, 1], [1, 1, 0, 1, 0, 0, 1, 1]))
    page = Page(write_report(folder))
    assert page.whole == (folder / "report.html").read_text(encoding="utf-8")
    page.check_alone()
    assert "Of 8 test texts: 2 went from wrong to right, 1 went from right to wrong, 1 went from one wrong" in page.text
    # Nothing of a text is markup, and a dollar sign no formula.
    shown = "1 a <script>alert('$x$')</script> & warm film positive & more ✗ <b>negative</b> ✓ positive & more"
    assert shown in page.text.replace("\u00a0", " ")
    assert (
        "7 it was a bad parcel and a wrong bill and and late <b>negative</b> ✗ (no label) ✗ positive & more"
        in page.text.replace("\u00a0", " ")
    )
    assert "true ↓ given → <b>negative</b> positive & more (no label)" in page.text


@pytest.mark.parametrize("how", ["changed", "gone"])
def test_without_the_tasks_data_row_numbers_stand_for_texts(copy: Any, tickets: Path, tmp_path: Path, how: str) -> None:
    data = tmp_path / "data"
    shutil.copytree(tickets, data)
    spec = TuneResult.load(copy("first")).spec
    spec = spec.model_copy(update={"task": spec.task.model_copy(update={"source": f"folder:{data}"})})
    folder = copy("run", spec=spec, predicted=predicted([0] * 8, [1] * 8))
    if how == "gone":
        shutil.rmtree(data)
    else:
        (data / "test.jsonl").write_text("\n".join((tickets / "test.jsonl").read_text().splitlines()[::-1]))
    page = Page(write_report(folder))
    why = {"changed": "the task's data have changed since the run", "gone": "the task's data cannot be read here ("}
    assert f"Only the row numbers of the test split are shown: {why[how]}" in page.text
    assert "script" not in page.text
    assert "4 texts row true before after 1 positive & more ✗ <b>negative</b> ✓ positive & more" in page.text.replace(
        "\u00a0", " "
    )
    assert "It learned from 4 solved examples per label" in page.text  # the journal knows


def test_data_that_a_program_gave_are_asked_of_it(copy: Any, tickets: Path) -> None:
    rows = [json.loads(line) for line in (tickets / "test.jsonl").read_text().splitlines()]
    texts, labels = [row["text"] for row in rows], [row["label"] for row in rows]
    names = json.loads((tickets / "task.json").read_text())["labels"]
    more, again = [f"{text} {i}" for i, text in enumerate(texts)], [names[label] for label in labels]
    data = TaskData("mine", more, again, (texts, again))
    first = TuneResult.load(copy("first"))
    told = {"source": "object:mine", "shots": 2, "labels": list(first.labels)}
    spec = first.spec.model_copy(update={"task": first.spec.task.model_copy(update=told)})
    prints = {**first.fingerprints, "test": load_task(spec.task, data).test_fingerprint}
    folder = copy("run", spec=spec, fingerprints=prints, predicted=predicted([0] * 8, [1] * 8))
    assert "Only the row numbers" in Page(write_report(folder)).text
    assert "& warm film" in Page(write_report(folder, task=data)).text


def test_a_secret_in_an_address_stays_out_of_the_page(copy: Any) -> None:
    spec = TuneResult.load(copy("first")).spec
    spec = spec.model_copy(update={"task": spec.task.model_copy(update={"source": "folder:/none?token=opensesame"})})
    page = Page(write_report(copy("run", spec=spec)))
    assert "/none?***" in page.text
    assert "opensesame" not in page.whole


def test_many_changes_of_long_texts_make_a_small_page(copy: Any, tickets: Path, tmp_path: Path) -> None:
    data, n = tmp_path / "data", 1500
    shutil.copytree(tickets, data)
    rows = [json.dumps({"text": f"{i} {'long ' * 2000}", "label": i % 2}) for i in range(n)]
    (data / "test.jsonl").write_text("\n".join(rows))
    first = TuneResult.load(copy("first"))
    spec = first.spec.model_copy(update={"task": first.spec.task.model_copy(update={"source": f"folder:{data}"})})
    prints = {**first.fingerprints, "test": load_task(spec.task).test_fingerprint}
    truth = np.arange(n) % 2
    folder = copy("run", spec=spec, fingerprints=prints, predicted=predicted(1 - truth, truth, truth))
    page = Page(write_report(folder))
    assert f"{MOST} of 1500, evenly spread over the test split" in page.text
    assert page.text.count("long long") == MOST * page.text.count("long long") // MOST > 0
    assert " 1500 1499 long" in page.text
    assert len(page.whole) < 300_000


def test_runs_beside_have_their_scores_and_their_tests(finished: Path, copy: Any, tmp_path: Path) -> None:
    better = copy("better", predicted=predicted([0] * 8, TRUTH.tolist()))
    page = Page(write_report(finished, tmp_path / "page.html", [better, copy("same")]))
    page.check_alone()
    assert "cma-diagonal (better)" in page.text  # told apart by their places at last
    assert "no significant difference between cma-diagonal (same) and cma-diagonal on tiny: +0.0 points" in page.text
    assert "one seed each, so this compares two prompts, not two methods" in page.text


def test_a_run_beside_on_another_test_split_or_metric_is_refused(finished: Path, copy: Any, tmp_path: Path) -> None:
    prints = {**TuneResult.load(finished).fingerprints, "test": "f" * 64}
    other = copy("other", fingerprints=prints)
    with pytest.raises(BbtuneError, match=r"expected a run on the same test split .* got ffffffffffff, task tiny"):
        write_report(finished, tmp_path / "page.html", [other])
    with pytest.raises(BbtuneError, match="expected a run with metric accuracy, got macro_f1"):
        write_report(finished, tmp_path / "page.html", [copy("f1", metric="macro_f1")])
    assert not (tmp_path / "page.html").exists()


def test_a_model_that_is_gone_is_told_and_its_norms_are_left_out(copy: Any, tmp_path: Path) -> None:
    spec = TuneResult.load(copy("first")).spec
    gone = spec.backbone.model_copy(update={"model": f"path:{tmp_path / 'gone'}"})
    page = Page(write_report(copy("run", spec=spec.model_copy(update={"backbone": gone}))))
    assert "The sizes of the prompt's layers are left out: backbone.model: expected a model folder" in page.text
    assert page.tags.count("svg") == 3


def test_a_baseline_says_what_it_does(copy: Any, make_job: Any) -> None:
    raw = make_job("bert").model_dump(mode="json", include={"name", "backbone", "task", "tracking"})
    spec, faults, _ = parse_job({**raw, "method": {"name": "deep-prompts"}})
    assert not faults
    learned = {f"layers.{i}": np.full((2, 8), i + 1.0, dtype=np.float32) for i in range(3)}
    page = Page(write_report(copy("run", spec=spec, learned=learned, curve=())))
    assert "The method is the baseline “deep-prompts”, which trains prompts of numbers at every layer" in page.text
    assert "The method has no steps, so there is no curve to show." in page.text
    assert "layer Frobenius norm 0 4 1 8 2 12" in page.text
    assert set(SAID) == set(BASELINES)


def test_answers_in_words_have_scores_in_place_of_labels(copy: Any, make_job: Any) -> None:
    raw = make_job("bert").model_dump(mode="json", include={"name", "task", "budget", "tracking"})
    raw["task"]["label_words"], raw["task"]["metric"] = None, "token_f1"
    api = {"base_url": "http://127.0.0.1:9/v1", "model": "tiny", "price": {"input": 1.0, "output": 2.0}}
    prompt = {"kind": "text", "text": "Be short."}
    spec, faults, _ = parse_job({**raw, "backbone": {"api": api}, "prompt": prompt})
    assert not faults
    scores = predicted([0.0] * 4 + [0.5] * 4, [0.0, 1.0] * 4, np.ones(8))  # type: ignore[list-item]
    reading = Reading("single", "{text}\nAnswer: {mask}", (), "Count & be <short>.\n\n")
    first = TuneResult.load(copy("first"))
    paid = replace(first.paid, requests=1234, dollars=0.5)
    changes = {"labels": (), "metric": "token_f1", "predicted": {**scores, "majority": np.zeros(8)}, "paid": paid}
    page = Page(write_report(copy("run", spec=spec, reading=reading, **changes)))
    page.check_alone()
    assert "Answers are words, so there are no labels to confuse." in page.text
    assert "Of 8 test texts: 4 answered better, 2 answered worse" in page.text
    assert "Count & be <short>. {text} Answer: {mask}" in page.text
    assert "The instruction that the search began with: Be short." in page.text
    assert "requests sent, repeated ones included 1,234" in page.text
    assert "dollars at the prices of the job 0.5000" in page.text


def test_the_command_writes_beside_the_run_or_where_it_is_told(finished: Path, tmp_path: Path) -> None:
    told = CliRunner().invoke(app, ["report", str(finished), "--out", str(tmp_path / "deep" / "page.html")])
    assert (told.exit_code, told.output) == (0, f"page: {tmp_path / 'deep' / 'page.html'}\n")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BbtuneError, match=f"expected a finished run with {RESULT}, found none"):
        write_report(tmp_path / "empty")
    with pytest.raises(BbtuneError, match=r"empty: the page cannot be written \(Is a directory\); give another file"):
        write_report(finished, tmp_path / "empty")


def test_the_page_of_a_run_at_an_address_is_written_here(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"memory://{uuid.uuid4().hex}/mine"
    files = fsspec.filesystem("memory")
    for path in finished.iterdir():
        files.pipe(f"{url}/{path.name}", path.read_bytes())
    monkeypatch.chdir(tmp_path)
    path = write_report(url, beside=[url])
    assert path == Path("mine-report.html")
    assert f"bbtune predict {url} 'a new text'" in Page(path).text
