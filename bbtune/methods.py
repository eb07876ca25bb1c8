"""What a baseline is given in a job: ``method: {name: ...}``, one small class for each kind of method.

A job whose method has no name is a search (:class:`bbtune.prompt_spec.MethodSpec`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Part(BaseModel):
    """A part of a job: strict, frozen, unknown keys refused."""

    # Inputs are hidden so that a refused password is not shown by pydantic's own error text either.
    # What a key means stands behind it once, for readers, `bbtune schema` and the reference.
    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        hide_input_in_errors=True,
        use_attribute_docstrings=True,
    )


def filled_in(*keys: str, given: Mapping[str, Any] | None = None) -> Callable[[dict[str, Any]], None]:
    """For the JSON Schema of a part: its validator fills keys in that are declared without a default.

    Args:
        keys: of the part.
        given: what the rest of the part must hold for that; None for nothing.
    """

    def change(schema: dict[str, Any]) -> None:
        schema["required"] = [key for key in schema["required"] if key not in keys]
        if given is not None:
            schema["anyOf"] = [{"required": list(keys)}, dict(given)]

    return change


class Price(NamedTuple):
    """What a fit takes, in the units of :class:`bbtune.loop.Cost`."""

    evaluations: int
    examples: int


class MethodPart(Part):
    """The settings of a baseline."""

    def price(self, train: int, dev: int) -> Price:
        """What a fit takes at least, of so many train and dev examples: dev is judged once, if nothing else is said."""
        return Price(0, dev)


class UntunedSpec(MethodPart):
    """The best constant answer, or the untouched model with the instruction in words."""

    name: Literal["majority", "zero-shot"]

    def price(self, train: int, dev: int) -> Price:
        """A constant answer needs no model."""
        return Price(0, 0 if self.name == "majority" else dev)


class EnsembleSpec(MethodPart):
    """The mean of the label probabilities under several templates (Voronov et al. 2024, arXiv 2401.06766)."""

    name: Literal["template-ensemble"]
    templates: Annotated[list[str], Field(min_length=2)]
    """Of the task, two or more."""

    def price(self, train: int, dev: int) -> Price:
        """Dev under every template."""
        return Price(0, len(self.templates) * dev)


class InContextSpec(MethodPart):
    """Solved train examples before the text; the order that dev selects of several (Lu et al. 2022, 2104.08786)."""

    name: Literal["in-context"]
    demonstrations: Annotated[int, Field(ge=1)] = 4
    """Solved examples; long ones are cut to equal shares of `backbone.max_tokens`."""
    orders: Annotated[int, Field(ge=1)] = 4
    """Draws and orders of them, of which dev selects one."""

    def price(self, train: int, dev: int) -> Price:
        """Dev behind every order."""
        return Price(0, self.orders * dev)


class CalibrationSpec(MethodPart):
    """Label probabilities divided by those of texts without content (Zhao et al. 2021, arXiv 2102.09690)."""

    name: Literal["calibration"]
    neutral: Annotated[list[str], Field(min_length=1)] = ["N/A", "nothing", "..."]
    """Texts that say nothing."""

    def price(self, train: int, dev: int) -> Price:
        """The neutral texts, and dev."""
        return Price(0, len(self.neutral) + dev)


class ProbeSpec(MethodPart):
    """Logistic regression on pooled features of the frozen model; dev selects the strength C."""

    name: Literal["logistic-regression"]
    strengths: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=1)] = [0.1, 1.0, 10.0, 100.0, 1000.0]
    """Values of C, of which dev selects one."""

    def price(self, train: int, dev: int) -> Price:
        """Every text once, and a fit for every strength."""
        return Price(len(self.strengths), train + dev)


class TrainedSpec(MethodPart):
    """Gradient descent (AdamW) on the train split; dev selects the epoch and stops it early."""

    model_config = ConfigDict(json_schema_extra=filled_in("learning_rate"))

    name: Literal["prompt-tuning", "deep-prompts", "prefix-tuning", "bitfit", "ia3", "fine-tuning"]
    learning_rate: Annotated[float, Field(gt=0)]
    """Of AdamW."""
    epochs: Annotated[int, Field(ge=1)] = 20
    """Passes over train at most; ten without a better one on dev end it (`selection.patience`)."""
    batch_size: Annotated[int, Field(ge=1)] = 16
    """Of all workers together."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Of AdamW."""

    @model_validator(mode="before")
    @classmethod
    def _fill_from_method(cls, raw: Any) -> Any:
        known = isinstance(raw, Mapping) and isinstance(raw.get("name"), str)
        return {**TRAINING_DEFAULTS.get(raw["name"], {}), **raw} if known else raw

    def price(self, train: int, dev: int) -> Price:
        """The start, judged on dev, and one epoch."""
        return Price(1, train + 2 * dev)


