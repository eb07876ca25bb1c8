"""Label scores out of answers that are written down here."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bbtune.endpoint.matching import said_label, told_apart
from bbtune.endpoint.reading import FreeForm, Generated, LabelLogprobs, PromptLogprobs
from bbtune.endpoint.request import Answer, Token
from bbtune.endpoint.shown import PromptWay
from bbtune.errors import EndpointError
from bbtune.task.free_form import token_f1

WORDS = (("negative",), ("positive", "good"))


def first(*top: tuple[str, float]) -> Answer:
    """An answer of one token, the first of these."""
    pairs = tuple((text, math.log(share)) for text, share in top)
    return Answer(top[0][0], (Token(top[0][0], pairs[0][1], pairs),), 1, 1)


def echo(*tokens: tuple[str, float | None]) -> Answer:
    return Answer("", tuple(Token(text, value) for text, value in tokens), 1, 1)


def test_surface_variants_and_the_words_of_a_label_are_summed() -> None:
    answer = first(
        (" Positive", 0.3), ("positive", 0.2), (" POS", 0.1), (" good", 0.1), (" negative", 0.05), (".", 0.01)
    )
    reading = LabelLogprobs("completion", 6).read([answer], WORDS)
    assert np.exp(reading.logits) == pytest.approx([0.05, 0.7])
    assert (reading.missing, reading.unmatched) == (0, 0)
    assert reading.logits.dtype == np.float32


def test_a_label_that_is_missing_is_bounded_by_the_last_value_and_counted() -> None:
    reading = LabelLogprobs("chat", 3).read([first((" positive", 0.6), (" the", 0.2), (" a", 0.1))], WORDS)
    assert np.exp(reading.logits) == pytest.approx([0.1, 0.6])
    assert reading.missing == 1


@pytest.mark.parametrize("token", [" ", "", "\n", "p", " no", " positively", '"'])
def test_tokens_that_could_be_anything_stand_for_no_label(token: str) -> None:
    assert LabelLogprobs("chat", 2).read([first((token, 0.6), ("?", 0.1))], WORDS).missing == 2


def test_a_token_that_begins_words_of_two_labels_stands_for_none() -> None:
    words = (("unhappy",), ("unsure",))
    assert LabelLogprobs("chat", 2).read([first((" un", 0.6), ("?", 0.1))], words).missing == 2


def test_short_tokens_count_where_they_were_seen_to_begin_the_word() -> None:
    words = (("anger",), ("joy",))
    answer = first((" a", 0.6), (" joy", 0.3), ("?", 0.1))
    assert LabelLogprobs("chat", 3).read([answer], words).missing == 1
    assert LabelLogprobs("chat", 3, {"anger": "a"}).read([answer], words).missing == 0
    assert LabelLogprobs("chat", 3, {"anger": "anger"}).read([first((" ang", 0.6), ("?", 0.1))], words).missing == 2


def test_an_answer_that_ends_before_it_begins_says_nothing() -> None:
    reading = LabelLogprobs("chat", 3).read([Answer("", (), 1, 0)], WORDS)
    assert reading.logits == pytest.approx([math.log(0.5)] * 2)
    assert reading.unmatched == 1


def test_text_without_logprobs_is_a_fault_of_the_endpoint_and_no_score() -> None:
    with pytest.raises(EndpointError, match="expected log-probabilities with the answer"):
        LabelLogprobs("chat", 3).read([Answer("positive", (), 1, 1)], WORDS)


@pytest.mark.parametrize(
    ("words", "pieces", "apart"),
    [
        ((("bad",), ("great",)), {}, True),
        ((("very bad",), ("very good",)), {}, False),
        ((("unhappy",), ("unsure",)), {}, True),
        ((("unhappy",), ("unsure",)), {"unhappy": "un", "unsure": "uns"}, False),
        ((("account",), ("accept",)), {}, False),
        ((("account",), ("accept",)), {"account": "account", "accept": "accept"}, True),
        ((("no",), ("none",)), {}, False),
    ],
)
def test_labels_are_told_apart_by_their_first_tokens(
    words: tuple[tuple[str, ...], ...], pieces: dict[str, str], apart: bool
) -> None:
    assert told_apart(words, pieces) is apart


def test_words_behind_the_text_are_scored_by_all_their_tokens() -> None:
    reader = PromptLogprobs("completion", PromptWay("echo"))
    words = (("bad",), ("great", "very good"))
    sent = reader.requests("It was", words)
    assert [request.prompt for request in sent] == ["It was bad", "It was great", "It was very good"]
    assert {request.extra for request in sent} == {(("echo", True),)}
    text: list[tuple[str, float | None]] = [("It", None), (" was", -3.0)]
    answers = [
        echo(*text, (" bad", -2.0), ("!", -0.1)),
        echo(*text, (" gre", -1.5), ("at", -0.5), ("!", -0.1)),
        echo(*text, (" very", -2.5), (" good", -0.5), ("!", -0.1)),
    ]
    logits = reader.read(answers, words).logits
    assert logits == pytest.approx([-2.0, np.logaddexp(-2.0, -3.0)])


def test_a_word_that_takes_letters_of_the_text_into_its_token_is_compared_over_the_same_stretch() -> None:
    reader = PromptLogprobs("completion", PromptWay("echo"), follows_space=False)
    assert reader.requests("(", (("a",), ("b",)))[0].prompt == "(a"
    answers = [
        echo(("x", None), (" (a", -1.0), ("!", 0.0)),
        echo(("x", None), (" (", -0.5), ("b", -0.7), ("!", 0.0)),
    ]
    assert reader.read(answers, (("a",), ("b",))).logits == pytest.approx([-1.0, -1.2])


def test_an_echo_without_the_token_that_ends_the_answer_is_no_score_of_a_word_that_was_cut_off() -> None:
    reader = PromptLogprobs("completion", PromptWay("echo"))
    whole = echo(("It", None), (" was", -3.0), (" bad", -2.0), ("!", -0.1))
    cut = echo(("It", None), (" was", -3.0), (" great", -1.0))
    with pytest.raises(EndpointError, match=r"expected the tokens of a prompt that ends in 'great', got .* 'It was'"):
        reader.read([whole, cut], (("bad",), ("great",)))


@pytest.mark.parametrize("shift", [1, -1])
def test_values_that_stand_a_place_off_are_put_right(shift: int) -> None:
    def answer(word: str, value: float) -> Answer:
        row = [("It", None), (" was", -3.0), (word, value), ("!", -0.1)]
        values: list[float | None] = [None] * len(row)
        for place, (_, own) in enumerate(row):
            if 0 <= place + shift < len(row):
                values[place + shift] = own
        return echo(*((text, values[place]) for place, (text, _) in enumerate(row)))

    reader = PromptLogprobs("completion", PromptWay("echo", shift))
    read = reader.read([answer(" bad", -2.0), answer(" great", -1.0)], (("bad",), ("great",)))
    assert read.logits == pytest.approx([-2.0, -1.0])


def test_prompt_logprobs_are_read_in_the_shape_of_vllm() -> None:
    def answer(word: str, value: float) -> Answer:
        places = [None, {"7": {"logprob": -3.0, "rank": 4, "decoded_token": " was"}}]
        places.append({"9": {"logprob": value, "rank": 1, "decoded_token": word}})
        return Answer("!", (), 1, 1, raw={"choices": [{"prompt_logprobs": places}]})

    reader = PromptLogprobs("completion", PromptWay("prompt_logprobs"))
    assert reader.requests("It was", WORDS)[0].extra == (("prompt_logprobs", 0),)
    read = reader.read([answer(" bad", -2.0), answer(" great", -1.0)], (("bad",), ("great",)))
    assert read.logits == pytest.approx([-2.0, -1.0])


@pytest.mark.parametrize("key", ["echo", "prompt_logprobs"])
def test_an_answer_without_the_prompts_logprobs_is_a_fault_of_the_endpoint(key: str) -> None:
    with pytest.raises(EndpointError, match="probe the endpoint again"):
        PromptLogprobs("completion", PromptWay(key)).read([first(("!", 0.5))] * 3, WORDS)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        ("Positive", 1),
        ("  **positive**.", 1),
        ('"Good!"', 1),
        ("negative - it is not positive", 0),
        ("The topic is negative.", 0),
        ("It is positive and negative", None),
        ("positively", None),
        ("", None),
        ("I do not know", None),
    ],
)
def test_an_answer_is_matched_to_what_it_begins_with_else_to_the_only_label_in_it(
    answer: str, label: int | None
) -> None:
    assert said_label(answer, WORDS) == label


def test_of_words_that_begin_alike_the_longest_is_said() -> None:
    assert said_label("Not good.", (("not",), ("not good",))) == 1


def test_words_of_signs_and_of_other_letters_are_matched_too() -> None:
    assert said_label("+", (("+",), ("-",))) == 0
    assert said_label("好!", (("坏",), ("好",))) == 1


def test_what_is_said_has_nearly_all_of_the_probability() -> None:
    reader = Generated("chat", 8)
    words = (("a",), ("b",), ("c",))
    reading = reader.read([Answer("b", (), 1, 1)], words)
    assert np.exp(reading.logits) == pytest.approx([0.025, 0.95, 0.025])
    silent = reader.read([Answer("hm", (), 1, 1)], words)
    assert np.exp(silent.logits) == pytest.approx([1 / 3] * 3)
    assert (reading.unmatched, silent.unmatched) == (0, 1)


def test_a_completion_in_words_ends_with_its_line() -> None:
    assert Generated("completion", 8).requests("x", WORDS)[0].stop == ("\n",)
    assert Generated("chat", 8).requests("x", WORDS)[0].stop == ()


def test_free_answers_are_scored_against_their_truth() -> None:
    reader = FreeForm("chat", 16, token_f1)
    (request,) = reader.requests("Who?")
    assert (request.prompt, request.max_tokens) == ("Who?", 16)
    assert reader.read([Answer("The cat", (), 1, 2)], "cat") == 1.0


@given(
    st.lists(st.tuples(st.text(max_size=6), st.floats(0.001, 0.05)), min_size=1, max_size=20, unique_by=lambda p: p[0])
)
def test_labels_never_have_more_probability_than_the_tokens_that_were_seen(top: list[tuple[str, float]]) -> None:
    reading = LabelLogprobs("chat", 20).read([first(*top)], WORDS)
    seen = math.fsum(share for _, share in top)
    found = list(np.exp(reading.logits))
    least = min(share for _, share in top)
    assert sum(found) <= seen + reading.missing * least + 1e-6
    assert min(found) >= least - 1e-6
