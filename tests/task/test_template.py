"""Templates: what a model is shown, and what is refused."""

import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bbtune.errors import TaskError
from bbtune.task.template import Template

TEXTS = st.text(max_size=30)


@given(TEXTS, TEXTS)
@settings(max_examples=50, deadline=None)
def test_texts_are_put_in_as_they_are_braces_and_field_names_included(text_a: str, text_b: str) -> None:
    template = Template("{text_a} ? {mask} , {text_b}", "pair")
    assert template.render({"text_a": text_a, "text_b": text_b}, "<mask>") == f"{text_a} ? <mask> , {text_b}"


def test_a_field_name_inside_an_example_is_text() -> None:
    assert Template("{text} It was {mask}.").render({"text": "{mask} {text} {0}"}, "#") == "{mask} {text} {0} It was #."


@given(TEXTS)
@settings(max_examples=50, deadline=None)
def test_doubled_braces_stand_for_themselves(literal: str) -> None:
    doubled = literal.replace("{", "{{").replace("}", "}}")
    assert Template(doubled + "{text}").render({"text": "x"}, None) == literal + "x"


@pytest.mark.parametrize(
    ("text", "rendered"),
    [
        ("{text} It was {mask}.", "good It was"),
        ("{text}: {mask}", "good:"),
        ("{text}\n\t{mask}", "good\n\t"),
        ("{text}\nLabel:  {mask}", "good\nLabel: "),
        ("{text}", "good"),
        ("{text} ", "good"),
    ],
)
def test_without_a_mask_the_text_ends_before_it_and_before_one_space(text: str, rendered: str) -> None:
    assert Template(text).render({"text": "good"}, None) == rendered


@pytest.mark.parametrize(
    ("text", "follows"),
    [
        ("{text} It was {mask}.", True),
        ("{text}\n{mask}", False),
        ("{text}:{mask}", False),
        ("{mask} News: {text}", False),
        ("{text}{mask}", False),
        ("{text} {{{mask}}}", False),
        ("{text}{{ {mask}", True),
        ("{text}", False),
    ],
)
def test_it_knows_whether_a_space_stands_directly_before_the_mask(text: str, follows: bool) -> None:
    assert Template(text).mask_follows_space is follows


@pytest.mark.parametrize(
    ("text", "behind"),
    [
        ("{text_a} ? {mask} , {text_b}", ["text_b"]),
        ("{mask} {text_a} {text_b}", ["text_a", "text_b"]),
        ("{text_a} {text_b} {mask} .", []),
        ("{text_a} {text_b}", []),
    ],
)
def test_it_knows_what_stands_behind_the_mask(text: str, behind: list[str]) -> None:
    assert Template(text, "pair").fields_behind_mask == behind


@pytest.mark.parametrize(
    ("text", "kind", "ending"),
    [
        ("{text} It was {mask}.", "single", " It was"),
        ("{text}\nLabel:{mask}", "single", "\nLabel:"),
        ("Topic of {text}? {{it}}  {mask}", "single", "? {it} "),
        ("{text} {mask}", "single", ""),
        ("{text}{mask}", "single", ""),
        ("{text}\n{mask}", "single", "\n"),
        ("{text} It was", "single", " It was"),
        ("Label: {text}", "single", ""),
        ("{text_a} and {text_b} : {mask} !", "pair", " :"),
        ("{text_a} is {mask} , {text_b}", "pair", " is"),
    ],
)
def test_it_knows_what_stands_between_the_last_field_and_the_mask(text: str, kind: str, ending: str) -> None:
    template = Template(text, kind)
    assert template.ending == ending
    if not template.fields_behind_mask:
        shown = template.render({"text": "<>", "text_a": "<>", "text_b": "<>"}, None)
        assert shown.rpartition("<>")[2] == ending


def test_it_knows_whether_it_has_a_mask() -> None:
    assert Template("{text} {mask}").has_mask
    assert not Template("{text} {{mask}}").has_mask


@pytest.mark.parametrize(
    ("text", "kind", "said"),
    [
        ("It was {mask}.", "single", "template lacks {text}, got 'It was {mask}.'"),
        ("{text_a} {mask}", "pair", "template lacks {text_b}"),
        ("{mask}", "pair", "template lacks {text_a}, {text_b}"),
        ("{txt} {mask}", "single", 'unknown field {txt}, expected {text}, {mask}; did you mean "text"?'),
        ("{text} {text_b}", "single", "unknown field {text_b}"),
        ("{text} {}", "single", "unknown field {}"),
        ("{text} {0}", "single", "unknown field {0}"),
        ("{text.upper} {mask}", "single", "unknown field {text.upper}"),
        ("{text[0]} {mask}", "single", "unknown field {text[0]}"),
        ("{text} {mask} {mask}", "single", "template has 2 {mask}, expected one"),
        ("{text} {mask", "single", "double braces that are text"),
        ("{text} } {mask}", "single", "double braces that are text"),
        ("{text!r} {mask}", "single", "no format or conversion, got one at {text}"),
        ("{text} {mask:>9}", "single", "no format or conversion, got one at {mask}"),
    ],
)
def test_a_template_at_fault_is_refused_in_words(text: str, kind: str, said: str) -> None:
    with pytest.raises(TaskError) as caught:
        Template(text, kind)
    assert said in str(caught.value)


def test_it_crosses_process_borders_whole() -> None:
    template = Template("{text_a} ? {mask} , {text_b}", "pair")
    assert pickle.loads(pickle.dumps(template)) == template