class LowRankSpec(TrainedSpec):
    """What is trained is a product of two thin matrices."""

    name: Literal["lora", "low-rank-prompt", "dept"]  # type: ignore[assignment]
    rank: Annotated[int, Field(ge=1)] = 8
    """Of the product."""


class WidthSpec(TrainedSpec):
    """What is trained has hidden units of its own."""

    name: Literal["adapter"]  # type: ignore[assignment]
    width: Annotated[int, Field(ge=1)] = 64
    """Hidden units."""


class HeadSpec(WidthSpec):
    """A network on what the frozen model makes of the texts, which run through it once."""

    name: Literal["mlp", "bilstm"]  # type: ignore[assignment]

    def price(self, train: int, dev: int) -> Price:
        """Every text once, and one epoch."""
        return Price(1, train + dev)


class SetFitSpec(MethodPart):
    """Contrastive fine-tuning of a sentence encoder, then a logistic regression (Tunstall et al. 2022, 2209.11055)."""

    name: Literal["setfit"]
    learning_rate: Annotated[float, Field(gt=0)] = 2e-5
    """Of AdamW."""
    epochs: Annotated[int, Field(ge=1)] = 1
    """Passes over the pairs."""
    batch_size: Annotated[int, Field(ge=1)] = 16
    """Pairs of a step."""
    pairs_per_example: Annotated[int, Field(ge=1)] = 10
    """Pairs of one label, and as many of two, for each train example."""

    def pairs(self, train: int) -> int:
        """Pairs of an epoch: for every train example so many of one label, and as many of two."""
        return 2 * self.pairs_per_example * train

    def price(self, train: int, dev: int) -> Price:
        """All epochs, two texts for a pair, and every text once for the classifier."""
        return Price(self.epochs, 2 * self.epochs * self.pairs(train) + train + dev)


BaselineSpec = Annotated[
    UntunedSpec
    | EnsembleSpec
    | InContextSpec
    | CalibrationSpec
    | ProbeSpec
    | TrainedSpec
    | LowRankSpec
    | WidthSpec
    | HeadSpec
    | SetFitSpec,
    Field(discriminator="name"),
]

# What goes with a method where the job does not say otherwise; docs/decisions.md has the figures behind them.
TRAINING_DEFAULTS: dict[str, dict[str, Any]] = {
    "prompt-tuning": {"learning_rate": 0.03},
    "deep-prompts": {"learning_rate": 0.03},
    "prefix-tuning": {"learning_rate": 0.03},
    "low-rank-prompt": {"learning_rate": 0.03},
    "dept": {"learning_rate": 0.03},
    "bitfit": {"learning_rate": 3e-3},
    "lora": {"learning_rate": 1e-3},
    "adapter": {"learning_rate": 1e-3},
    "ia3": {"learning_rate": 0.01},
    "fine-tuning": {"learning_rate": 2e-5},
    "mlp": {"learning_rate": 1e-3, "epochs": 100},
    "bilstm": {"learning_rate": 1e-3, "epochs": 100},
}


PROMPTED = ("prompt-tuning", "deep-prompts", "low-rank-prompt", "dept")  # train states at the positions of a prompt
OWN_WEIGHTS = ("bitfit", "fine-tuning")  # train weights of the model itself, and not others beside them


def _classes() -> dict[str, type[Part]]:
    members = get_args(get_args(BaselineSpec)[0])
    return {name: cls for cls in members for name in get_args(cls.model_fields["name"].annotation)}


_CLASSES = _classes()
BASELINES = tuple(_CLASSES)


def method_class(name: str) -> type[Part]:
    """The settings of a baseline."""
    return _CLASSES[name]


_Settings = TypeVar("_Settings")


def settings_of(job: Any, kind: type[_Settings]) -> _Settings:
    """The settings of a job's method.

    Raises:
        TypeError: if they are of another kind, which parsing does not let happen.
    """
    method = getattr(job, "method", None)
    if not isinstance(method, kind):
        raise TypeError(f"expected a job whose method is of {kind.__name__}, got {method!r}")
    return method
