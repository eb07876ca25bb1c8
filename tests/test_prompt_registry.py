"""The prompt of a search in words, in MLflow's Prompt Registry, and what was paid for it, in its metrics."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow.entities.model_registry import PromptVersion
from mlflow.prompt import constants
from mlflow.tracing.constant import TraceTagKey
from scripted_upstream import ScriptedUpstream
from test_tracking import Server, free_port

from bbtune import api, prompt_registry
from bbtune.cost import Spent
from bbtune.errors import TrackingError
from bbtune.jobfile import parse_job
from bbtune.loop import Cost
from bbtune.plan import Reading
from bbtune.prompt_registry import mlflow_template
from bbtune.prompts.text import TextPrompt
from bbtune.result import Scored, TuneResult
from bbtune.spec import BaseJob
from bbtune.task.metrics import Estimate
from bbtune.task.task import Example
from bbtune.task.template import Template
from bbtune.tracked_metrics import money_metrics, result_metrics
from bbtune.tracking import RunCard, send_all

WORDS = (("bad", "poor"), ("great",))
READING = Reading("single", "{text} . it was {mask}", WORDS, "Be {brief}.\n\n")
PAID = Spent(30, 4, 2000, 60, 0.25)
API: dict[str, Any] = {"base_url": "http://of-the-tests/v1", "model": "tiny", "price": {"input": 1.0, "output": 2.0}}


def text_job(name: str = "words", **parts: Any) -> BaseJob:
    raw: dict[str, Any] = {
        "name": name,
        "task": {"source": "folder:/nowhere"},
        "backbone": {"api": API},
        "prompt": {"kind": "text"},
        "budget": {"evaluations": 40},
        "tracking": {"experiment": name},
    }
    spec, faults, _ = parse_job({**raw, **parts})
    assert spec is not None
    assert not faults, faults
    return spec


def made_up(spec: BaseJob, tuned: float = 0.75) -> TuneResult:
    """A result as a search on four texts would have it."""
    scores = {name: Estimate(value, value, value) for name, value in (("zero_shot", 0.5), ("tuned", tuned))}
    return TuneResult(
        spec=spec,
        labels=("bad", "great"),
        metric="accuracy",
        learned={"z": np.zeros((1, 1))},
        parameters=1,
        stop_reason="budget.evaluations",
        cost=Cost(40, 160, seconds=2.0, requests=20, cached=3, input_tokens=1500, output_tokens=40, dollars=0.2),
        scores={name: Scored(dev=score, test=score) for name, score in scores.items()},
        gain=Estimate(0.25, 0.0, 0.5),
        predicted={name: np.array([0, 1, 0, 1]) for name in ("truth", "zero_shot", "tuned")},
        curve=(),
        seeds={"job": 0, "task": 13},
        versions={},
        fingerprints={"task": "a" * 64, "test": "b" * 64, "model": "c" * 64},
        task="tiny",
        reading=READING,
        peak_memory_mib=1.0,
        stopped_ms=1_700_000_000_000,
        paid=PAID,
    )


def send(uri: str, result: TuneResult, folder: Path, uid: str) -> str:
    folder.mkdir(exist_ok=True)
    dataset = {"name": result.task, "digest": "a" * 32, "source": "folder:/nowhere"}
    card = RunCard(uid, result.spec, {}, dataset, result.stopped_ms - 5000)
    return send_all(folder, card, [], result, uri)


def versions(uri: str, name: str) -> list[Any]:
    """All versions of a prompt, the newest first."""
    return list(mlflow.MlflowClient(uri).search_prompt_versions(name))


@contextmanager
def no_alias_can_be_set(uri: str) -> Iterator[None]:
    """The database refuses aliases."""
    refuse = "BEFORE INSERT ON registered_model_aliases BEGIN SELECT RAISE(ABORT, 'no aliases today'); END"
    with closing(sqlite3.connect(uri.removeprefix("sqlite:///"))) as database:
        database.execute(f"CREATE TRIGGER refusing {refuse}")
        database.commit()
        try:
            yield
        finally:
            database.execute("DROP TRIGGER refusing")
            database.commit()


@pytest.mark.parametrize(
    ("reading", "template"),
    [
        (READING, "Be {brief}.\n\n{{ text }} . it was"),
        (Reading("single", "{text}", WORDS), "{{ text }}"),
        (Reading("single", "{text} ", WORDS), "{{ text }}"),
        (Reading("single", "say {{yes}}: {text} {mask}", WORDS), "say {yes}: {{ text }}"),
        (Reading("pair", "{text_a} ? {text_b} {mask} .", WORDS, "So:\n"), "So:\n{{ text_a }} ? {{ text_b }}"),
        (
            Reading("single", "{text} {mask}", WORDS, "{{ no field }}\n\n"),
            "{% raw %}{{ no field }}\n\n{% endraw %}{{ text }}",
        ),
    ],
)
def test_a_prompt_is_written_as_mlflow_writes_them(reading: Reading, template: str) -> None:
    assert mlflow_template(reading) == template


PIECES = st.text(st.sampled_from("{}% #\\\nab."), max_size=12).filter(lambda text: "endraw" not in text)


@settings(deadline=None)
@given(preamble=PIECES, before=PIECES, after=PIECES, text=PIECES.map(lambda text: f"({text})"), mask=st.booleans())
def test_what_mlflow_formats_is_what_the_model_was_asked(
    preamble: str, before: str, after: str, text: str, mask: bool
) -> None:
    escaped = [part.replace("{", "{{").replace("}", "}}") for part in (before, after)]
    template = Template(f"{escaped[0]}{{text}}{escaped[1]}" + "{mask} and so on" * mask)
    asked = TextPrompt(preamble, template, WORDS).render(Example(text, None, 0), 1000)
    prompt = PromptVersion("p", 1, mlflow_template(Reading("single", template.text, WORDS, preamble)))
    assert prompt.format(text=text) == asked


def test_the_tags_that_mlflow_reads_have_these_names() -> None:
    assert prompt_registry._IS_PROMPT == constants.IS_PROMPT_TAG_KEY
    assert prompt_registry._EXPERIMENTS == constants.PROMPT_EXPERIMENT_IDS_TAG_KEY
    assert prompt_registry._LINKED == TraceTagKey.LINKED_PROMPTS


def test_a_prompt_is_registered_once_with_all_that_is_known_of_it(
    mlflow_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    result, client = made_up(text_job("once")), mlflow.MlflowClient(mlflow_database)
    runs = {send(mlflow_database, result, tmp_path / "run", "uid-1") for _ in range(3)}
    (version,) = versions(mlflow_database, "once")
    run = client.get_run(runs.pop())
    assert not runs
    assert version.template == "Be {brief}.\n\n{{ text }} . it was"
    assert version.tags == {
        "bbtune.uid": "uid-1",
        "bbtune.spec_hash": result.spec.spec_hash,
        "bbtune.task": "tiny",
        "bbtune.model": "http://of-the-tests/v1 tiny",
        "bbtune.metric": "accuracy",
        "bbtune.dev_score": "0.7500",
        "bbtune.test_score": "0.7500",
        "bbtune.label_words": json.dumps(WORDS),
    }
    assert run.data.tags["bbtune.prompt"] == "prompts:/once/1"
    assert json.loads(run.data.tags["mlflow.linkedPrompts"]) == [{"name": "once", "version": "1"}]
    assert run.info.status == "FINISHED"
    assert [prompt.name for prompt in client.search_prompts(f"experiment_id = '{run.info.experiment_id}'")] == ["once"]
    assert not (tmp_path / "mlflow.db").exists()  # nothing went to the default database


def test_the_alias_follows_the_newest_version_and_is_not_taken_back(
    mlflow_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_database)
    spec, client = text_job("follows"), mlflow.MlflowClient(mlflow_database)

    def tuned() -> int:
        return int(mlflow.genai.load_prompt("prompts:/follows@tuned", cache_ttl_seconds=0).version)

    for turn in (1, 2):
        send(mlflow_database, made_up(spec), tmp_path / "run", f"uid-{turn}")
        assert tuned() == turn
    send(mlflow_database, made_up(spec), tmp_path / "run", "uid-1")
    assert tuned() == 2
    client.set_prompt_alias("follows", "tuned", 1)  # by hand
    send(mlflow_database, made_up(spec), tmp_path / "run", "uid-2")
    assert tuned() == 1
    assert len(versions(mlflow_database, "follows")) == 2


def test_what_the_registry_lacks_is_completed_later(mlflow_database: str, tmp_path: Path) -> None:
    result, client = made_up(text_job("later")), mlflow.MlflowClient(mlflow_database)
    with no_alias_can_be_set(mlflow_database), pytest.raises(TrackingError, match="no aliases today"):
        send(mlflow_database, result, tmp_path / "run", "uid-1")
    run_id = send(mlflow_database, result, tmp_path / "run", "uid-1")
    assert client.get_prompt_version_by_alias("later", "tuned").version == 1
    assert client.get_run(run_id).data.tags["bbtune.prompt"] == "prompts:/later/1"
    assert len(versions(mlflow_database, "later")) == 1


def test_a_model_of_the_same_name_is_told_and_the_rest_of_the_record_is_there(
    mlflow_database: str, tmp_path: Path
) -> None:
    client = mlflow.MlflowClient(mlflow_database)
    client.create_registered_model("taken")
    with pytest.raises(TrackingError, match=r"has not given to a model, got 'taken'; change the name"):
        send(mlflow_database, made_up(text_job("taken")), tmp_path / "run", "uid-1")
    (run,) = client.search_runs([client.get_experiment_by_name("taken").experiment_id])
    assert run.info.status == "FINISHED"
    assert "test_tuned" in run.data.metrics


def test_searches_of_vectors_register_nothing(make_job: Any, mlflow_database: str, tmp_path: Path) -> None:
    spec = make_job("bert", tracking={"experiment": "vectors"})
    run_id = send(mlflow_database, made_up(spec), tmp_path / "run", "uid-1")
    client = mlflow.MlflowClient(mlflow_database)
    assert client.get_prompt(spec.name) is None
    assert not any("prompt" in tag for tag in client.get_run(run_id).data.tags)


def test_money_is_told_where_an_api_is_asked_and_nowhere_else(make_job: Any) -> None:
    result = made_up(text_job())
    sent, generation = result_metrics(result), money_metrics(result.cost, result.spec)
    assert generation == {"requests": 20.0, "cached": 3.0, "tokens": 1540.0, "dollars": 0.2}
    assert {name: value for name, value in sent.items() if name.startswith("paid")} == {
        "paid_requests": 30.0,
        "paid_cached": 4.0,
        "paid_input_tokens": 2000.0,
        "paid_output_tokens": 60.0,
        "paid_dollars": 0.25,
    }
    assert sent.items() >= generation.items()
    free = replace(result, spec=make_job("bert"))
    money = {name for name in sent if name.startswith("paid") or name in generation}
    assert not money & set(result_metrics(free))
    assert money_metrics(free.cost, free.spec) == {}


def test_dollars_are_told_where_the_job_gives_a_price() -> None:
    result = made_up(text_job(backbone={"api": {key: value for key, value in API.items() if key != "price"}}))
    assert not any("dollars" in name for name in result_metrics(result))
    assert result_metrics(result)["paid_requests"] == 30.0


def test_what_a_writer_is_paid_counts_where_the_model_is_here() -> None:
    spec = text_job(backbone={"model": "path:/nowhere"}, method={"search": "genetic", "writer": {"api": API}})
    sent = result_metrics(made_up(spec))
    assert sent["paid_dollars"] == 0.25
    assert "requests" not in sent


def test_a_search_leaves_a_prompt_that_can_be_loaded_and_asked(
    make_job: Any, tiny_models: dict[str, Path], mlflow_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_database)
    name = "whole-search"
    prompt = {"kind": "text", "instructions": ["Say how it was.", "good or bad"]}
    here = {"model": f"path:{tiny_models['llama']}"}
    raw = make_job("bert").model_dump(mode="json") | {"name": name, "prompt": prompt, "backbone": here}
    raw |= {"method": {"search": "genetic", "population": 3}, "budget": {"evaluations": 6}}
    result = api.run({**raw, "tracking": {"experiment": name}}, "run")
    api.sync("run")
    (version,) = versions(mlflow_database, name)
    loaded = mlflow.genai.load_prompt(f"prompts:/{name}@tuned")
    assert loaded.template == version.template
    assert loaded.format(text="a film") == f"{result.reading.preamble}a film . it was"
    client = mlflow.MlflowClient(mlflow_database)
    run = client.search_runs([client.get_experiment_by_name(name).experiment_id])[0]
    assert run.data.tags["bbtune.prompt"] == f"prompts:/{name}/1"
    assert not {"requests", "paid_requests"} & set(run.data.metrics)


def test_a_search_by_an_api_shows_what_it_paid_as_it_went(
    tiny_task: Path, mlflow_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BBTUNE_CACHE", str(tmp_path / "cache"))
    name, client = "asking", mlflow.MlflowClient(mlflow_database)
    with ScriptedUpstream() as upstream:
        job = text_job(
            name,
            task={"source": f"folder:{tiny_task}"},
            backbone={"api": {**API, "base_url": upstream.url}},
            method={"search": "genetic", "population": 3},
            budget={"evaluations": 6},
            tracking={"uri": mlflow_database, "experiment": name},
        )
        result = api.run(job, "run")
    (run,) = client.search_runs([client.get_experiment_by_name(name).experiment_id])
    curves = {}
    for metric in ("requests", "cached", "tokens", "dollars"):
        points = client.get_metric_history(run.info.run_id, metric)
        curves[metric] = [point.value for point in sorted(points, key=lambda point: (point.step, point.timestamp))]
        assert curves[metric] == sorted(curves[metric])
    assert len(curves["requests"]) == 4  # the start, two generations, the end
    assert curves["tokens"][0] > 0
    assert run.data.metrics["paid_requests"] == result.paid.requests > curves["requests"][-1]
    assert run.data.metrics["paid_dollars"] == pytest.approx(result.paid.dollars)
    assert run.data.tags["bbtune.prompt"] == f"prompts:/{name}/1"


@pytest.mark.slow
def test_a_server_takes_a_prompt_as_a_database_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")  # the first answer of a new server can take long
    server = Server(tmp_path, free_port())
    server.start()
    try:
        for turn in (1, 1, 2):
            send(server.uri, made_up(text_job("served")), tmp_path / "run", f"uid-{turn}")
        assert [version.version for version in versions(server.uri, "served")] == [2, 1]
        assert mlflow.MlflowClient(server.uri).get_prompt_version_by_alias("served", "tuned").version == 2
    finally:
        server.kill()
