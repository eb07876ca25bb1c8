"""What is found out of models that answer as several servers do: right, wrong, or past the question."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from bbtune.backbone_spec import BackboneSpec
from bbtune.endpoint.abilities import Abilities, choose, explain
from bbtune.endpoint.failure import Refused
from bbtune.endpoint.probe import probe
from bbtune.endpoint.proof import first_tokens
from bbtune.endpoint.reading import Generated, LabelLogprobs, PromptLogprobs
from bbtune.endpoint.request import Answer, Request, Token
from bbtune.endpoint.shown import PromptWay
from bbtune.endpoint_spec import ANSWER_TOKENS, ApiSpec
from bbtune.errors import EndpointError
from bbtune.evaluation.local_text import LocalText

SPEC = ApiSpec(base_url="http://127.0.0.1:1/v1", model="m")
WORDS = (("bad",), ("great",))
VOCABULARY = 366  # of the tiny model, all of which fits into what is asked for

Change = Callable[[Request, Callable[[Request], Answer]], Answer]


class Changed:
    """A model whose answers are changed on their way."""

    def __init__(self, model: LocalText, change: Change) -> None:
        self._model, self._change = model, change
        self.asked: list[Request] = []

    def ask(self, requests: Sequence[Request], deadline: float | None = None) -> list[Answer]:
        self.asked += requests
        return [self._change(request, lambda asked: self._model.ask([asked])[0]) for request in requests]

    def close(self) -> None:
        """Nothing to close."""


@pytest.fixture(scope="module")
def model(tiny_models: dict[str, Path]) -> LocalText:
    return LocalText(BackboneSpec(model=f"path:{tiny_models['llama']}"), threads=1)


def unchanged(request: Request, answer: Callable[[Request], Answer]) -> Answer:
    return answer(request)


def ignores_logprobs(request: Request, answer: Callable[[Request], Answer]) -> Answer:
    return replace(answer(replace(request, extra=())), tokens=())


def ignores_extras(request: Request, answer: Callable[[Request], Answer]) -> Answer:
    return answer(replace(request, extra=()))


def shifts_echo(shift: int) -> Change:
    def change(request: Request, answer: Callable[[Request], Answer]) -> Answer:
        found = answer(request)
        if ("echo", True) not in request.extra:
            return found
        values = [token.logprob for token in found.tokens]
        moved = [values[i - shift] if 0 <= i - shift < len(values) else None for i in range(len(values))]
        tokens = tuple(replace(token, logprob=value) for token, value in zip(found.tokens, moved, strict=True))
        return replace(found, tokens=tokens)

    return change


def wrong_echo(request: Request, answer: Callable[[Request], Answer]) -> Answer:
    found = answer(request)
    if ("echo", True) not in request.extra:
        return found
    return replace(found, tokens=tuple(replace(token, logprob=-1.0) for token in found.tokens))


def at_most(top: int) -> Change:
    def change(request: Request, answer: Callable[[Request], Answer]) -> Answer:
        if request.top_logprobs > top:
            raise Refused(f"HTTP 400: top_logprobs must be at most {top}", 400)
        return answer(request)

    return change


def test_a_model_that_does_what_is_asked_is_found_to(model: LocalText) -> None:
    asked = Changed(model, unchanged)
    found = probe(asked, SPEC, WORDS)
    assert (found.completion, found.completion_top, found.chat) == (True, VOCABULARY, False)
    assert (found.echo, found.prompt_logprobs) == (PromptWay("echo"), PromptWay("prompt_logprobs"))
    assert (found.seeds, found.repeatable, found.lists, found.prompt_embeds) == (True, True, False, None)
    assert "chat template" in dict(found.reasons)["chat"]
    assert len(asked.asked) <= 16
    assert max(request.max_tokens for request in asked.asked) <= 16


def test_logprobs_that_are_ignored_are_not_believed(model: LocalText) -> None:
    found = probe(Changed(model, ignores_logprobs), SPEC, WORDS)
    assert (found.completion, found.completion_top, found.echo, found.prompt_logprobs) == (True, 0, None, None)
    assert choose(found, SPEC, WORDS, True) == Generated("completion", ANSWER_TOKENS)
    assert "log-probabilities of completions: no (it answers, and ignores that it was asked)" in found.sentences()


def test_an_echo_that_is_ignored_is_not_taken_for_one(model: LocalText) -> None:
    found = probe(Changed(model, ignores_extras), SPEC, WORDS)
    assert (found.completion_top, found.echo, found.prompt_logprobs) == (VOCABULARY, None, None)


@pytest.mark.parametrize("shift", [1, -1])
def test_an_echo_whose_values_stand_a_place_off_is_found_out_and_read_right(model: LocalText, shift: int) -> None:
    shifted = Changed(model, shifts_echo(shift))
    found = probe(shifted, SPEC, WORDS)
    assert found.echo == PromptWay("echo", shift)
    assert any("off, which is put right" in sentence for sentence in found.sentences())
    words = (("bad end",), ("great film",))
    wrong, right = PromptLogprobs("completion", found.echo), PromptLogprobs("completion", PromptWay("echo"))
    requests = right.requests("it was", words)
    assert wrong.read(shifted.ask(requests), words).logits == pytest.approx(
        right.read(model.ask(requests), words).logits, abs=1e-4
    )


def test_an_echo_with_values_of_its_own_is_not_used(model: LocalText) -> None:
    found = probe(Changed(model, wrong_echo), SPEC, WORDS)
    assert found.echo is None
    assert "differs from the log-probabilities" in dict(found.reasons)["echo"]


@pytest.mark.parametrize(("most", "top"), [(20, 20), (5, 5), (3, 0)])
def test_a_server_that_refuses_many_logprobs_is_asked_for_fewer(model: LocalText, most: int, top: int) -> None:
    found = probe(Changed(model, at_most(most)), SPEC, WORDS)
    assert found.completion_top == top
    assert ("HTTP 400" in dict(found.reasons).get("completion_top", "")) is (top == 0)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda token: replace(token, top=tuple((text, -value) for text, value in token.top)),
        lambda token: replace(token, top=tuple((text, value / 10) for text, value in token.top)),
        lambda token: replace(token, top=token.top[::-1]),
        lambda token: replace(token, text="?!"),
    ],
    ids=["positive", "more than one in sum", "rising", "without what was taken"],
)
def test_logprobs_that_cannot_be_are_not_used(model: LocalText, spoil: Callable[[Token], Token]) -> None:
    def change(request: Request, answer: Callable[[Request], Answer]) -> Answer:
        found = answer(request)
        return replace(found, tokens=tuple(spoil(token) for token in found.tokens))

    assert probe(Changed(model, change), SPEC, WORDS).completion_top == 0


def test_a_seed_that_is_ignored_is_found_out(model: LocalText) -> None:
    def change(request: Request, answer: Callable[[Request], Answer]) -> Answer:
        return answer(replace(request, seed=None, repeat=request.repeat + 7 * (request.seed or 0)))

    found = probe(Changed(model, change), SPEC, WORDS)
    assert not found.seeds
    assert dict(found.reasons)["seeds"] == "the same seed gives other texts"


def test_lists_are_believed_if_answers_and_tokens_are_those_of_each_by_itself(model: LocalText) -> None:
    def change(counts: Callable[[list[int]], int]) -> Change:
        def answer_list(request: Request, answer: Callable[[Request], Answer]) -> Answer:
            extra = dict(request.extra)
            if "prompt" not in extra:
                return answer(request)
            each = [answer(Request(prompt, "completion", extra["max_tokens"])) for prompt in extra["prompt"]]
            raw = {"choices": [{"text": one.text} for one in each]}
            return replace(each[0], raw=raw, input_tokens=counts([one.input_tokens for one in each]))

        return answer_list

    assert probe(Changed(model, change(sum)), SPEC, WORDS).lists
    found = probe(Changed(model, change(min)), SPEC, WORDS)
    assert not found.lists
    assert dict(found.reasons)["lists"] == "answered, but not all of their tokens are counted"


def test_embeddings_are_believed_if_they_are_answered_as_the_text(model: LocalText) -> None:
    def change(shift: float) -> Change:
        def answer_embeds(request: Request, answer: Callable[[Request], Answer]) -> Answer:
            text = dict(request.extra).get("prompt_embeds")
            found = answer(request if text is None else replace(request, prompt=text[::-1], extra=()))
            if text is None:
                return found
            moved = tuple((name, value - shift) for name, value in found.tokens[0].top)
            return replace(found, tokens=(replace(found.tokens[0], top=moved),))

        return answer_embeds

    assert probe(Changed(model, change(0.0)), SPEC, WORDS, lambda text: text[::-1]).prompt_embeds is True
    assert probe(Changed(model, change(0.01)), SPEC, WORDS, lambda text: text[::-1]).prompt_embeds is False
    assert probe(Changed(model, ignores_extras), SPEC, WORDS, lambda text: text[::-1]).prompt_embeds is False


def test_rate_limits_are_noted(model: LocalText) -> None:
    def change(request: Request, answer: Callable[[Request], Answer]) -> Answer:
        return replace(answer(request), headers={"x-ratelimit-limit-requests": "60"})

    assert probe(Changed(model, change), SPEC, WORDS).rate_limits == ("x-ratelimit-limit-requests",)


def test_a_server_that_answers_in_no_style_is_an_error(model: LocalText) -> None:
    def change(request: Request, answer: Callable[[Request], Answer]) -> Answer:
        raise EndpointError(f"no {request.style}")

    with pytest.raises(EndpointError, match="no chat"):
        probe(Changed(model, change), SPEC, WORDS)


def test_a_key_that_is_refused_is_asked_with_once(model: LocalText) -> None:
    def change(request: Request, answer: Callable[[Request], Answer]) -> Answer:
        raise Refused("HTTP 401: no such key", 401)

    asked = Changed(model, change)
    with pytest.raises(Refused, match="401"):
        probe(asked, SPEC, WORDS)
    assert len(asked.asked) == 1


def test_a_server_that_goes_down_is_no_server_that_cannot(model: LocalText) -> None:
    asked = 0

    def change(request: Request, answer: Callable[[Request], Answer]) -> Answer:
        nonlocal asked
        asked += 1
        if asked > 5:
            raise EndpointError("down")
        return answer(request)

    with pytest.raises(EndpointError, match="down"):
        probe(Changed(model, change), SPEC, WORDS)


def test_a_feature_that_breaks_the_server_is_a_feature_that_is_not_there(model: LocalText) -> None:
    def change(request: Request, answer: Callable[[Request], Answer]) -> Answer:
        if ("echo", True) in request.extra:
            raise EndpointError("HTTP 500")
        return answer(request)

    found = probe(Changed(model, change), SPEC, WORDS)
    assert found.echo is None
    assert found.prompt_logprobs is not None


def test_what_was_found_survives_json(model: LocalText) -> None:
    found = probe(model, SPEC, WORDS)
    assert Abilities.from_dict(json.loads(json.dumps(found.as_dict()))) == found


ALL = Abilities(
    chat=True, completion=True, chat_top=20, completion_top=20, echo=PromptWay("echo"), pieces=(("bad", "bad"),)
)


@pytest.mark.parametrize(
    ("changes", "demanded", "words", "name", "style"),
    [
        ({}, {}, WORDS, "label-logprobs", "completion"),
        ({"completion_top": 0}, {}, WORDS, "label-logprobs", "chat"),
        ({"completion_top": 0, "chat_top": 0}, {}, WORDS, "prompt-logprobs", "completion"),
        ({"completion_top": 0, "chat_top": 0, "echo": None}, {}, WORDS, "generated", "chat"),
        ({"completion": False, "chat_top": 0, "echo": None}, {}, WORDS, "generated", "chat"),
        ({}, {}, (("very bad",), ("very good",)), "prompt-logprobs", "completion"),
        ({"echo": None}, {}, (("very bad",), ("very good",)), "generated", "chat"),
        ({"completion_top": 1, "chat_top": 1}, {}, WORDS, "prompt-logprobs", "completion"),
        ({}, {"style": "chat"}, WORDS, "label-logprobs", "chat"),
        ({}, {"read": "generated"}, WORDS, "generated", "chat"),
        ({}, {"read": "generated", "style": "completion"}, WORDS, "generated", "completion"),
        ({}, {"read": "prompt-logprobs"}, WORDS, "prompt-logprobs", "completion"),
    ],
)
def test_the_best_way_that_is_there_is_chosen(
    changes: dict[str, object], demanded: dict[str, str], words: tuple[tuple[str, ...], ...], name: str, style: str
) -> None:
    spec = SPEC.model_copy(update=demanded)
    reader = choose(replace(ALL, **changes), spec, words, True)  # type: ignore[arg-type]
    assert (reader.name, reader.style) == (name, style)


def test_a_way_that_is_demanded_and_not_there_is_an_error_that_says_why() -> None:
    with pytest.raises(EndpointError, match="read: prompt-logprobs is possible, but prompt-logprobs: the server gives"):
        choose(replace(ALL, echo=None), SPEC.model_copy(update={"read": "prompt-logprobs"}), WORDS, True)
    with pytest.raises(EndpointError, match="does not answer in style chat"):
        choose(replace(ALL, chat=False), SPEC.model_copy(update={"style": "chat"}), WORDS, True)


def test_the_chosen_way_knows_what_was_seen() -> None:
    assert choose(ALL, SPEC, WORDS, True) == LabelLogprobs("completion", 20, {"bad": "bad"})
    asked = choose(ALL, SPEC.model_copy(update={"read": "prompt-logprobs"}), WORDS, False)
    assert asked.requests("x", WORDS)[0].prompt == "xbad"


def test_in_words_it_is_said_what_is_used_and_why() -> None:
    assert explain(ALL, SPEC, WORDS, True)[-1] == (
        "used: label-logprobs: the first token of completions, of which the 20 most probable are seen; "
        "the best way there is"
    )
    poor = replace(ALL, completion_top=0, chat_top=0, echo=None)
    assert "completions come without log-probabilities" in explain(poor, SPEC, WORDS, True)[-1]


def test_first_tokens_are_those_under_the_first_letters() -> None:
    texts = [" un", "happy", ",", " good", ", ", "very", " bad", "."]
    tokens = [Token(text, -1.0) for text in texts]
    assert first_tokens(tokens, ["unhappy", "good", "very bad", "absent"]) == {
        "unhappy": "un",
        "good": "good",
        "very bad": "very",
    }
