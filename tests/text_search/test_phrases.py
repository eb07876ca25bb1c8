"""Instructions as phrases."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bbtune.text_search.choices import Choices, Library
from bbtune.text_search.phrases import Editor, phrases

WORDS = st.lists(
    st.sampled_from(["say", "tell", "whether", "and", "the", "review", "good,", "bad;", "or", "not.", "in", "word"]),
    min_size=1,
)


def editor(*given_texts: str, seed: int = 0) -> Editor:
    library = Library(given_texts)
    return Editor(Choices(library, len(library), ()), np.random.default_rng(seed))


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (
            "Read the review, then say whether it is good or bad.",
            ["Read the review,", "then say", "whether it is good", "or bad."],
        ),
        ("Classify", ["Classify"]),
        ("In which of the two", ["In which of the two"]),
        ("", []),
    ],
)
def test_a_text_is_cut_behind_punctuation_and_before_small_words(text: str, parts: list[str]) -> None:
    assert phrases(text) == parts


@given(WORDS)
def test_the_phrases_of_a_text_are_the_text(words: list[str]) -> None:
    assert " ".join(phrases(" ".join(words))) == " ".join(words)


@given(WORDS, WORDS, st.integers(0, 99))
def test_edits_leave_a_text_that_is_made_of_known_phrases(one: list[str], other: list[str], seed: int) -> None:
    texts = " ".join(one), " ".join(other)
    edits = editor(*texts, seed=seed)
    known = {word for text in texts for word in text.split()}
    text = texts[0]
    for _ in range(30):
        text = edits.edit(text)
        assert text
        assert set(text.split()) <= known
        assert set(edits.cross(text, texts[1]).split()) <= known


def test_a_deleted_phrase_of_a_written_text_can_come_back() -> None:
    edits = editor("Say it, now.")
    found = {edits.edit("Say it, gently, now.") for _ in range(40)}
    assert "Say it, now." in found
    assert any("gently" in edits.edit("Say it, now.") for _ in range(40))


def test_texts_do_not_grow_without_end() -> None:
    edits = editor("one two, three four, five six, seven eight", seed=3)
    text = "one two,"
    for _ in range(300):
        text = edits.cross(edits.edit(text), text + " and " + text)
        assert len(text.split()) <= 24


def test_an_empty_text_takes_phrases_of_others() -> None:
    edits = editor("", "Say it, now.")
    assert {edits.edit("") for _ in range(20)} == {"Say it,", "now."}
    assert edits.cross("", "Say it,") == edits.cross("Say it,", "") == "Say it,"
    assert editor("").edit("") == editor("").cross("", "") == ""
