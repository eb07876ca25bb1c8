"""Responses of real servers, as recorded, read into one form."""

from __future__ import annotations

from dataclasses import replace

import pytest
from scripted_upstream import llama, vllm, words

from bbtune.endpoint.answers import lasting, read_answer
from bbtune.endpoint.failure import Failure
from bbtune.endpoint.request import Request, Token
from bbtune.endpoint.usage import Bound, Tokens

MOST = Tokens(500, 50)
PROMPT = "Is it late? Topic:"


def body(style, **more):
    return Request(PROMPT, style, max_tokens=2, **more).body("tiny")


@pytest.mark.parametrize("shape", [llama, vllm])
@pytest.mark.parametrize("style", ["chat", "completion"])
def test_text_logprobs_and_usage_come_from_each_shape(shape, style):
    answer = read_answer(lasting(shape(body(style, top_logprobs=2))), MOST)
    said = words(PROMPT, 2)
    assert answer.text == "".join(said)
    assert [token.text for token in answer.tokens] == said
    assert all(token.logprob == -0.5 and token.top[0] == (token.text, -0.5) for token in answer.tokens)
    assert all(len(token.top) == 2 for token in answer.tokens)
    assert (answer.input_tokens, answer.output_tokens) == (4 + (31 if style == "chat" else 1), 2)


@pytest.mark.parametrize("shape", [llama, vllm])
@pytest.mark.parametrize("style", ["chat", "completion"])
def test_without_logprobs_there_are_no_tokens(shape, style):
    assert read_answer(lasting(shape(body(style))), MOST).tokens == ()


def test_an_echoed_prompt_stands_before_the_answer_and_its_first_token_has_no_logprob():
    answer = read_answer(lasting(vllm(body("completion", top_logprobs=1, extra=(("echo", True),)))), MOST)
    assert "".join(token.text for token in answer.tokens) == answer.text == PROMPT + "".join(words(PROMPT, 2))
    assert answer.tokens[0] == Token("Is i", None, ())


@pytest.mark.parametrize("shape", [llama, vllm])
def test_two_answers_to_one_request_are_equal_once_what_passes_is_left_out(shape):
    asked = body("completion", top_logprobs=1)
    assert shape(asked) != shape(asked)
    assert lasting(shape(asked)) == lasting(shape(asked))


def test_top_tokens_that_look_alike_are_all_kept():
    top = [{"token": "\ufffd", "logprob": -2.0}, {"token": "\ufffd", "logprob": -1.0}]
    content = [{"token": "a", "logprob": -0.1, "top_logprobs": top}]
    raw = {"choices": [{"message": {"content": "a"}, "logprobs": {"content": content}}]}
    assert read_answer(raw, MOST).tokens[0].top == (("\ufffd", -1.0), ("\ufffd", -2.0))


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        (None, MOST),
        ("many", MOST),
        ({"prompt_tokens": 7, "completion_tokens": 3}, Tokens(7, 3)),
        ({"prompt_tokens": 7, "total_tokens": 7}, Tokens(7, 0)),  # OpenAI, for a prompt that is scored only
        ({"prompt_tokens": 7}, Tokens(7, 50)),
        ({"prompt_tokens": -1, "completion_tokens": True}, MOST),
    ],
)
def test_what_the_server_does_not_count_is_charged_at_the_bound(usage, tokens):
    answer = read_answer({"choices": [{"text": "x"}], "usage": usage}, MOST)
    assert (answer.input_tokens, answer.output_tokens) == (tokens.input, tokens.output)


@pytest.mark.parametrize(
    "raw",
    [
        None,
        [],
        "text",
        {},
        {"choices": []},
        {"choices": None},
        {"choices": [{}]},
        {"choices": ["text"]},
        {"choices": [{"message": None}]},
        {"choices": [{"text": 3}]},
        {"choices": [{"text": "x", "logprobs": {"tokens": ["a"], "token_logprobs": []}}]},
        {"choices": [{"text": "x", "logprobs": {"tokens": ["a"], "token_logprobs": ["high"]}}]},
        {"choices": [{"text": "x", "logprobs": {"tokens": ["a"], "token_logprobs": [float("nan")]}}]},
        {"choices": [{"text": "x", "logprobs": {"content": [{"token": "a"}]}}]},
        {"choices": [{"text": "x", "logprobs": {"content": ["a"]}}]},
        {"error": {"message": "the model is being loaded"}},
    ],
)
def test_anything_else_is_a_failure_that_is_worth_another_attempt_and_may_have_been_charged(raw):
    with pytest.raises(Failure, match="expected") as caught:
        read_answer(lasting(raw), MOST)
    assert caught.value.kind == "broken"
    assert caught.value.charged


def test_an_error_inside_a_good_response_is_told():
    with pytest.raises(Failure, match="the model is being loaded"):
        read_answer({"error": {"message": "the model is being loaded"}}, MOST)


def test_a_chat_without_content_is_an_empty_answer():
    assert read_answer({"choices": [{"message": {"content": None, "refusal": "no"}}]}, MOST).text == ""


def test_a_prompt_has_at_most_as_many_tokens_as_bytes_in_either_of_its_forms():
    bound = Bound()
    plain = bound.of(Request("late", "completion")).input
    assert bound.of(Request("läte", "completion")).input == plain + 1
    assert bound.of(Request("\ufdfa", "completion")).input > plain + 18  # one sign that stands for 18


def test_a_request_that_knows_its_tokens_is_bounded_by_them_and_keeps_its_key():
    sent = Request("", "completion", extra=(("prompt", None), ("prompt_embeds", "A" * 100_000)))
    known = replace(sent, input_tokens=12)
    assert Bound().of(sent).input > 100_000
    assert Bound().of(known).input == Bound().of(Request("", "completion", input_tokens=0)).input + 12 < 100
    assert known.key("there", "tiny") == sent.key("there", "tiny")


def test_half_a_character_has_a_bound():
    assert Bound().of(Request("\ud83d", "completion")).input > 0


def test_the_bound_of_an_answer_counts_every_choice():
    assert Bound().of(Request("late", "chat", max_tokens=5, extra=(("n", 3),))).output == 15


def test_the_bound_grows_when_a_server_counts_more():
    bound, request = Bound(), Request("late", "chat")
    bound.learn(request, Tokens(1000, 1))
    assert bound.of(request).input > 1000
    assert bound.of(Request("late", "completion")).input < 100
