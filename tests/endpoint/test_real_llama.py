"""llama.cpp with a real small model: what it can do, its scores, and those of the same weights in this process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from real_servers import TOPICS, asked, tasks_texts

from bbtune.backbone_spec import BackboneSpec
from bbtune.endpoint.abilities import choose, explain
from bbtune.endpoint.endpoint import Endpoint
from bbtune.endpoint.failure import Refused
from bbtune.endpoint.probe import probe
from bbtune.endpoint.reading import Generated, LabelLogprobs
from bbtune.endpoint.request import Request
from bbtune.endpoint.serve import LocalServer
from bbtune.evaluation.local_text import LocalText

pytestmark = pytest.mark.slow  # the model is fetched before these

READER = LabelLogprobs("completion", 1000)


@pytest.fixture
def llama(llama_server: LocalServer, tmp_path: Path) -> Iterator[Endpoint]:
    with asked(tmp_path, llama_server.base_url, llama_server.key, concurrency=4) as endpoint:
        yield endpoint


def test_it_gives_logprobs_in_both_styles_and_ignores_the_rest(llama: Endpoint) -> None:
    found = probe(llama, llama.spec, TOPICS)
    assert (found.chat, found.completion, found.chat_top, found.completion_top) == (True, True, 1000, 1000)
    assert (found.echo, found.prompt_logprobs, found.lists) == (None, None, False)
    assert (found.seeds, found.rate_limits) == (True, ())
    assert "answered, but not all of their tokens are counted" in dict(found.reasons)["lists"]
    assert dict(found.pieces)["billing"] == "billing"
    assert choose(found, llama.spec, TOPICS, True) == LabelLogprobs("completion", 1000, dict(found.pieces))
    assert explain(found, llama.spec, TOPICS, True)[-1].startswith(
        "used: label-logprobs: the first token of completions"
    )
    assert llama.purse.spent().requests <= 16


def test_a_wrong_key_is_refused_in_words_without_it(llama_server: LocalServer, tmp_path: Path) -> None:
    with (
        asked(tmp_path, llama_server.base_url, "sk-wrong-key-4711") as endpoint,
        pytest.raises(Refused, match="401") as caught,
    ):
        probe(endpoint, endpoint.spec, TOPICS)
    assert "sk-wrong-key-4711" not in str(caught.value)


def test_many_at_once_are_answered_as_one_by_one(llama: Endpoint) -> None:
    requests = [READER.requests(text, TOPICS)[0] for text in tasks_texts(4)]
    alone = [llama.ask([request])[0] for request in requests]
    together = llama.ask([*requests, *reversed(requests)])
    for one, other in zip([*alone, *reversed(alone)], together, strict=True):
        # What shares a batch, and what of the prompt was known already, changes its sums a little.
        assert other.tokens[0].top[0][1] == pytest.approx(one.tokens[0].top[0][1], abs=0.1)


@pytest.fixture(scope="module")
def local(smollm: Path) -> LocalText:
    return LocalText(BackboneSpec(model=f"path:{smollm}"), threads=2)


def test_it_scores_as_the_same_weights_in_this_process_do(llama: Endpoint, local: LocalText) -> None:
    # The server keeps 4-bit weights and rounds what they are multiplied with to 8 bits; here both are float32.
    # Measured over the test split: half of the log-probabilities are within 0.04, nine in ten within 0.1.
    texts = tasks_texts(12)
    requests = [READER.requests(text, TOPICS)[0] for text in texts]
    there, here = llama.ask(requests), local.ask(requests)
    assert [answer.input_tokens for answer in there] == [answer.input_tokens for answer in here]
    gaps = []
    for one, other in zip(there, here, strict=True):
        known = dict(other.tokens[0].top)
        gaps += [abs(value - known[text]) for text, value in one.tokens[0].top[:20] if text in known]
    assert len(gaps) > 0.95 * 20 * len(texts)
    assert np.median(gaps) < 0.1
    assert np.quantile(gaps, 0.9) < 0.3
    scores = [np.array([READER.read([answer], TOPICS).logits for answer in answers]) for answers in (there, here)]
    assert (scores[0].argmax(axis=1) == scores[1].argmax(axis=1)).mean() > 0.9


def test_chats_are_put_to_the_model_in_the_same_words_as_here(llama: Endpoint, local: LocalText) -> None:
    request = Request("Name the capital of Italy.", "chat", 8, top_logprobs=5)
    there, here = llama.ask([request])[0], local.ask([request])[0]
    assert there.input_tokens == here.input_tokens
    assert there.text == here.text
    assert there.tokens[0].logprob == pytest.approx(here.tokens[0].logprob, abs=0.3)


def test_words_that_are_said_are_the_most_probable_ones(llama: Endpoint) -> None:
    words = (("Rome",), ("Paris",))
    text = "The capital of France is Paris. The capital of Italy is"
    by_token = READER.read(llama.ask(READER.requests(text, words)), words)
    said = Generated("completion", 4)
    by_text = said.read(llama.ask(said.requests(text, words)), words)
    assert by_token.logits.argmax() == by_text.logits.argmax() == 0
    assert by_text.unmatched == 0
