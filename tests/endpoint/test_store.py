"""Answers are kept as they came, for other threads and processes, and damage is told."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace

import pytest
from paid import on_disk
from scripted_upstream import llama, vllm

from bbtune.endpoint.answers import lasting, read_answer
from bbtune.endpoint.request import Request
from bbtune.endpoint.store import AnswerStore
from bbtune.endpoint.usage import Tokens
from bbtune.errors import EndpointError

REQUEST = Request("Is it late?", "completion", max_tokens=2, top_logprobs=3)
ANSWER = read_answer(lasting(vllm(REQUEST.body("tiny"))), Tokens(1, 1))


@pytest.mark.parametrize("shape", [llama, vllm])
@pytest.mark.parametrize("style", ["chat", "completion"])
def test_an_answer_comes_back_as_it_was(shape, style, tmp_path):
    request = Request("Is it late?", style, max_tokens=2, top_logprobs=3)
    answer = read_answer(lasting(shape(request.body("tiny"))), Tokens(1, 1))
    with closing(AnswerStore(tmp_path / "answers.db")) as store:
        store.put("key", answer)
    with closing(AnswerStore(tmp_path / "answers.db")) as store:
        assert store.get("key") == replace(answer, cached=True)
        assert store.get("other") is None


def test_what_was_charged_without_a_count_of_the_server_is_kept(tmp_path):
    answer = read_answer({"choices": [{"text": "x"}]}, Tokens(77, 7))
    with closing(AnswerStore(tmp_path / "answers.db")) as store:
        store.put("key", answer)
        assert store.get("key") == replace(answer, cached=True)


def test_the_prompt_is_not_stored(tmp_path):
    with closing(AnswerStore(tmp_path / "answers.db")) as store:
        store.put(REQUEST.key("place", "tiny"), ANSWER)
    kept = on_disk(tmp_path)
    assert any(ANSWER.text.encode() in content for content in kept.values())
    assert not any(REQUEST.prompt.encode() in content for content in kept.values())


def test_threads_and_processes_write_at_once(tmp_path):
    path = tmp_path / "answers.db"
    program = (
        "import sys; from pathlib import Path; from bbtune.endpoint.store import *; "
        "store = AnswerStore(Path(sys.argv[1])); answer = read_answer({'choices': [{'text': 'x'}]}, Tokens()); "
        "[store.put(f'{sys.argv[2]} {n}', answer) for n in range(200)]"
    )
    with closing(AnswerStore(path)) as store:
        others = [subprocess.Popen([sys.executable, "-c", program, str(path), name]) for name in ("a", "b")]
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda number: store.put(f"own {number}", ANSWER), range(200)))
        assert [other.wait(60) for other in others] == [0, 0]
        assert all(store.get(f"{name} {n}") for name in ("a", "b", "own") for n in range(200))


def test_a_damaged_file_is_told_with_what_to_do(tmp_path):
    (tmp_path / "answers.db").write_bytes(b"SQLite format 3\0" + b"rubbish" * 1000)
    with pytest.raises(EndpointError, match=r"answers\.db: it is damaged.*delete it"):
        AnswerStore(tmp_path / "answers.db")


def test_damage_in_the_middle_is_told_with_what_to_do(tmp_path):
    path = tmp_path / "answers.db"
    with closing(AnswerStore(path)) as store:
        for number in range(300):
            store.put(f"key {number}", ANSWER)
    whole = path.read_bytes()
    path.write_bytes(whole[:4096] + b"\xff" * (len(whole) - 4096))
    with pytest.raises(EndpointError, match=r"damaged.*delete it"), closing(AnswerStore(path)) as store:
        [store.get(f"key {number}") for number in range(300)]


def test_a_closed_store_says_so(tmp_path):
    store = AnswerStore(tmp_path / "answers.db")
    store.close()
    with pytest.raises(EndpointError, match="closed"):
        store.get("key")
