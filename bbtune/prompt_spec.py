"""What a job says of a continuous prompt and of the search for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from bbtune.methods import Part
from bbtune.presets import OPTIMIZER_DEFAULTS, PresetName

DEFAULT_OPTIMIZER = "auto"


class PromptSpec(Part):
    """The prompt that is searched: its text, where it stands, and which hidden states are tuned."""

    kind: Literal["offset", "prefix"] = "prefix"
    """`prefix`: states set at every layer; `offset`: added to the prompt's states, as in BBT and BBTv2; `text`: words,
    with keys of its own."""
    place: Literal["before", "after"] = "before"
    """`before`: behind the leading special tokens; `after`: behind the text, in causal models."""
    text: Annotated[str, Field(min_length=1)] | None = None
    """An instruction, the ground that the prompt is tuned from; else placeholders."""
    tokens: Annotated[int, Field(ge=1)] | None = None
    """Prompt length, a shorter text is repeated; else the length of the text, else 10."""
    layers: Literal["all", "input"] | Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] = "all"
    """`all` (BBTv2), `input` (BBT), or a list of numbers, the lowest layer is 0."""
    intrinsic_dim: Annotated[int, Field(ge=1)] = 200
    """Numbers per layer that the optimizer sees."""


class MethodSpec(Part):
    """How a search works; a preset gives the defaults, then what goes with the optimizer."""

    preset: PresetName = "default"
    """`paper-bbt`, `paper-bbtv2`: the paper's numbers, also of prompt and budget; the job's own keys win."""
    optimizer: str = DEFAULT_OPTIMIZER
    """`auto` is chosen by the budget and by what the evaluator returns; `own:NAME` is a class that is given in
    Python."""
    population: Annotated[int, Field(ge=2)] = 20
    """Candidates per generation, of `gauss-newton` probes per round: 40 with `auto` and `gauss-newton`, 11 with `spsa`,
    else 20."""
    sigma: Annotated[float, Field(gt=0)] = 0.2
    """Initial step."""
    alpha: Annotated[float, Field(gt=0)] = 0.7
    """Size of a first prompt, in standard deviations of the hidden states."""
    loss: Literal["cross-entropy", "hinge"] = "cross-entropy"
    """Of train, which the search minimises; `hinge` has margin 2."""
    blocks: Literal["layerwise", "joint"] = "layerwise"
    """`layerwise`: one optimizer per layer in turn; `joint`: one for all. Else `joint` with `auto`, `gauss-newton` and
    `spsa`, `layerwise` with others."""
    accept: Literal["improves", "best-ever"] = "improves"
    """`improves`: a layer changes when the loss falls; `best-ever`: the paper's rule."""
    schedule: Literal["round-robin", "whole-sweeps", "recent-gain"] = "round-robin"
    """`whole-sweeps`: only as many whole rounds as the budget holds; `recent-gain`: the layer that lately lowered the
    loss most per layer-forward (not with `best-ever`)."""
    generations_per_visit: Annotated[int, Field(ge=1)] = 1
    """Generations of one layer in a row, before the next layer's turn; a whole round has so many of each."""
    restarts: Annotated[int, Field(ge=0)] = 0
    """An optimizer that comes to its end is made anew around its best point, so many times."""
    members: Annotated[int, Field(ge=1)] = 1
    """Searches with different seeds that take turns; what is handed out is the mean of theirs."""
    l2: Annotated[float, Field(ge=0)] = 0.0
    """Pull towards the starting point: half of it times the mean square of z, in steps of sigma, is added to the train
    loss."""
    probe_examples: Annotated[int, Field(ge=1)] | None = None
    """Train examples that a probe of `gauss-newton` is scored on, others each round; twice as many after a round that
    gained nothing. Else all; with `auto`, 128 or more train examples and no `budget.evaluations`, a fifth."""

    @model_validator(mode="before")
    @classmethod
    def _fill_from_optimizer(cls, raw: Any) -> Any:
        if not isinstance(raw, Mapping) or not isinstance(name := raw.get("optimizer", DEFAULT_OPTIMIZER), str):
            return raw
        return {**OPTIMIZER_DEFAULTS.get(name, {}), **raw}

    @property
    def first_extras(self) -> int:
        """Candidates of a first generation beside the population: the start, or gauss-newton's centre and steps."""
        return 4 if self.optimizer == "gauss-newton" else int(self.scores_start)

    @property
    def scores_start(self) -> bool:
        """Whether the starting point is scored before the first generation; gauss-newton's first is that point."""
        return self.accept == "improves" and self.optimizer != "gauss-newton"
