"""Every fault of a search for a prompt in words: told by its key, with what to do, and by itself."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from bbtune import api
from bbtune.jobfile import load_job
from bbtune.spec import merged

API = {"base_url": "http://127.0.0.1:9/v1", "model": "tiny"}
WRITER = {"model": "path:/nowhere"}
PRICED = {"backbone": {"api": {"price": {"input": 1, "output": 1}}}}
FREE_WRITER = {**PRICED, "method": {"writer": {"api": API}}}
SERVED_WRITER = {**PRICED, "method": {"writer": {"api": {"serve": "cache:smollm2-135m"}}}}

FAULTS: list[tuple[dict[str, Any], list[str]]] = [
    ({}, []),
    ({"method": {"search": "genetc"}}, [r"method.search: expected one of .*got 'genetc'; did you mean \"genetic\"\?"]),
    ({"method": {"search": "nevergrad:Foo"}}, ["method.search: expected nevergrad:NAME .*got 'nevergrad:Foo'"]),
    ({"method": {"minibatch": 9}}, ["method.minibatch: expected at most 8, the train examples, got 9"]),
    ({"method": {"race": 9}}, ["method.race: expected at most 8, the examples of a generation, got 9"]),
    ({"method": {"race": 4, "minibatch": 2}}, ["method.race: expected at most 2, .*got 4"]),
    ({"evaluators": {"count": 2}}, [r"evaluators.count: expected 0, .*backbone\.api\.concurrency.*, got 2"]),
    ({"budget": {"layer_forwards": 9}}, ["budget.layer_forwards: expected none, .*; take examples"]),
    ({"budget": {"evaluations": 3}}, ["budget.evaluations: expected at least one generation, 4 .*, got 3"]),
    ({"budget": {"examples": 5}}, ["budget.examples: expected at least one generation, 48 .*, got 5"]),
    ({"budget": {"dollars": 1.0}}, ["backbone.api.price: missing; budget.dollars needs it"]),
    ({"budget": {"dollars": 1.0}, **FREE_WRITER}, ["method.writer.api.price: missing; budget.dollars needs it"]),
    ({"budget": {"dollars": 1.0}, **SERVED_WRITER}, []),
    ({"task": {"template": "{mask} : {text}"}}, ["task.template: expected {mask} behind all fields"]),
    ({"prompt": {"templates": ["{mask} {text}"]}}, [r"prompt.templates\[0\]: expected {mask} behind all fields"]),
    ({"prompt": {"templates": ["{text} It was '{mask}'"]}}, [r"prompt.templates\[0\]: expected a space before {mask}"]),
    ({"prompt": {"templates": ["{text} It was"]}}, []),
    ({"prompt": {"templates": ["{text} {a}"]}}, [r"prompt.templates\[0\]: template has the unknown field {a}"]),
    ({"prompt": {"label_words": [["good"]]}}, [r"prompt.label_words\[0\]: expected 2 entries, .*got 1"]),
    ({"prompt": {"demonstrations": 8}}, ["prompt.demonstrations: expected fewer than the 8 train examples, got 8"]),
    ({"prompt": {"tokens": 5}}, ["prompt.tokens: unknown key; a prompt in words is made of instructions"]),
    ({"prompt": {"kind": "txt"}, "method": {"search": None}}, ["prompt.kind: expected 'offset', 'prefix' or 'text'"]),
    ({"method": {"optimizer": "cma"}}, ["method.optimizer: unknown key; .* is named by method.search"]),
    ({"selection": {"average": 3}}, ["selection.average: expected none, words have no mean, got 3"]),
    ({"method": {"search": "instruct-zero"}}, ["method.writer.model: missing; instruct-zero puts vectors"]),
    (
        {"method": {"search": "random", "writer": {"api": API}}},
        ["method.writer: expected none with random, which chooses and writes nothing"],
    ),
    ({"method": {"search": "instruct-zero", "writer": {"api": API}}}, ["method.writer.model: missing"]),
    ({"method": {"writer": {"api": API, "model": "cache:none"}}}, ["method.writer: expected one of", "writer.model: "]),
    ({"method": {"writer": WRITER}}, [r"method.writer.model: expected a model folder .* found nothing at /nowhere"]),
    ({"method": {"writer": {"api": {**API, "modl": 1}}}}, ['method.writer.api.modl: unknown key; .*"model"']),
    ({"backbone": {"api": {"serve": "cache:smollm2-135m"}}}, ["backbone.api: expected base_url .* or serve"]),
    ({"backbone": {"api": {"base_url": None}}}, ["backbone.api: expected base_url .* or serve"]),
    ({"backbone": {"api": {"model": None}}}, ["backbone.api: expected model, the name under which"]),
    ({"backbone": {"api": {"base_url": "h:80"}}}, [r"backbone.api.base_url: expected http://HOST/v1 .*got \"h:80\""]),
    ({"backbone": {"api": {"base_ur": "x"}}}, ['backbone.api.base_ur: unknown key; did you mean "base_url"']),
    ({"backbone": {"api": {"price": {"input": -1}}}}, ["price.input: expected greater", "price.output: missing"]),
    ({"backbone": {"api": {"read": "all"}, "device": 7}}, ["backbone.api.read: expected 'auto'", "backbone.device: "]),
    ({"backbone": {"api": {"price": 3}}, "budget": {"dollars": 1.0}}, ["backbone.api.price: expected a mapping"]),
]


def faults_of(folder: Path, changes: dict[str, Any]) -> list[str]:
    raw = {
        "task": {"source": f"folder:{folder}"},
        "backbone": {"api": API},
        "prompt": {"kind": "text"},
        "method": {"search": "genetic", "population": 4},
        "budget": {"evaluations": 12},
    }
    whole = merged(raw, changes)
    if changes.get("method", {}).get("search", "") is None:
        del whole["method"], whole["backbone"]["api"]
        whole["backbone"]["model"] = "package:none"
    return [str(fault) for fault in api.validate(whole)]


@pytest.mark.parametrize(("changes", "expected"), FAULTS, ids=[str(changes) for changes, _ in FAULTS])
def test_a_mistake_is_told_by_its_key_and_nothing_else_is_said(changes, expected, tiny_task):
    told = [fault for fault in faults_of(tiny_task, changes) if "package none" not in fault]
    assert len(told) == len(expected), told
    for pattern in expected:
        assert any(re.search(pattern, fault) for fault in told), (pattern, told)


def test_all_mistakes_are_told_together(tiny_task):
    changes = {
        "method": {"search": "genetc", "minibatch": 9, "optimizer": "cma"},
        "backbone": {"api": {"concurrency": 0, "style": "caht"}},
        "evaluators": {"count": 1},
        "prompt": {"templates": ["{mask} {text}"]},
    }
    keys = {fault.partition(":")[0] for fault in faults_of(tiny_task, changes)}
    wanted = {"method.search", "method.minibatch", "method.optimizer", "backbone.api.concurrency", "backbone.api.style"}
    assert keys == wanted | {"evaluators.count", "prompt.templates[0]"}


@pytest.mark.parametrize(
    "where",
    [
        {"base_url": "https://h/v1?api_key=sk-secret"},
        {"base_url": "https://h/v1?a=1&subscription-key=sk-secret"},
        {"base_url": "https://me:sk-secret@h/v1"},
        {"api_key": "sk-secret"},
        {"api_key_env": "sk-secret"},
        {"api_key_env": "gsk_secretAbCdEfGhIjKlMnOpQr"},  # could be a name
        {"api_key_env": "f0e1d2secret0123456789abcdef"},
    ],
)
def test_a_key_in_a_wrong_place_is_refused_and_not_repeated(where, tiny_task):
    (fault,) = faults_of(tiny_task, {"backbone": {"api": where}})
    assert "secret" not in fault
    assert "api_key_env" in fault


def test_caps_on_money_need_an_api(tiny_task, tiny_models):
    raw = {"api": None, "model": f"path:{tiny_models['llama']}"}
    (fault,) = faults_of(tiny_task, {"backbone": raw, "budget": {"requests": 9}})
    assert fault.startswith("budget.requests: expected none, only an API is paid")


@pytest.mark.parametrize("where", ["backbone", "writer"])
def test_a_model_that_does_not_write_is_refused(where, tiny_task, tiny_models):
    model = f"path:{tiny_models['bert']}"
    changes = (
        {"backbone": {"api": None, "model": model}} if where == "backbone" else {"method": {"writer": {"model": model}}}
    )
    (fault,) = faults_of(tiny_task, changes)
    assert "expected a causal-lm" in fault
    assert fault.endswith("got a masked-lm")


def test_instruct_zero_needs_three_candidates(tiny_task, tiny_models):
    method = {"search": "instruct-zero", "population": 2, "writer": {"model": f"path:{tiny_models['gpt2']}"}}
    assert faults_of(tiny_task, {"method": method}) == [
        "method.population: expected 3 or more for instruct-zero, which optimizes one vector less, got 2"
    ]


def test_another_search_by_name_has_no_writer_where_it_writes_nothing(tmp_path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(
        "task: {source: 'builtin:support'}\nbackbone: {api: {base_url: 'http://host/v1', model: m}}\n"
        "prompt: {kind: text}\nmethod: {search: genetic, population: 5, writer: {model: 'cache:none'}}\n"
        "budget: {evaluations: 20}\n"
    )
    chosen = {name: load_job(path, method=name).method for name in ("random", "edits")}
    assert (chosen["random"].writer, chosen["random"].search, chosen["random"].population) == (None, "random", 5)
    assert chosen["edits"].writer is not None
