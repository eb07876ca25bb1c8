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
    text: Text | None = None
    instructions: list[Text] = Field(default_factory=list)
    keywords: Annotated[int, Field(ge=0)] = 0
    demonstrations: Annotated[int, Field(ge=0)] = 0
    templates: list[Text] = Field(default_factory=list)
    label_words: list[list[Word | list[Word]]] = Field(default_factory=list)
    answer_tokens: Annotated[int, Field(ge=1)] = ANSWER_TOKENS

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
    api: ApiSpec | None = None
    max_tokens: Annotated[int, Field(ge=4)] = 40
    temperature: Annotated[float, Field(ge=0)] = 0.8


class TextMethodSpec(Part):
    """How a text prompt is searched.

    ``minibatch`` and ``race`` are train examples: those of a generation, and those of a block after which candidates
    that are clearly worse are dropped.
    """

    search: str = "genetic"
    population: Annotated[int, Field(ge=2)] = 8
    minibatch: Annotated[int, Field(ge=1)] | None = None
    race: Annotated[int, Field(ge=1)] | None = None
    loss: Literal["cross-entropy", "hinge"] = "cross-entropy"
    writer: WriterSpec | None = None
    learning_rate: Annotated[float, Field(gt=0)] = 0.5
    intrinsic_dim: Annotated[int, Field(ge=1)] = 10
    sigma: Annotated[float, Field(gt=0)] = 1.0
