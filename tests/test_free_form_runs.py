"""Whole searches whose answers are words: a server that answers well to good instructions, and a model in here."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from real_servers import chatting_copy
from scripted_upstream import Body, ScriptedUpstream, llama, prompt_of
from text_runs import check_same
from typer.testing import CliRunner
from views import Witness, interrupt

from bbtune.api import dry_run, resume, run, validate
from bbtune.cli import app
from bbtune.compare import compare
from bbtune.endpoint.abilities import Abilities, choose_free_form
from bbtune.endpoint_spec import ANSWER_TOKENS, ApiSpec
from bbtune.errors import EndpointError, JobError
from bbtune.evaluation.text_models import TextModels
from bbtune.examine import make_plan
from bbtune.jobfile import parse_job
from bbtune.journal import read_journal
from bbtune.predictor import Predictor
from bbtune.probing import probe_job
from bbtune.result import TuneResult
from bbtune.spec import BaseJob
from bbtune.task.free_form import token_f1
from bbtune.text_plan import TextPlan

NUMBERS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
ROWS = [(f"What comes after {NUMBERS[i]} and {NUMBERS[j]} ?", f"{NUMBERS[j]} {i}") for i in range(9) for j in range(9)]
ANSWERS = dict(ROWS)
GIVEN = ["Be polite.", "Count.", "Count and be short.", "Be short."]
MakeJob = Callable[..., BaseJob]


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of answers for each test."""
    monkeypatch.setenv("BBTUNE_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("qa") / "qa.jsonl"
    path.write_text("".join(json.dumps({"question": q, "answer": a}) + "\n" for q, a in ROWS))
    return path


def raw_job(table: Path, backbone: dict[str, Any], **parts: Any) -> dict[str, Any]:
    """A job on the table; a part that is None is left out, a mapping is laid over what it has."""
    columns = {"text": "question", "label": "answer"}
    raw: dict[str, Any] = {
        "name": "numbers",
        "task": {"source": f"file:{table}", "columns": columns, "metric": "token_f1", "shots": 6, "holdout": 0.2},
        "backbone": backbone,
        "prompt": {"kind": "text", "text": "Be polite.", "instructions": GIVEN, "demonstrations": 1},
        "method": {"search": "random", "population": 4},
        "budget": {"evaluations": 12},
        "tracking": {"enabled": False},
        "seed": 3,
    }
    for part, values in parts.items():
        raw[part] = {**raw[part], **values} if isinstance(values, dict) else values
    return {part: values for part, values in raw.items() if values is not None}


def parsed(raw: dict[str, Any]) -> BaseJob:
    spec, faults, _ = parse_job(raw)
    assert not faults, faults
    assert spec is not None
    return spec


@pytest.fixture
def make(table: Path) -> MakeJob:
    """Jobs on the table: ``make(backbone, method={...})``."""
    return lambda backbone, **parts: parsed(raw_job(table, backbone, **parts))


def answering(body: Body) -> Body:
    """A model that is right if it is told to count, and to the point if it is told to be short."""
    answer, prompt = llama(body), prompt_of(body)
    *before, asked = prompt.split("\n\n")
    if not asked.endswith("Answer:"):
        return answer
    truth = ANSWERS[asked.removesuffix("\nAnswer:")]
    said = truth if any("Count" in part for part in before) else truth.split()[0]
    said = said if any("short" in part for part in before) else f"I think it must be {said} ."
    choice = answer["choices"][0]
    choice |= {"message": {"role": "assistant", "content": said}} if "message" in choice else {"text": f" {said}"}
    return answer


def api(url: str, **more: Any) -> dict[str, Any]:
    return {"api": {"base_url": url, "model": "tiny", "patience_s": 5.0, "timeout_s": 20.0, **more}}


def test_a_search_over_an_api_finds_the_instruction_that_makes_answers_right(make: MakeJob, tmp_path: Path) -> None:
    with ScriptedUpstream(script=answering) as upstream:
        witness = Witness()
        spec = make(api(upstream.url), prompt={"answer_tokens": 5}, budget={"evaluations": 20})
        result = run(spec, tmp_path / "run", witness)
        assert result.paid.requests == upstream.requests
    assert "Count and be short." in result.reading.preamble
    assert (result.labels, result.reading.label_words, result.metric) == ((), (), "token_f1")
    assert result.reading.template == "{text}\nAnswer: {mask}"
    assert result.scores["tuned"].test.value == 1.0
    assert result.scores["zero_shot"].test.value < 0.5
    assert result.gain.low > 0
    assert any(text.startswith("used: the words of the answer of chat, at most 5 tokens") for text in witness.said)
    assert "numbers: token_f1 of answers in words, 95 % intervals" in result.summary()
    assert "tuned is better than zero-shot on test" in result.summary()
    loaded = TuneResult.load(tmp_path / "run")
    assert loaded.predicted["truth"].tolist() == [1.0] * 16
    assert loaded.predicted["tuned"].mean() == result.scores["tuned"].test.value
    assert 0 < loaded.predicted["majority"].mean() == result.scores["majority"].test.value < 1


@pytest.mark.parametrize("how", [{"race": 2}, {"minibatch": 3}, {"race": 1, "minibatch": 3}, {"search": "genetic"}])
def test_races_and_minibatches_work_on_answers_too(make: MakeJob, tmp_path: Path, how: dict[str, Any]) -> None:
    with ScriptedUpstream(script=answering) as upstream:
        result = run(make(api(upstream.url), method=how, budget={"evaluations": 40}), tmp_path / "run")
    assert result.scores["tuned"].test.value == 1.0


def test_a_run_over_an_api_that_was_cut_off_ends_as_if_it_had_not_been(make: MakeJob, tmp_path: Path) -> None:
    with ScriptedUpstream(script=answering) as upstream:
        spec = make(api(upstream.url), method={"race": 2})
        with pytest.raises(KeyboardInterrupt):
            run(spec, tmp_path / "cut", Witness(2, interrupt))
        cut = resume(tmp_path / "cut")
        assert cut.paid.requests == upstream.requests
        whole = run(spec, tmp_path / "whole")
        assert whole.paid.requests == 0
        assert cut.paid.requests == upstream.requests
    check_same(tmp_path / "cut", tmp_path / "whole")


@pytest.fixture(scope="module")
def here(make_local: MakeJob, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of a tiny model in this process, by a pattern that some of its answers have."""
    folder = tmp_path_factory.mktemp("here") / "run"
    run(make_local(), folder)
    return folder


@pytest.fixture(scope="module")
def make_local(tiny_models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> MakeJob:
    table = tmp_path_factory.mktemp("local") / "qa.csv"
    rows = [f"the {word} {i}?,[{'aeiou'[i % 5]}l]" for i, word in enumerate(["parcel", "film", "story", "kettle"] * 8)]
    table.write_text("\n".join(["question,answer", *rows]))

    def local(**parts: Any) -> BaseJob:
        columns = {"text": "question", "label": "answer"}
        raw: dict[str, Any] = {
            "name": "local",
            "task": {"source": f"file:{table}", "columns": columns, "metric": "regex", "shots": 6, "holdout": 0.2},
            "backbone": {"model": f"path:{tiny_models['llama']}"},
            "prompt": {"kind": "text", "instructions": ["a great film", "the bill is wrong", "terrible sound", "good"]},
            "method": {"search": "random", "population": 3},
            "budget": {"evaluations": 9},
            "tracking": {"enabled": False},
        }
        return parsed({**raw, **parts})

    return local


def test_a_model_in_this_process_is_tuned_to_answers_as_well(here: Path) -> None:
    result = TuneResult.load(here)
    losses = [point.best_loss for point in result.curve if point.best_loss is not None]
    assert all(0 <= loss <= 1 for loss in losses)
    assert len({*result.predicted["tuned"]} | {*result.predicted["zero_shot"]}) == 2
    assert set(result.predicted["tuned"]) <= {0.0, 1.0}
    scores = [record for record in read_journal(here / "journal.jsonl") if record["event"] == "scores"]
    assert any(len(set(record["loss"])) > 1 for record in scores)
    for record in scores:
        np.testing.assert_allclose(1 - np.array(record["loss"]), record["metric"])


@pytest.mark.parametrize("kept", [1, 2, 4, 6])
def test_a_local_run_goes_on_from_any_line_of_its_journal(here: Path, tmp_path: Path, kept: int) -> None:
    folder = tmp_path / "run"
    shutil.copytree(here, folder)
    (folder / "result.json").unlink()
    journal = folder / "journal.jsonl"
    journal.write_text("".join(journal.read_text().splitlines(keepends=True)[:kept]))
    resume(folder)
    check_same(folder, here)


def test_predict_says_what_the_model_answers(here: Path) -> None:
    with Predictor(TuneResult.load(here)) as predictor:
        one, other = predictor.predict(["the kettle 90?", "the film 91?"])
        assert predictor.predict([]) == []
    assert one.probability is None
    out = CliRunner().invoke(app, ["predict", str(here), "the kettle 90?", "the film 91?"])
    assert out.exit_code == 0
    shown = [" ".join(prediction.label.split()) for prediction in (one, other)]
    assert out.stdout == f"{shown[0]}\tthe kettle 90?\n{shown[1]}\tthe film 91?\n"


def test_predict_asks_the_endpoint_with_the_tuned_prompt(make: MakeJob, tmp_path: Path) -> None:
    question, answer = ROWS[17]
    with ScriptedUpstream(script=answering) as upstream:
        run(make(api(upstream.url), budget={"evaluations": 20}), tmp_path / "run")
        out = CliRunner().invoke(app, ["predict", str(tmp_path / "run"), question])
    assert out.stdout == f"{answer}\t{question}\n"


def test_runs_on_answers_are_compared_with_each_other_and_with_the_constant_answer(
    make: MakeJob, tmp_path: Path
) -> None:
    with ScriptedUpstream(script=answering) as upstream:
        for name, search in (("one", "random"), ("two", "genetic")):
            parts = {"method": {"search": search}, "budget": {"evaluations": 20}}
            run(make(api(upstream.url), name=name, **parts), tmp_path / "runs" / name)
    found = compare([tmp_path / "runs"])
    by_label = {line.label: line.test.value for line in found.lines}
    assert by_label["random"] == by_label["genetic"] == 1.0
    assert 0 < by_label["majority"] < 1
    assert by_label["zero-shot"] < 1
    assert any("majority of answers in words is the most frequent answer of train" in note for note in found.notes)


def test_a_style_that_a_job_demands_is_used(make: MakeJob, tmp_path: Path) -> None:
    bodies: list[Body] = []

    def script(body: Body) -> Body:
        bodies.append(body)
        return answering(body)

    with ScriptedUpstream(script=script) as upstream:
        spec = make(api(upstream.url, style="completion"), prompt={"demonstrations": 0})
        result = run(spec, tmp_path / "run")
        said = probe_job(spec)
    asked = [body for body in bodies if prompt_of(body).endswith("Answer:")]
    assert asked
    assert all(body["stop"] == ["\n"] and body["max_tokens"] == ANSWER_TOKENS for body in asked)
    assert not any("Words:" in prompt_of(body) for body in bodies)
    assert said[-1] == "used: the words of the answer of completions, at most 16 tokens"
    assert result.scores["tuned"].test.value > result.scores["zero_shot"].test.value


def test_what_answers_cost_is_forecast(make: MakeJob) -> None:
    spec = make(api("http://of-the-tests/v1", price={"input": 1.0, "output": 2.0}))
    row = re.search(r"^test, tuned +(\d+) +(\d+) +\d+ +(\d+)", dry_run(spec), re.MULTILINE)
    assert row is not None
    assert [int(number) for number in row.groups()] == [16, 16, 16 * ANSWER_TOKENS]


CONTINUOUS: dict[str, Any] = {"prompt": None, "method": None}
BASELINE: dict[str, Any] = {"prompt": None, "method": None, "baseline": {"name": "zero-shot"}}
API = api("http://of-the-tests/v1", read="label-logprobs")
NEEDS_ANSWERS = {"search": "instruct-zero", "writer": {"model": "cache:none"}}


@pytest.mark.parametrize(
    ("parts", "path", "said"),
    [
        ({"task": {"label_words": ["a", "b"]}}, "task.label_words", "metric token_f1 scores answers in words, got ["),
        ({"task": {"labels": ["a", "b"]}}, "task.labels", "expected none"),
        ({"task": {"positive_label": "a"}}, "task.positive_label", "expected none"),
        ({"prompt": {"keywords": 2}}, "prompt.keywords", "keywords are what tells labels apart, got 2"),
        ({"prompt": {"label_words": [["a", "b"]]}}, "prompt.label_words", "metric token_f1 knows no labels"),
        ({"method": {"loss": "hinge"}}, "method.loss", "the loss of an answer in words is 1 - its score"),
        ({"task": {"metric": "regex"}}, "prompt.demonstrations", "a regular expression is no answer to show"),
        ({"task": {"metric": "regex"}, "method": NEEDS_ANSWERS}, "method.search", "expected one that shows no answers"),
        ({"backbone": API}, "backbone.api.read", "expected auto or generated, answers in words are generated, got"),
        (CONTINUOUS, "task.metric", "expected a metric of labels with a continuous prompt, got token_f1"),
        (BASELINE, "task.metric", "expected a metric of labels with zero-shot, got token_f1"),
    ],
)
def test_what_does_not_go_with_answers_in_words_is_a_fault(
    table: Path, tiny_models: dict[str, Path], parts: dict[str, Any], path: str, said: str
) -> None:
    given = {"backbone": {"model": f"path:{tiny_models['llama']}"}, **parts}
    baseline = given.pop("baseline", None)
    raw = raw_job(table, **given) | ({"method": baseline} if baseline else {})
    assert said in {fault.path: fault.message for fault in validate(raw)}[path]
    with pytest.raises(JobError):
        run(raw)


def test_a_continuous_prompt_is_told_one_fault_alone(table: Path, tiny_models: dict[str, Path]) -> None:
    (fault,) = validate(raw_job(table, {"model": f"path:{tiny_models['bert']}"}, **CONTINUOUS))
    assert fault.message.endswith("tune a prompt in words: prompt.kind text, and a search as method")


def test_a_model_that_was_taught_to_chat_is_chatted_with(
    make: MakeJob, tiny_models: dict[str, Path], tmp_path: Path
) -> None:
    styles = {}
    for name, folder in (
        ("plain", tiny_models["llama"]),
        ("chat", chatting_copy(tiny_models["llama"], tmp_path / "m")),
    ):
        plan, task, _ = make_plan(make({"model": f"path:{folder}"}))
        assert isinstance(plan, TextPlan)
        (tmp_path / name).mkdir()
        with closing(TextModels(plan, tmp_path / name)) as models:
            reader, said = models.reader(models.probe(), task.metric)
        styles[name] = reader.style
        assert said == []
    assert styles == {"plain": "completion", "chat": "chat"}


def test_a_style_that_the_server_lacks_is_told() -> None:
    spec = ApiSpec(base_url="http://of-the-tests/v1", model="tiny", style="chat")
    with pytest.raises(
        EndpointError, match="style: chat, read: auto is possible, but it does not answer in style chat"
    ):
        choose_free_form(Abilities(chat=False, completion=True), spec, token_f1)
