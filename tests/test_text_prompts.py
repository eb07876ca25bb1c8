"""What a text model is asked about an example."""

from __future__ import annotations

import numpy as np

from bbtune.prompts.text import TextSpace
from bbtune.task.task import Example
from bbtune.task.template import Template
from bbtune.text_spec import TextPromptSpec

TRAIN = [Example("a dull film", None, 0), Example("a warm film", None, 1)]
WORDS = (("bad",), ("great",))


def test_an_example_is_asked_without_the_demonstration_that_holds_its_answer() -> None:
    spec = TextPromptSpec(kind="text", text="Judge.", demonstrations=2)
    space = TextSpace(spec, Template("{text} . it was {mask}", "single"), WORDS, TRAIN, 20)
    prompt = space.prompt(np.array([0, 2, 1]))
    dull, warm = "a dull film . it was bad\n\n", "a warm film . it was great\n\n"
    assert prompt.preamble == f"Judge.\n\n{warm}{dull}"
    assert prompt.render(TRAIN[0], 80) == f"Judge.\n\n{warm}a dull film . it was"
    assert prompt.render(TRAIN[1], 80) == f"Judge.\n\n{dull}a warm film . it was"
    assert prompt.render(Example("another", None, 0), 80) == f"{prompt.preamble}another . it was"
