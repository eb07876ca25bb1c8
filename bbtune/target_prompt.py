"""A prompt of MLflow's: what of it a search may change, and what stays, its variables before all."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bbtune.errors import TaskError
from bbtune.text_search.writer import Ask, Writer

# A variable, and what Jinja templates have beside them.
_MARKUP = re.compile(r"\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\}", re.DOTALL)
_LABEL_WORDS = 2  # of a last line such as "Question:", which belongs to the variable behind it


@dataclass(frozen=True)
class TargetPrompt:
    """A template as three texts, of which the middle one is the instruction.

    The instruction is the longest text before, between or behind variables, by words, of equals the first; a label
    that stands alone on its last line, such as ``Question:``, is no part of it. Of a chat it is that of the first
    message which has one.

    Attributes:
        template: as it was given; of a chat the messages as JSON.
        before, instruction, after: of the template, or of the one message.
        message: number of that message, None where the template is no chat.
    """

    template: str
    before: str
    instruction: str
    after: str
    message: int | None = None

    @classmethod
    def read(cls, template: str) -> TargetPrompt:
        """Find the instruction; an empty one before all where there is none.

        Raises:
            TaskError: for a chat without a message in words.
        """
        messages = _messages(template)
        contents: dict[int | None, str] = {None: template} if messages is None else _contents(messages)
        if not contents:
            raise TaskError(f"expected a chat with a message in words, got {template[:200]}; give it one")
        for number, content in contents.items():
            if found := _instruction(content):
                start, end = found
                return cls(template, content[:start], content[start:end], content[end:], number)
        number, content = next(iter(contents.items()))
        return cls(template, "", "", f"\n{content}", number)

    def render(self, instruction: str) -> str:
        """The template with another instruction; with its own, white space apart, as it was given."""
        if instruction == " ".join(self.instruction.split()):
            return self.template
        text = self.before + instruction + (self.after if instruction else self.after.lstrip())
        messages = None if self.message is None else _messages(self.template)
        if messages is None or self.message is None:
            return text
        messages[self.message]["content"] = text
        return json.dumps(messages, ensure_ascii=False)


class PlainWriter:
    """A writer whose texts hold no variables; one that does counts as none.

    Args:
        writer: of the texts.
    """

    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    def write(self, asks: Sequence[Ask]) -> list[str]:
        """One text for each ask; an empty one where nothing of use came."""
        return ["" if has_markup(text) else text for text in self._writer.write(asks)]


def has_markup(text: str) -> bool:
    """Whether a text holds what MLflow may read as a variable, or as Jinja."""
    return any(mark in text for mark in ("{{", "}}", "{%", "%}", "{#", "#}"))


def _messages(template: str) -> list[dict[str, Any]] | None:
    """The messages of a chat; None of a text."""
    try:
        read = json.loads(template)
    except ValueError:
        return None
    chat = isinstance(read, list) and read and all(isinstance(one, dict) and "role" in one for one in read)
    return read if chat else None


def _contents(messages: Sequence[dict[str, Any]]) -> dict[int | None, str]:
    """The messages in words, by number."""
    found = {number: message.get("content") for number, message in enumerate(messages)}
    return {number: content for number, content in found.items() if isinstance(content, str)}


def _instruction(content: str) -> tuple[int, int] | None:
    """Where the instruction begins and ends."""
    marks = [match.span() for match in _MARKUP.finditer(content)]
    starts, ends = [0, *(end for _, end in marks)], [*(start for start, _ in marks), len(content)]
    spans = [_bare(content, start, end) for start, end in zip(starts, ends, strict=True)]
    start, end = max(spans, key=lambda span: len(content[slice(*span)].split()))
    return (start, end) if start < end else None


def _bare(content: str, start: int, end: int) -> tuple[int, int]:
    """The part of a text without white space around it, and without labels on its last lines."""
    text = content[start:end]
    kept = text.rstrip()
    while (line := kept.rpartition("\n")[2].strip()).endswith(":") and len(line.split()) <= _LABEL_WORDS:
        kept = kept.rpartition("\n")[0].rstrip()
    if not re.search(r"\w", kept):
        return start, start
    return start + len(text) - len(text.lstrip()), start + len(kept)
