"""How a language model is asked for an instruction, and what its answer is worth."""

from __future__ import annotations

import re

from bbtune.text_search.writer import Ask

_CHAT = {
    "paraphrase": (
        "Here is an instruction for a task.\n\nInstruction: {0}\n\nSay the same in other words, as one clear "
        "instruction. Reply with the new instruction alone, in one line."
    ),
    "combine": (
        "Here are two instructions for the same task.\n\nInstruction 1: {0}\nInstruction 2: {1}\n\nWrite one new "
        "instruction that joins the best of both. Reply with the new instruction alone, in one line."
    ),
}
# Models that were not taught to follow instructions go on as in the example.
_COMPLETION = {
    "paraphrase": (
        "Instruction: Decide if the message is spam.\nThe same in other words: Tell whether this is an unwanted "
        "message.\n\nInstruction: {0}\nThe same in other words:"
    ),
    "combine": (
        "Instruction 1: Decide if the message is spam.\nInstruction 2: Read the mail and say what kind it is.\n"
        "Both in one: Read the mail and decide if it is spam.\n\n"
        "Instruction 1: {0}\nInstruction 2: {1}\nBoth in one:"
    ),
}
_LABEL = re.compile(
    r"^(?:[-*•>#]+\s+|\(?\d{1,2}[.)]\s+|\**(?:(?:the|new|rewritten|combined|final|revised)\s+)*"
    r"(?:instruction|paraphrase|rewrite|the same in other words|both in one)(?:\s+\d+)?\**\s*:\**\s*)",
    re.IGNORECASE,
)
_QUOTES = (('"', '"'), ("'", "'"), ("`", "`"), ("“", "”"), ("«", "»"), ("**", "**"), ("*", "*"))


def chat_prompt(ask: Ask) -> str:
    """The message to a model that follows instructions; of a paraphrase or a combination."""
    return _CHAT[ask.kind].format(*ask.texts)


def completion_prompt(ask: Ask) -> str:
    """The text that a plain language model goes on from, up to the end of a line."""
    return _COMPLETION[ask.kind].format(*ask.texts)


def instruction_in(answer: str) -> str:
    """The instruction in a model's answer: its first line of use, without label, number and quotes; else nothing.

    Lines that end in a colon announce something and are passed over, and so are lines without two letters.
    """
    for line in answer.splitlines():
        text = _bare(line)
        if sum(character.isalpha() for character in text) > 1 and not text.endswith(":"):
            return text
    return ""


def _bare(line: str) -> str:
    """The line without what stands around an instruction, however often."""
    text, before = " ".join(line.split()), None
    while text != before:
        before = text
        text = _LABEL.sub("", text, count=1).strip()
        for left, right in _QUOTES:
            if len(text) > len(left) + len(right) and text.startswith(left) and text.endswith(right):
                text = text[len(left) : -len(right)].strip()
    return text
