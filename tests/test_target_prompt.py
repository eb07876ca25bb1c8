"""What of a template a search may change: variables and what is around them stay."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow.prompt.constants import PROMPT_TEMPLATE_VARIABLE_PATTERN

from bbtune.errors import TaskError
from bbtune.target_prompt import PlainWriter, TargetPrompt
from bbtune.text_search.writer import Ask


@pytest.mark.parametrize(
    ("template", "instruction", "other"),
    [
        ("Answer the question: {{ q }}", "Answer the question:", "NEW {{ q }}"),
        ("Be brief.\n\nQuestion: {{q}}\nAnswer:", "Be brief.", "NEW\n\nQuestion: {{q}}\nAnswer:"),
        ("Be brief.\nBe kind.\n\n{{q}}", "Be brief.\nBe kind.", "NEW\n\n{{q}}"),
        ("{{ text }}\nIs it good, or bad?\nAnswer:", "Is it good, or bad?", "{{ text }}\nNEW\nAnswer:"),
        ("Hi {{ name }}, say what {{ text }} is.", ", say what", "Hi {{ name }}NEW {{ text }} is."),
        ("Question: {{q}}\nAnswer:", "", "NEW\nQuestion: {{q}}\nAnswer:"),
        ("{{q}}", "", "NEW\n{{q}}"),
        ("", "", "NEW\n"),
        ("Think first, then answer.", "Think first, then answer.", "NEW"),
        (
            "Be brief. {% if tone %}Be {{ tone }}.{% endif %} {{ q }}",
            "Be brief.",
            "NEW {% if tone %}Be {{ tone }}.{% endif %} {{ q }}",
        ),
        ("{# a note #}Be brief. {{ q }}", "Be brief.", "{# a note #}NEW {{ q }}"),
    ],
)
def test_the_instruction_is_the_longest_text_beside_the_variables(template: str, instruction: str, other: str) -> None:
    target = TargetPrompt.read(template)
    assert target.instruction == instruction
    assert target.render(" ".join(instruction.split())) == template
    assert target.render("NEW") == other


def test_of_a_chat_the_first_message_with_words_is_changed_and_the_others_stay() -> None:
    chat = [
        {"role": "system", "content": "{{ persona }}"},
        {"role": "user", "content": "Say what this is: {{ text }}"},
        {"role": "assistant", "content": "I say what it is."},
    ]
    target = TargetPrompt.read(json.dumps(chat))
    assert target.instruction == "Say what this is:"
    assert target.render("Say what this is:") == json.dumps(chat)
    changed = [chat[0], {"role": "user", "content": "Für mich: {{ text }}"}, chat[2]]
    assert json.loads(target.render("Für mich:")) == changed


def test_a_chat_without_words_is_refused() -> None:
    parts = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://of-the-tests"}}]}]
    with pytest.raises(TaskError, match="expected a chat with a message in words"):
        TargetPrompt.read(json.dumps(parts))


def test_an_instruction_may_become_empty() -> None:
    assert TargetPrompt.read("Be brief.\n\nQuestion: {{q}}").render("") == "Question: {{q}}"
    assert TargetPrompt.read("{{q}}\nIs it?\nAnswer:").render("") == "{{q}}\nAnswer:"


@settings(deadline=None)
@given(st.lists(st.sampled_from(["{{ a }}", "{{b}}", "word", "\n", " ", "{", "}", "Q:", "{% if a %}"]), max_size=9))
def test_no_variable_is_ever_lost_or_won(pieces: list[str]) -> None:
    template = "".join(pieces)
    rendered = TargetPrompt.read(template).render("some other words")
    found = PROMPT_TEMPLATE_VARIABLE_PATTERN.findall
    assert found(rendered) == found(template)


def test_a_writers_text_with_a_variable_counts_as_none() -> None:
    class Inserting:
        def write(self, asks: list[Ask]) -> list[str]:
            return ["Say {{ this }}.", "{% raw %}", "Say that."]

    assert PlainWriter(Inserting()).write([]) == ["", "", "Say that."]
