"""Answers in words against truths in words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bbtune.errors import TaskError
from bbtune.task.free_form import exact_match, regex_match, token_f1

TEXTS = st.text(alphabet="ab the.,!A ", max_size=20)


@pytest.mark.parametrize(
    ("answer", "truth", "score"),
    [
        ("The Eiffel Tower!", "eiffel tower", 1.0),
        ("in the  Eiffel Tower", "Eiffel Tower", 0.0),
        ("", "", 1.0),
        ("the", "", 1.0),
        ("U.S.A.", "USA", 1.0),
    ],
)
def test_case_punctuation_and_articles_do_not_matter(answer: str, truth: str, score: float) -> None:
    assert exact_match(answer, truth) == score


def test_f1_is_the_share_of_common_words() -> None:
    assert token_f1("a red apple on the table", "red apple") == pytest.approx(2 * 2 / (4 + 2))
    assert token_f1("red red", "red") == pytest.approx(2 / 3)
    assert token_f1("green", "red") == 0.0
    assert token_f1("", "red") == 0.0


@given(TEXTS, TEXTS)
def test_f1_is_symmetric_between_0_and_1_and_1_for_an_exact_match(one: str, other: str) -> None:
    score = token_f1(one, other)
    assert 0 <= score <= 1
    assert score == token_f1(other, one)
    if exact_match(one, other):
        assert score == 1.0


def test_a_pattern_is_searched_in_the_answer() -> None:
    assert regex_match("The total is 42 euros", r"\b42\b") == 1.0
    assert regex_match("The total is 421 euros", r"\b42\b") == 0.0


def test_a_pattern_that_is_none_is_the_tasks_fault() -> None:
    with pytest.raises(TaskError, match="expected a regular expression, got '\\('"):
        regex_match("x", "(")
