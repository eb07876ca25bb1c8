"""Whole searches for a prompt in words against an API: cut, faulty, dear, and still exact."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fault_proxy import Fault, FaultProxy
from logged import everything_logged
from paid import on_disk
from records import recorded
from scripted_upstream import Body, ScriptedUpstream
from small_task import TEXTS
from text_runs import MakeTextJob, answers_of, check_same, job_of, judge, scores_in, trace
from views import Witness, interrupt

from bbtune import api, cli
from bbtune.backbone_spec import BackboneSpec
from bbtune.endpoint.endpoint import Endpoint
from bbtune.endpoint.pace import Pace
from bbtune.errors import BbtuneError, EndpointError
from bbtune.evaluation.local_text import LocalText
from bbtune.journal import read_journal
from bbtune.predictor import Predictor
from bbtune.result import TuneResult
from bbtune.spec import TextJob

FAULTS: dict[Fault, float] = {"429-retry-after": 0.02, "429": 0.02, "500": 0.02, "slow": 0.01}
FAULTS |= {"cut": 0.02, "garbage": 0.02}
PRICE = {"input": 150.0, "output": 600.0}


@pytest.fixture(autouse=True)
def _apart(tmp_path, monkeypatch):
    """A cache of its own for every test, and no plots."""
    monkeypatch.setenv("BBTUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("bbtune.session.plot_run", lambda *_: None)


@pytest.fixture
def job(tiny_task, upstream) -> MakeTextJob:
    """Jobs that ask the upstream."""
    return lambda **parts: job_of(tiny_task, upstream.url, **parts)


@pytest.fixture
def command(monkeypatch, capsys) -> Callable[..., tuple[int, str, str]]:
    """``bbtune ARGUMENTS``: exit code, output and errors."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["bbtune", *map(str, arguments)])
        with pytest.raises(SystemExit) as ending:
            cli.main()
        return int(ending.value.code or 0), *capsys.readouterr()

    return run


