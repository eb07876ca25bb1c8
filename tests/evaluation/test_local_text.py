"""A model in this process that is asked in text, against transformers itself."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from bbtune.backbone_spec import BackboneSpec
from bbtune.endpoint.reading import LabelLogprobs, PromptLogprobs
from bbtune.endpoint.request import Request
from bbtune.endpoint.shown import PromptWay
from bbtune.errors import BackboneError, DeadlineReached, EndpointError
from bbtune.evaluation.local_text import LocalText

TEXTS = ["it was", "a great film , truly", "the parcel is late and the box was", "my kettle", "terrible sound and"]
CAUSAL = ["gpt2", "opt", "gpt_neox", "llama", "mistral", "qwen3", "gemma2", "gemma3_text", "windowed"]


def opened(folder: Path) -> LocalText:
    return LocalText(BackboneSpec(model=f"path:{folder}"), threads=1)


@pytest.fixture(scope="module")
def llama(tiny_models: dict[str, Path]) -> LocalText:
    return opened(tiny_models["llama"])


@pytest.mark.parametrize("family", CAUSAL)
def test_next_tokens_have_the_probabilities_that_transformers_gives(tiny_models: dict[str, Path], family: str) -> None:
    folder = tiny_models[family]
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    answers = opened(folder).ask([Request(text, "completion", 1, top_logprobs=9) for text in TEXTS])
    for text, answer in zip(TEXTS, answers, strict=True):
        ids = tokenizer(text, return_tensors="pt").input_ids
        with torch.inference_mode():
            wanted = model(ids).logits[0, -1].log_softmax(-1)
        values, best = wanted.topk(9)
        assert [value for _, value in answer.tokens[0].top] == pytest.approx(values.tolist(), abs=2e-4)
        assert answer.tokens[0].text in tokenizer.decode([int(ids[0, -1]), int(best[0])])
        assert (answer.input_tokens, answer.output_tokens) == (ids.shape[1], 1)


@pytest.mark.parametrize("family", CAUSAL)
def test_generation_is_greedy_as_that_of_transformers(tiny_models: dict[str, Path], family: str) -> None:
    folder = tiny_models[family]
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    answers = opened(folder).ask([Request(text, "completion", 6) for text in TEXTS])
    for text, answer in zip(TEXTS, answers, strict=True):
        ids = tokenizer(text, return_tensors="pt").input_ids
        out = model.generate(ids, max_new_tokens=6, do_sample=False, attention_mask=torch.ones_like(ids))
        assert answer.text == tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)


def test_what_shares_a_batch_changes_nothing(llama: LocalText) -> None:
    requests = [Request(text, "completion", n, top_logprobs=5) for n in (1, 5) for text in TEXTS]
    together = llama.ask(requests)
    for request, answer in zip(requests, together, strict=True):
        (alone,) = llama.ask([request])
        assert alone.text == answer.text
        assert [token.logprob for token in alone.tokens] == pytest.approx([t.logprob for t in answer.tokens], abs=1e-4)


def test_tokens_put_together_are_the_text(llama: LocalText) -> None:
    (answer,) = llama.ask([Request("it was", "completion", 6, top_logprobs=1, extra=(("echo", True),))])
    assert "".join(token.text for token in answer.tokens) == answer.text
    assert answer.text.startswith("it was")
    assert answer.tokens[0].logprob is None


def test_the_prompts_logprobs_are_those_of_the_same_tokens_when_they_come_next(llama: LocalText) -> None:
    texts = ["it", "it was", "it was a", "it was a great"]
    next_tokens = llama.ask([Request(text, "completion", 1, top_logprobs=1000) for text in texts[:-1]])
    for way in (PromptWay("echo"), PromptWay("prompt_logprobs")):
        (shown,) = llama.ask([Request(texts[-1], "completion", 1, way.top_logprobs, extra=way.extra)])
        tokens = way.tokens(shown)
        assert [text for text, _ in tokens][1:] == [" was", " a", " great"]
        wanted = [dict(answer.tokens[0].top)[text] for answer, (text, _) in zip(next_tokens, tokens[1:], strict=True)]
        assert [value for _, value in tokens[1:]] == pytest.approx(wanted, abs=1e-4)


def test_first_tokens_and_prompts_score_words_of_one_token_alike(llama: LocalText) -> None:
    words = (("bad",), ("great",))
    by_token = LabelLogprobs("completion", 500, {"bad": "bad", "great": "great"})
    by_prompt = PromptLogprobs("completion", PromptWay("echo"))
    one = by_token.read(llama.ask(by_token.requests("it was", words)), words)
    other = by_prompt.read(llama.ask(by_prompt.requests("it was", words)), words)
    assert one.missing == 0
    assert other.logits[1] <= one.logits[1] + 1e-4  # without the variants "great" and "Great"


def test_an_answer_ends_before_the_stop(llama: LocalText) -> None:
    (whole,) = llama.ask([Request("it was", "completion", 8)])
    stop = whole.text[3:5]
    (cut,) = llama.ask([Request("it was", "completion", 8, stop=(stop,))])
    assert cut.text == whole.text[: whole.text.index(stop)]
    assert cut.output_tokens < whole.output_tokens


def test_a_seed_fixes_what_is_drawn_whatever_else_is_asked(llama: LocalText) -> None:
    request = Request("it was", "completion", 8, temperature=1.0, seed=1)
    (one,) = llama.ask([request])
    again, other, beside = llama.ask(
        [replace(request, repeat=1), replace(request, seed=2), Request("a", "completion", 8)]
    )
    assert one.text == again.text != other.text
    assert beside.output_tokens >= 1
    free = replace(request, seed=None)
    assert llama.ask([free])[0].text != llama.ask([replace(free, repeat=1)])[0].text


def test_equal_requests_are_answered_alike_in_the_order_asked(llama: LocalText) -> None:
    requests = [Request(text, "completion", 2) for text in (TEXTS[2], TEXTS[0], TEXTS[2])]
    answers = llama.ask(requests)
    assert answers[0] == answers[2]
    assert answers[0].input_tokens > answers[1].input_tokens


def test_a_chat_needs_a_template(llama: LocalText) -> None:
    with pytest.raises(EndpointError, match="expected a model with a chat template"):
        llama.ask([Request("hello", "chat")])


def test_a_prompt_that_is_too_long_is_refused(llama: LocalText) -> None:
    with pytest.raises(EndpointError, match="expected at most 96 tokens in all"):
        llama.ask([Request("late " * 200, "completion")])


def test_a_deadline_ends_the_asking(llama: LocalText) -> None:
    with pytest.raises(DeadlineReached):
        llama.ask([Request("it was", "completion")], deadline=time.monotonic() - 1)


def test_a_model_that_does_not_go_on_with_a_text_is_refused(tiny_models: dict[str, Path]) -> None:
    with pytest.raises(BackboneError, match="expected a causal language model to ask in text, got a masked-lm"):
        opened(tiny_models["bert"])


def test_an_empty_prompt_is_answered(llama: LocalText) -> None:
    assert llama.ask([Request("", "completion", 1, top_logprobs=2)])[0].input_tokens == 1
