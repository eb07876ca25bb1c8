"""What requests and answers look like."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, FailFast, Field

Text = str | Annotated[list[str], Field(min_length=2, max_length=2)]


class Classify(BaseModel):
    """Texts to be labelled under one prompt."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"prompt": "quickstart", "texts": ["The bill has the same item twice"]}]},
    )

    prompt: str | None = Field(None, description="Name of the prompt; may be left out where only one is served.")
    texts: Annotated[list[Text], FailFast()] = Field(  # a body has room for half a million faults
        min_length=1, description="Texts, or [text, text] each under a prompt for pairs (`kind: pair`)."
    )


class Prediction(BaseModel):
    """What the model says of a text."""

    label: str = Field(description="The most probable label.")
    probability: float = Field(description="Its probability among the prompt's labels.")
    probabilities: dict[str, float] = Field(description="Of every label.")


class Classified(BaseModel):
    """One prediction for each text, in order."""

    prompt: str
    predictions: list[Prediction]


class Prompt(BaseModel):
    """A prompt that is served."""

    name: str
    labels: list[str]
    kind: Literal["single", "pair"] = Field(description="Whether it takes texts, or pairs of texts.")
    model: str = Field(description="The frozen model, as the job names it.")
    task: str = Field(description="The task that it was tuned on.")
    metric: str
    test_score: float = Field(description="Of the tuned prompt on the task's test split.")


class Prompts(BaseModel):
    """All prompts, in the order in which they were added."""

    prompts: list[Prompt]


class Run(BaseModel):
    """Where a finished run lies."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"run": "/srv/runs/support-v2"}]})

    run: str = Field(min_length=1, description="Whole path of a finished run on the server's machine, or its address.")


class Removed(BaseModel):
    """A prompt that is served no more."""

    removed: str


class Health(BaseModel):
    """A server that can classify."""

    status: Literal["ok"] = "ok"


class Fault(BaseModel):
    """Why a request was refused."""

    message: str = Field(description="What was expected, what came, what to do.")
    expected: str | None = Field(None, description="The first of these alone, where it can be said so.")


class Refused(BaseModel):
    """A request that was refused."""

    error: Fault
