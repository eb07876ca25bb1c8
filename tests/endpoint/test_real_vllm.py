"""vLLM with the weights of SmolLM2: prompt log-probabilities, and scores as in this process."""

from __future__ import annotations

import json
import os
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from real_servers import TOPICS, asked, tasks_texts
from transformers import AutoModelForCausalLM, AutoTokenizer

from bbtune.backbone_spec import BackboneSpec
from bbtune.endpoint.abilities import choose
from bbtune.endpoint.endpoint import Endpoint
from bbtune.endpoint.probe import probe
from bbtune.endpoint.reading import LabelLogprobs, PromptLogprobs
from bbtune.endpoint.shown import PromptWay
from bbtune.evaluation.local_text import LocalText
from bbtune.evaluation.wire import packed

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]

TOP = 20


@pytest.fixture
def vllm(vllm_url: str, tmp_path: Path) -> Iterator[Endpoint]:
    key = os.environ.get("VLLM_API_KEY", "")
    request = urllib.request.Request(f"{vllm_url}/models", headers={"Authorization": f"Bearer {key}"} if key else {})
    with urllib.request.urlopen(request, timeout=30) as response:
        model = json.load(response)["data"][0]["id"]
    with asked(tmp_path, vllm_url, key, model=model, concurrency=4) as endpoint:
        yield endpoint


@pytest.fixture(scope="module")
def local(smollm: Path) -> LocalText:
    return LocalText(BackboneSpec(model=f"path:{smollm}"), threads=2)


def test_it_does_all_that_is_asked(vllm: Endpoint) -> None:
    found = probe(vllm, vllm.spec, TOPICS)
    assert (found.completion, found.echo, found.prompt_logprobs) == (
        True,
        PromptWay("echo"),
        PromptWay("prompt_logprobs"),
    )
    assert found.completion_top >= TOP
    assert found.seeds
    assert choose(found, vllm.spec, TOPICS, True).name == "label-logprobs"


@pytest.mark.parametrize("key", ["echo", "prompt_logprobs"])
def test_label_words_behind_the_text_score_as_in_this_process(vllm: Endpoint, local: LocalText, key: str) -> None:
    reader = PromptLogprobs("completion", PromptWay(key))  # type: ignore[arg-type]
    words = (("billing question",), ("delivery",), ("returns", "refund"))
    for text in tasks_texts(4):
        sent = reader.requests(text, words)
        there, here = reader.read(vllm.ask(sent), words), reader.read(local.ask(sent), words)
        assert there.logits == pytest.approx(here.logits, abs=5e-3)


def test_first_tokens_score_as_in_this_process(vllm: Endpoint, local: LocalText) -> None:
    reader = LabelLogprobs("completion", TOP)
    requests = [reader.requests(text, TOPICS)[0] for text in tasks_texts(8)]
    for there, here in zip(vllm.ask(requests), local.ask(requests), strict=True):
        assert there.input_tokens == here.input_tokens
        one, other = reader.read([there], TOPICS), reader.read([here], TOPICS)
        assert one.logits == pytest.approx(other.logits, abs=5e-3)


def test_embeddings_are_answered_as_their_text_and_others_are_not(vllm: Endpoint, smollm: Path) -> None:
    table = AutoModelForCausalLM.from_pretrained(smollm).get_input_embeddings().weight.detach()
    tokenizer = AutoTokenizer.from_pretrained(smollm)

    def embeds(scale: float, text: str) -> str:
        return packed(scale * table[tokenizer(text)["input_ids"]])

    assert probe(vllm, vllm.spec, TOPICS, partial(embeds, 1.0)).prompt_embeds is True
    assert probe(vllm, vllm.spec, TOPICS, partial(embeds, 1.5)).prompt_embeds is False


def test_two_ways_to_score_words_of_one_token_agree(vllm: Endpoint) -> None:
    words = (("Rome",), ("Paris",))
    text = "The capital of France is Paris. The capital of Italy is"
    by_token, by_prompt = (
        LabelLogprobs("completion", TOP, {"Rome": "rome", "Paris": "paris"}),
        PromptLogprobs("completion", PromptWay("echo")),
    )
    one = by_token.read(vllm.ask(by_token.requests(text, words)), words)
    other = by_prompt.read(vllm.ask(by_prompt.requests(text, words)), words)
    assert np.argmax(one.logits) == np.argmax(other.logits) == 0
    assert one.logits[0] == pytest.approx(other.logits[0], abs=0.05)
