"""What a job says of a text prompt and of the search for it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from bbtune.endpoint_spec import ANSWER_TOKENS, ApiSpec
from bbtune.methods import Part
from bbtune.source_names import ModelSource


def _word(word: str) -> str:
    if not word.strip():
        raise ValueError("expected a word")
    return word


Word = Annotated[str, AfterValidator(_word)]
Text = Annotated[str, AfterValidator(_word)]


class TextPromptSpec(Part):
    """The text prompt that is searched: what it starts from, and what else it may be made of."""

    kind: Literal["text"]
    """`text`: the prompt is words."""
    text: Text | None = None
    """The instruction that a search starts from, and zero-shot is measured with."""
    instructions: list[Text] = Field(default_factory=list)
    """Others to choose from and to make new ones of; without any, six plain ones that name the labels."""
    keywords: Annotated[int, Field(ge=0)] = 0
    """Slots for words that say most about a label in the train texts."""
    demonstrations: Annotated[int, Field(ge=0)] = 0
    """Slots for solved train examples: which, and in what order; an example is never asked behind its own answer."""
    templates: list[Text] = Field(default_factory=list)
    """Templates to choose from, beside that of the task."""
    label_words: list[list[Word | list[Word]]] = Field(default_factory=list)
    """Lists of label words to choose from, beside those of the task."""
    answer_tokens: Annotated[int, Field(ge=1)] = ANSWER_TOKENS
    """Most tokens of an answer in words: where labels are read from the text, and for tasks whose answers are words."""

    @property
    def place(self) -> str:
        """Where it stands: the text comes last."""
        return "before"

    @property
    def tokens(self) -> None:
        """Virtual tokens: none."""

    @property
    def layers(self) -> None:
        """That are tuned: none."""


class WriterSpec(Part):
    """The model that proposes instructions: one in this process, or one behind an API."""

    model: ModelSource | None = None
    """In this process: `hf:NAME`, `path:DIR` or `path:FILE.gguf`, `package:NAME`, `cache:NAME`."""
    api: ApiSpec | None = None
    """Behind an API, in place of `model`."""
    max_tokens: Annotated[int, Field(ge=4)] = 40
    """Of an instruction."""
    temperature: Annotated[float, Field(ge=0)] = 0.8
    """At which it writes."""


class TextMethodSpec(Part):
    """How a text prompt is searched."""

    search: str = "genetic"
    """Its name."""
    population: Annotated[int, Field(ge=2)] = 8
    """Candidates of a generation, the best so far among them."""
    minibatch: Annotated[int, Field(ge=1)] | None = None
    """Train examples of a generation, others each time, the same for all its candidates; else all."""
    race: Annotated[int, Field(ge=1)] | None = None
    """Examples of a block, after which candidates that are clearly worse (two standard errors of the paired difference)
    drop out."""
    loss: Literal["cross-entropy", "hinge"] = "cross-entropy"
    """Of train, which the search minimises; `hinge` has margin 2."""
    writer: WriterSpec | None = None
    """Who paraphrases and combines instructions."""
    learning_rate: Annotated[float, Field(gt=0)] = 0.5
    """Of `policy-gradient`."""
    intrinsic_dim: Annotated[int, Field(ge=1)] = 10
    """Numbers of a vector of `instruct-zero`."""
    sigma: Annotated[float, Field(gt=0)] = 1.0
    """Initial step in the vectors of `instruct-zero`."""