def fresh_cache(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setenv("BBTUNE_CACHE", str(folder))


@contextmanager
def at(upstream: ScriptedUpstream, address: str) -> Iterator[None]:
    """Endpoints connect to another address than the job names: the place of a run decides its record."""
    with pytest.MonkeyPatch.context() as patch:
        from bbtune.endpoint.client import Client

        begin = Client.__init__

        def moved(self: Client, base_url: str, *rest: Any) -> None:
            begin(self, address if base_url == upstream.url else base_url, *rest)

        patch.setattr(Client, "__init__", moved)
        yield


def test_over_a_faulty_line_a_run_finds_what_it_finds_over_a_clean_one(job, upstream, tmp_path, monkeypatch):
    clean = api.run(job(), tmp_path / "clean")
    fresh_cache(monkeypatch, tmp_path / "other-cache")
    with FaultProxy(upstream.url, FAULTS, seed=3) as proxy, at(upstream, proxy.url):
        found = api.run(job(backbone={"api": {"attempts": 12}}), tmp_path / "faulty")
        assert all(proxy.done[fault] for fault in FAULTS)
        assert found.paid.requests == proxy.requests
    check_same(tmp_path / "clean", tmp_path / "faulty")
    assert clean.stop_reason == found.stop_reason == "budget.evaluations"
    assert found.paid.requests > clean.paid.requests
    assert found.gain.value > 0


MANY = {"evaluations": 400}
CAPS: list[tuple[str, float, Any]] = [
    ("requests", 90, lambda upstream: upstream.requests),
    ("tokens", 5000, lambda upstream: upstream.input + upstream.output),
    ("dollars", 0.8, lambda upstream: (150 * upstream.input + 600 * upstream.output) / 1e6),
]


@pytest.mark.parametrize(("cap", "most", "charged"), CAPS, ids=[cap for cap, _, _ in CAPS])
@pytest.mark.parametrize("style", ["completion", "chat"])
def test_a_cap_on_money_holds_and_leaves_enough_for_the_test_split(style, cap, most, charged, job, upstream, tmp_path):
    more = {"style": style, "price": PRICE}
    result = api.run(job(budget={**MANY, cap: most}, backbone={"api": more}), tmp_path / "run")
    assert result.stop_reason == f"budget.{cap}"
    assert charged(upstream) <= most + 1e-9
    assert result.paid.requests == upstream.requests
    assert (result.paid.input_tokens, result.paid.output_tokens) == (upstream.input, upstream.output)
    assert len(trace(tmp_path / "run")) > 3  # generations among them
    assert len(result.predicted["tuned"]) == 8


def test_without_a_cache_enough_is_left_to_ask_the_dev_split_again(job, upstream, tmp_path):
    spec = job(budget={**MANY, "requests": 130}, backbone={"api": {"cache": False}})
    assert api.run(spec, tmp_path / "run").stop_reason == "budget.requests"
    assert upstream.requests <= 130


@pytest.mark.parametrize(("cap", "most"), [("examples", 100), ("evaluations", 9), ("seconds", 0.3)])
def test_a_cap_on_work_holds(cap, most, job, tmp_path):
    result = api.run(job(budget={"evaluations": None, cap: most}), tmp_path / "run")
    assert result.stop_reason == f"budget.{cap}"
    assert 0 < getattr(result.cost, cap) <= most
    assert api.resume(tmp_path / "run").cost == result.cost


@pytest.mark.slow
def test_the_seconds_end_a_generation_whose_instructions_are_being_written(job, upstream, tmp_path, monkeypatch):
    """The writer's endpoint is down, and would be asked for a minute."""
    with FaultProxy(upstream.url, {"429": 1.0}) as down:
        api_ = {"base_url": down.url, "model": "tiny", "patience_s": 60.0}
        spec = job(budget={"evaluations": None, "seconds": 5.0}, method={"writer": {"api": api_}})
        assert api.run(spec, tmp_path / "run").stop_reason == "budget.seconds"
        assert down.requests > 0
    assert trace(tmp_path / "run")[-1][-1] == "budget.seconds"


@pytest.mark.parametrize("cap", ["requests", "tokens"])
def test_over_a_faulty_line_a_cap_holds_and_a_larger_one_ends_the_run(cap, job, upstream, tmp_path):
    most = {"requests": 120, "tokens": 6000}[cap]
    spec = job(budget={**MANY, cap: most}, backbone={"api": {"attempts": 12}})
    with FaultProxy(upstream.url, FAULTS, seed=4) as proxy, at(upstream, proxy.url):
        try:
            assert api.run(spec, tmp_path / "run").stop_reason == f"budget.{cap}"
        except BbtuneError as error:  # so much was lost that nothing was left for the test split
            assert f"--set budget.{cap}=MORE" in str(error)  # noqa: PT017
        assert {"requests": proxy.requests, "tokens": upstream.input + upstream.output}[cap] <= most
        result = api.resume(tmp_path / "run", [f"budget.{cap}=50000"])
    assert result.stop_reason == f"budget.{cap}"


def check_goes_on(folder: Path, cap: str) -> None:
    """Resume as the error says."""
    with pytest.raises(BbtuneError, match=rf"budget\.{cap} ended .*bbtune resume \S+ --set budget\.{cap}=MORE"):
        api.resume(folder)
    assert api.resume(folder, [f"budget.{cap}=400"]).paid.requests <= 400


@pytest.mark.parametrize("least", [5, 33])
def test_a_budget_too_small_to_begin_is_said_and_a_larger_one_goes_on(least, job, upstream, tmp_path):
    with pytest.raises(BbtuneError, match=r"budget\.requests ended (while it was found out|before the starting)"):
        api.run(job(budget={"requests": least}), tmp_path / "run")
    assert upstream.requests <= least
    check_goes_on(tmp_path / "run", "requests")
    api.run(job(), tmp_path / "whole")
    check_same(tmp_path / "run", tmp_path / "whole")


def test_a_line_that_eats_what_was_left_for_the_test_split_is_said_and_a_larger_budget_goes_on(
    job, upstream, tmp_path, monkeypatch
):
    spec = job(budget={"requests": 110}, backbone={"api": {"attempts": 60}})
    api.run(spec.model_copy(update={"budget": job().budget}), tmp_path / "whole")
    fresh_cache(monkeypatch, tmp_path / "other-cache")
    with FaultProxy(upstream.url, {"429": 0.0}) as proxy, at(upstream, proxy.url):

        class Spoiling(Witness):
            def say(self, text: str) -> None:
                if text.startswith("scoring"):
                    proxy.spoil({"429": 0.8})

        with pytest.raises(BbtuneError, match=r"budget\.requests ended while the test split was scored"):
            api.run(spec, tmp_path / "run", Spoiling())
        assert proxy.requests <= 110
        proxy.spoil({})
        check_goes_on(tmp_path / "run", "requests")
    search = trace(tmp_path / "run")[:-1]
    assert search == trace(tmp_path / "whole")[: len(search)]


CHILD = """
import sys
import bbtune.session
from bbtune.cli import main

bbtune.session.plot_run = lambda *_: None
{also}
sys.argv[0] = "bbtune"
main()
"""
# Ends itself once it has kept an answer, before it has been settled.
BETWEEN = """
import os
from bbtune.endpoint.purse import Purse

settle, count = Purse.settle, [0]

def killed(self, ticket, used):
    count[0] += 1
    if count[0] == {number}:
        os.kill(os.getpid(), 9)
    settle(self, ticket, used)

Purse.settle = killed
"""


def child(spec: TextJob, folder: Path, also: str = "") -> subprocess.Popen[bytes]:
    """``bbtune run`` in a process of its own."""
    file = folder.with_suffix(".yaml")
    file.write_text(spec.to_yaml())
    arguments = [sys.executable, "-c", CHILD.format(also=also), "run", str(file), "--out", str(folder)]
    return subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def killed_while_it_waits(upstream: ScriptedUpstream, spec: TextJob, folder: Path, after: int, flying: int) -> None:
    """Kill a run once all that it has in flight is held."""
    upstream.hold_after(after)
    process = child(spec, folder)
    assert all(upstream.held.acquire(timeout=120) for _ in range(flying))
    process.send_signal(signal.SIGKILL)
    process.wait()
    upstream.answer_again()


@pytest.mark.parametrize(
    ("after", "flying"),
    [
        pytest.param(30, 3, id="a generation"),
        pytest.param(5, 1, id="the probe", marks=pytest.mark.slow),
        pytest.param(70, 3, id="a later one", marks=pytest.mark.slow),
    ],
)
def test_after_kill_9_a_run_finds_the_same_and_buys_nothing_twice(after, flying, job, upstream, tmp_path, monkeypatch):
    whole = api.run(job(), tmp_path / "whole")
    fresh_cache(monkeypatch, tmp_path / "other-cache")
    once = upstream.begin_to_count()
    spec = job(backbone={"api": {"concurrency": 3}})
    killed_while_it_waits(upstream, spec, tmp_path / "cut", after, flying)
    assert upstream.requests == after
    resumed = api.resume(tmp_path / "cut")
    check_same(tmp_path / "cut", tmp_path / "whole")
    assert upstream.answered == once
    assert resumed.paid.requests == whole.paid.requests + flying


def test_a_kill_between_keeping_and_settling_counts_the_answer_and_does_not_buy_it_again(
    job, upstream, tmp_path, monkeypatch
):
    whole = api.run(job(), tmp_path / "whole")
    fresh_cache(monkeypatch, tmp_path / "other-cache")
    once = upstream.begin_to_count()
    spec = job(backbone={"api": {"concurrency": 1}})
    assert child(spec, tmp_path / "cut", BETWEEN.format(number=40)).wait() == -signal.SIGKILL
    assert upstream.requests == 40
    resumed = api.resume(tmp_path / "cut")
    check_same(tmp_path / "cut", tmp_path / "whole")
    assert upstream.answered == once
    assert resumed.paid.requests == whole.paid.requests
    assert resumed.paid.input_tokens > whole.paid.input_tokens  # what was not settled counts at the most


@pytest.mark.slow
def test_after_kill_9_a_run_without_a_cache_buys_only_the_generation_in_flight_again(job, upstream, tmp_path):
    spec = job(backbone={"api": {"concurrency": 3, "cache": False}})
    api.run(spec, tmp_path / "whole")
    once = upstream.begin_to_count()
    killed_while_it_waits(upstream, spec, tmp_path / "cut", 65, 3)
    kept = {record["event"] for record in read_journal(tmp_path / "cut" / "journal.jsonl")}
    assert {"probe", "scores"} <= kept
    api.resume(tmp_path / "cut")
    check_same(tmp_path / "cut", tmp_path / "whole")
    again = upstream.answered - once
    assert once == upstream.answered - again
    assert 0 < again.total() < 4 * 8
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("search", ["genetic", "genetic with a writer"])
def test_a_finished_job_runs_again_in_another_folder_for_nothing(search, job, upstream, tmp_path):
    api_ = {"base_url": upstream.url, "model": "tiny"}
    spec = job(**({"method": {"writer": {"api": api_}}} if "writer" in search else {}))
    api.run(spec, tmp_path / "one")
    before = upstream.requests
    again = api.run(spec, tmp_path / "two")
    assert upstream.requests == before
    assert (again.paid.requests, again.paid.dollars) == (0, 0.0)
    assert again.paid.cached > before
    check_same(tmp_path / "one", tmp_path / "two")


KEY = "sk-never-on-disk-0123456789"


def chatty(body: Body) -> Body:
    """The model, which repeats the key in all that it says."""
    answer = judge(body)
    choice = answer["choices"][0]
    if "message" in choice and body["max_tokens"] > 1:
        choice["message"]["content"] += f" {KEY}"
    choice["why"] = {f"Bearer {KEY}": [f"because of {KEY}"]}
    return answer | {"usage": {**answer["usage"], "key": KEY}}


@pytest.mark.parametrize("tracked", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["apart", "in MLflow"])
def test_the_key_is_in_no_file_log_record_or_text_whatever_fails(tracked, tiny_task, command, tmp_path, monkeypatch):
    monkeypatch.setenv("OF_THE_TEST", KEY)
    monkeypatch.chdir(tmp_path)
    told = []

    def ended(*arguments: object) -> int:
        code, *said = command(*arguments)
        told.extend(said)
        return code

    with (
        everything_logged(tmp_path / "all.log"),
        ScriptedUpstream(script=chatty, key=KEY) as upstream,
        FaultProxy(upstream.url, {"wrong-key": 1.0}, echo_key=True) as proxy,
    ):
        api_ = {"base_url": proxy.url, "model": "tiny", "api_key_env": "OF_THE_TEST", "attempts": 3, "patience_s": 0.3}
        spec = job_of(
            tiny_task,
            proxy.url,
            backbone={"api": api_},
            method={"writer": {"api": {**api_, "style": "chat"}}},
            budget={"requests": 1000},
            tracking={"enabled": tracked, "uri": f"sqlite:///{tmp_path / 'mlflow.db'}"},
        )
        (tmp_path / "job.yaml").write_text(spec.to_yaml())
        run = tmp_path / "run"
        assert ended("run", tmp_path / "job.yaml", "--out", run) == 1  # a wrong key
        proxy.spoil({"500": 1.0})
        assert ended("resume", run) == 1  # it stays down
        proxy.spoil({})
        assert ended("resume", run, "--set", "budget.requests=15") == 1  # too little
        assert ended("resume", run, "--set", "budget.requests=30") == 1
        proxy.spoil({**FAULTS, "429": 0.1})
        patient = [f"--set=backbone.api.{setting}" for setting in ("patience_s=4", "attempts=12")]
        assert ended("resume", run, *patient, *(change.replace("backbone", "method.writer") for change in patient)) == 0
        for also in (["show", run], ["probe", tmp_path / "job.yaml"], ["predict", run, "good"]):
            ended(*also)
        assert not tracked or ended("sync", run) == 0
        monkeypatch.setenv("OF_THE_TEST", f"{KEY}-but-wrong")
        ended("run", tmp_path / "job.yaml", "--out", tmp_path / "wrong")
    assert "HTTP 401" in "".join(told)
    assert "tuned" in "".join(told)
    assert KEY not in "".join(told)
    files = on_disk(tmp_path)
    names = {path.name for path in files}
    assert {"paid.sqlite", "answers.sqlite", "all.log", "journal.jsonl", "result.json"} <= names
    assert ("mlflow.db" in names) == tracked
    assert "HTTP Request" in (tmp_path / "all.log").read_text()
    assert any(b"because of ***" in content for content in files.values())  # answers, as they were kept
    assert not [path for path, content in files.items() if KEY.encode() in content]


def test_equal_requests_are_sent_once_whichever_example_they_are_of(tiny_task, upstream, tmp_path):
    twice = tmp_path / "twice"
    shutil.copytree(tiny_task, twice)
    rows = (twice / "train.jsonl").read_text()
    (twice / "train.jsonl").write_text(rows + rows)
    counts = []
    for folder in (tiny_task, twice):
        spec = job_of(folder, upstream.url, method={"search": "random"}, backbone={"api": {"cache": False}})
        result = api.run(spec, tmp_path / f"run-{len(counts)}")
        counts.append(upstream.begin_to_count())
    assert result.cost.examples == 16 * 4 + 2 * 8
    assert counts[0] == counts[1]


def test_the_limit_of_requests_per_minute_is_one_for_all_that_a_run_asks(job, upstream, tmp_path, monkeypatch):
    """Any stretch of the window, which is made short, holds at most so many turns, the writer's among them."""
    turns: list[float] = []
    take = Pace.take

    def noted(self: Pace, *arguments: Any) -> Any:
        slot = take(self, *arguments)
        turns.append(slot.at)
        return slot

    monkeypatch.setattr("bbtune.endpoint.pace.WINDOW_S", 0.05)
    monkeypatch.setattr(Pace, "take", noted)
    limits = {
        "base_url": upstream.url,
        "model": "tiny",
        "requests_per_minute": 20,
        "patience_s": 5.0,
        "timeout_s": 20.0,
    }
    spec = job(backbone={"api": limits}, method={"writer": {"api": {**limits, "style": "chat"}}})
    api.run(spec, tmp_path / "run")
    assert any(event[0] == "written" and any(event[-2]) for event in trace(tmp_path / "run"))
    turns.sort()
    assert len(turns) == upstream.requests
    assert all(later - earlier > 0.05 - 1e-6 for earlier, later in zip(turns, turns[20:], strict=False))


def test_an_endpoint_that_stays_down_is_said_and_the_run_goes_on_when_it_is_well(job, upstream, tmp_path):
    whole = tmp_path / "whole"
    api.run(job(backbone={"api": {"cache": False}}), whole)
    with FaultProxy(upstream.url, {}) as proxy, at(upstream, proxy.url):
        impatient = job(backbone={"api": {"cache": False, "patience_s": 0.2, "attempts": 3}})
        with pytest.raises(EndpointError, match=r"127\.0\.0\.1.* tiny: .*HTTP 500.*resume when the endpoint is well"):
            api.run(impatient, tmp_path / "run", Witness(2, lambda: proxy.spoil({"500": 1.0})))
        proxy.spoil({})
        api.resume(tmp_path / "run")
    check_same(tmp_path / "run", whole)


SLOTS = {"keywords": 1, "demonstrations": 1, "label_words": [["awful", "good"]], "templates": ["{text} It was {mask}"]}
SEARCHES: dict[str, dict[str, Any]] = {
    "genetic, written": {"search": "genetic", "writer": "api"},
    "policy-gradient": {"search": "policy-gradient"},
    "nevergrad": {"search": "nevergrad"},
    "instruct-zero": {"search": "instruct-zero", "writer": "here"},
    "race in a minibatch": {"search": "random", "minibatch": 6, "race": 3},
}
MORE_SEARCHES: dict[str, dict[str, Any]] = {
    "random": {"search": "random"},
    "genetic": {"search": "genetic"},
    "edits": {"search": "edits"},
    "edits, written": {"search": "edits", "writer": "api"},
    "nevergrad by name": {"search": "nevergrad:OnePlusOne"},
    "race": {"search": "genetic", "race": 2},
    "minibatch": {"search": "genetic", "minibatch": 5},
}
CUTS = [pytest.param(name, [2], id=name) for name in SEARCHES]
CUTS += [
    pytest.param(name, [0, 1, 2, 3, 4], id=f"{name}, anywhere", marks=pytest.mark.slow)
    for name in SEARCHES | MORE_SEARCHES
]


@pytest.mark.parametrize(("name", "cuts"), CUTS)
def test_every_search_runs_resumes_to_the_same_and_predicts(name, cuts, job, upstream, tiny_models, tmp_path):
    method = dict((SEARCHES | MORE_SEARCHES)[name])
    writers = {"api": {"api": {"base_url": upstream.url, "model": "tiny"}}}
    writers["here"] = {"model": f"path:{tiny_models['gpt2']}", "max_tokens": 6}
    if "writer" in method:
        method["writer"] = writers[method["writer"]]
    spec = job(method=method, prompt=SLOTS, budget={"evaluations": 16})
    whole = api.run(spec, tmp_path / "whole")
    assert whole.stop_reason == "budget.evaluations"
    assert len(recorded(tmp_path / "whole")) == 5
    for number in cuts:
        cut = tmp_path / f"cut-{number}"
        with pytest.raises(KeyboardInterrupt):
            api.run(spec, cut, Witness(number, interrupt))
        api.resume(cut)
        check_same(cut, tmp_path / "whole")
    with Predictor(TuneResult.load(tmp_path / "whole")) as predictor:
        labels = [prediction.label for prediction in predictor.predict([f"{text} and and late" for text, _ in TEXTS])]
    assert [whole.labels[i] for i in whole.predicted["tuned"]] == labels


def test_prediction_is_not_bound_by_the_caps_of_the_run(job, tmp_path):
    result = api.run(job(budget={**MANY, "requests": 90}), tmp_path / "run")
    with Predictor(result) as predictor:
        assert len(predictor.predict([f"text {i}" for i in range(100)])) == 100


def test_nothing_stays_open_where_a_model_that_was_asked_is_gone(job, upstream, tmp_path, monkeypatch):
    result = api.run(job(), tmp_path / "run")
    fresh_cache(monkeypatch, tmp_path / "other")
    closed, close = [], Endpoint.close
    monkeypatch.setattr(Endpoint, "close", lambda endpoint: closed.append(close(endpoint)))
    with FaultProxy(upstream.url, {"wrong-key": 1.0}) as proxy, at(upstream, proxy.url):
        with pytest.raises(EndpointError, match="HTTP 401"), Predictor(result) as predictor:
            predictor.predict(["a great film"])
        assert closed


def test_prediction_asks_nothing_but_its_texts(job, upstream, tmp_path, monkeypatch):
    result = api.run(job(), tmp_path / "run")
    fresh_cache(monkeypatch, tmp_path / "other")
    before = upstream.requests
    with Predictor(TuneResult.load(tmp_path / "run")) as predictor:
        labels = [prediction.label for prediction in predictor.predict(["a great film", "a dull end"])]
    assert upstream.requests - before == 2
    assert set(labels) <= set(result.labels)


@pytest.mark.parametrize("read", ["label-logprobs", "prompt-logprobs"])
def test_a_model_that_is_here_and_the_same_behind_an_api_give_the_same_scores(read, tiny_task, tiny_models, tmp_path):
    backbone = {"model": f"path:{tiny_models['llama']}"}
    local = LocalText(BackboneSpec(**backbone), threads=1)
    words = ["bad", "good"] if read != "prompt-logprobs" else ["very bad", "very good"]
    parts = {"task": {"label_words": words}, "method": {"search": "random"}}
    with ScriptedUpstream(script=answers_of(local)) as upstream:
        here = job_of(tiny_task, upstream.url, **parts, backbone={**backbone, "api": None})
        away = job_of(tiny_task, upstream.url, **parts, backbone={"api": {"read": read, "style": "completion"}})
        results = [api.run(spec, tmp_path / name) for name, spec in (("here", here), ("away", away))]
    one, two = (scores_in(tmp_path / name) for name in ("here", "away"))
    for (z, loss), (other_z, other) in zip(one, two, strict=True):
        assert z == other_z
        np.testing.assert_allclose(loss, other, atol=2e-4)
    assert results[0].scores == results[1].scores


def test_a_search_on_a_model_that_is_here_resumes_to_the_same(tiny_task, tiny_models, tmp_path):
    spec = job_of(tiny_task, "http://unused/v1", backbone={"model": f"path:{tiny_models['llama']}", "api": None})
    api.run(spec, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        api.run(spec, tmp_path / "cut", Witness(2, interrupt))
    api.resume(tmp_path / "cut")
    check_same(tmp_path / "cut", tmp_path / "whole")
    with Predictor(TuneResult.load(tmp_path / "cut")) as predictor:
        assert predictor.predict(["a great film"])[0].label in ("negative", "positive")


def test_without_a_key_in_the_environment_it_is_said_and_with_one_the_run_goes_on(
    tiny_task, command, tmp_path, monkeypatch
):
    with ScriptedUpstream(script=judge, key=KEY) as upstream:
        spec = job_of(tiny_task, upstream.url, backbone={"api": {"api_key_env": "OF_THE_TEST"}})
        (tmp_path / "job.yaml").write_text(spec.to_yaml())
        code, _, error = command("run", tmp_path / "job.yaml", "--out", tmp_path / "run")
        assert code == 1
        assert "expected a key in the environment variable OF_THE_TEST, got nothing; export OF_THE_TEST=..." in error
        assert f"go on with: bbtune resume {tmp_path / 'run'}" in error
        monkeypatch.setenv("OF_THE_TEST", KEY)
        code, out, _ = command("resume", tmp_path / "run")
    assert code == 0
    assert "stopped by budget.evaluations" in out


def test_a_writer_alone_is_paid_and_capped(job, upstream, tiny_models, tmp_path):
    """The model that scores is here: it costs nothing, and nothing is left for its test split."""
    writer = {"api": {"base_url": upstream.url, "model": "tiny", "price": PRICE}}
    here = {"model": f"path:{tiny_models['gpt2']}", "api": None}
    spec = job(backbone=here, method={"writer": writer}, budget={"evaluations": 40, "requests": 5, "dollars": 1.0})
    result = api.run(spec, tmp_path / "run")
    assert result.stop_reason == "budget.requests"
    assert result.paid.requests == result.cost.requests == upstream.requests == 5
    assert result.paid.dollars > 0


@pytest.mark.parametrize("other", [{"prompt": {"answer_tokens": 3}}, {"prompt": {"label_words": [["bad", "good"]]}}])
def test_answers_of_the_untouched_model_are_shared_where_they_are_read_alike(other, job, tmp_path):
    read = {"backbone": {"api": {"read": "generated"}}, "budget": {"evaluations": 4}}
    for number, parts in enumerate(({}, {"seed": 4}, other)):
        api.begin(job(**read, **parts), tmp_path / f"run{number}", tracked=False, shared=tmp_path)
    assert len(list(tmp_path.glob("zero-shot-*"))) == 2


def test_a_run_that_has_ended_says_that_more_money_changes_nothing(job, tmp_path):
    result = api.run(job(budget={**MANY, "requests": 90}), tmp_path / "run")
    view = Witness()
    assert api.resume(tmp_path / "run", ["budget.requests=500"], view).cost == result.cost
    (said,) = view.said
    assert "the run has ended (budget.requests), budget.requests=500 changes nothing any more" in said


def silent(body: Body) -> Body:
    """A server that answers, and names no label."""
    answer = judge(body)
    for part in answer["choices"]:
        part |= {"text": " Perhaps.", "logprobs": None}
        if part.pop("message", None):
            part |= {"message": {"content": "Perhaps."}}
    return answer


@pytest.mark.parametrize("metric", ["accuracy", "f1", "macro_f1", "matthews"])
def test_an_answer_that_names_no_label_is_wrong_for_every_one(metric, job, upstream, tmp_path):
    upstream.script = silent
    task = {"metric": metric, **({"positive_label": "negative"} if metric == "f1" else {})}
    spec = job(task=task, backbone={"api": {"read": "generated"}}, budget={"evaluations": 4})
    result = api.run(spec, tmp_path / "run")
    assert result.scores["zero_shot"].test.value == result.scores["tuned"].dev.value == 0
    assert set(result.predicted["tuned"]) == {-1}
    assert TuneResult.load(tmp_path / "run").scores == result.scores


def test_a_split_that_is_asked_in_parts_gets_the_same_scores(job, tmp_path, monkeypatch):
    api.run(job(), tmp_path / "whole")
    monkeypatch.setattr("bbtune.evaluation.text._AT_ONCE", 3)
    asked, ask = [], Endpoint.ask
    monkeypatch.setattr(Endpoint, "ask", lambda *args: asked.append(len(args[1])) or ask(*args))
    api.run(job(), tmp_path / "parts")
    assert max(asked) == 3
    check_same(tmp_path / "whole", tmp_path / "parts")


def test_predictions_are_read_as_the_search_did_whatever_label_words_it_chose(job, upstream, tmp_path):
    """The first label words begin alike, so that answers are read in words; those that were chosen do not."""
    words = {"task": {"label_words": ["good", "goodish"]}, "prompt": {"label_words": [["bad", "great"]]}}
    api.run(job(**words), tmp_path / "run")
    result = TuneResult.load(tmp_path / "run")
    chosen = replace(result, reading=replace(result.reading, label_words=(("bad",), ("great",))))
    asked: list[Body] = []
    upstream.script = lambda body: asked.append(body) or judge(body)
    with Predictor(chosen) as predictor:
        asked.clear()
        predictor.predict(["a text that nobody has asked about"])
    (body,) = asked
    assert body["max_tokens"] == 16
