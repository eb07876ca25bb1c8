"""The job as strict, frozen data, with one hash. :mod:`bbtune.jobfile` reads it and tells its faults."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from math import ceil
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import AfterValidator, Field, model_validator

from bbtune.endpoint_spec import NOT_OF_THE_TRACE, ApiSpec
from bbtune.errors import hide_credentials
from bbtune.methods import BaselineSpec, Part
from bbtune.presets import OPTIMIZER_DEFAULTS, PRESETS, PresetName
from bbtune.source_names import ModelSource, TaskSource, TestSource, absolute_path, place_free
from bbtune.text_spec import TextMethodSpec, TextPromptSpec, Word


def _without_credentials(uri: str) -> str:
    if hide_credentials(uri) != uri:
        raise ValueError(
            "expected no user or password in it, a job is kept and shown; set MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD in the environment, or for a database the whole MLFLOW_TRACKING_URI"
        )
    return uri


def _storage(place: str) -> str:
    """A URL without credentials, or a path made absolute."""
    if hide_credentials(place) != place:
        raise ValueError("expected no user, password or key in it, a job is kept and shown; set it in the environment")
    return place if "://" in place else absolute_path(place)


DEFAULT_OPTIMIZER = "auto"


class ColumnsSpec(Part):
    """Which columns of a table hold what."""

    text: str = "text"
    text_b: str | None = None
    label: str = "label"


class TaskSpec(Part):
    """The data and how they are put to the model; what a task card gives is the default."""

    source: TaskSource
    shots: Annotated[int, Field(ge=1)] | None = None
    seed: Annotated[int, Field(ge=0)] = 13
    template: str | None = None
    label_words: list[Word | list[Word]] | None = None
    labels: list[str] | None = None
    metric: Literal["accuracy", "macro_f1", "f1", "matthews", "exact_match", "token_f1", "regex"] | None = None
    positive_label: str | None = None
    columns: ColumnsSpec = ColumnsSpec()
    test: TestSource | None = None
    holdout: Annotated[float, Field(gt=0, lt=1)] = 0.5


class BackboneSpec(Part):
    """The frozen model, here or behind an API; given both, the one here has the other's tokenizer and embeddings."""

    model: ModelSource | None
    api: ApiSpec | None = None
    kind: Literal["auto", "masked-lm", "causal-lm", "seq2seq-lm", "sentence-encoder"] = "auto"
    revision: str | None = None
    dtype: Literal["float32", "bfloat16"] = "float32"
    device: Annotated[str, Field(pattern=r"^(cpu|cuda(:\d+)?)$")] = "cpu"
    max_tokens: Annotated[int, Field(ge=8)] = 256
    temperature: Annotated[float, Field(gt=0)] = 0.05
    trust_remote_code: bool = False
    allow_pickle: bool = False

    @model_validator(mode="before")
    @classmethod
    def _model_may_be_remote(cls, raw: Any) -> Any:
        return {"model": None, **raw} if isinstance(raw, Mapping) and raw.get("api") is not None else raw

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if self.model is None and self.api is None:
            raise ValueError("expected model (one that is loaded here) or api (one that is asked), got neither")
        return self

    @property
    def named(self) -> str:
        """The model in a few words."""
        return self.api.place if self.api else str(self.model)


class PromptSpec(Part):
    """The prompt that is searched: its text, where it stands, and which hidden states are tuned."""

    kind: Literal["offset", "prefix"] = "prefix"
    place: Literal["before", "after"] = "before"
    text: Annotated[str, Field(min_length=1)] | None = None
    tokens: Annotated[int, Field(ge=1)] | None = None
    layers: Literal["all", "input"] | Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] = "all"
    intrinsic_dim: Annotated[int, Field(ge=1)] = 200


class MethodSpec(Part):
    """How a search works; a preset gives the defaults, then what goes with the optimizer."""

    preset: PresetName = "default"
    optimizer: str = DEFAULT_OPTIMIZER
    population: Annotated[int, Field(ge=2)] = 20
    sigma: Annotated[float, Field(gt=0)] = 0.2
    alpha: Annotated[float, Field(gt=0)] = 0.7
    loss: Literal["cross-entropy", "hinge"] = "cross-entropy"
    blocks: Literal["layerwise", "joint"] = "layerwise"
    accept: Literal["improves", "best-ever"] = "improves"
    schedule: Literal["round-robin", "whole-sweeps", "recent-gain"] = "round-robin"
    generations_per_visit: Annotated[int, Field(ge=1)] = 1
    restarts: Annotated[int, Field(ge=0)] = 0
    members: Annotated[int, Field(ge=1)] = 1
    l2: Annotated[float, Field(ge=0)] = 0.0
    probe_examples: Annotated[int, Field(ge=1)] | None = None

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


class SelectionSpec(Part):
    """Which prompt of a search is handed out, judged on dev; what is None goes by the optimizer."""

    by: Literal["metric", "loss", "last"] | None = None
    average: Annotated[int, Field(ge=1)] | None = None
    patience: Annotated[int, Field(ge=1)] | None = None


class BudgetSpec(Part):
    """Hard limits; at least one. Those on money hold over the whole run, the others over the search."""

    evaluations: Annotated[int, Field(ge=1)] | None = None
    examples: Annotated[int, Field(ge=1)] | None = None
    layer_forwards: Annotated[int, Field(ge=1)] | None = None
    seconds: Annotated[float, Field(gt=0)] | None = None
    requests: Annotated[int, Field(ge=1)] | None = None
    tokens: Annotated[int, Field(ge=1)] | None = None
    dollars: Annotated[float, Field(gt=0)] | None = None


MONEY = {"requests", "tokens", "dollars"}  # caps on what an API is paid, the test split included


class EvaluatorsSpec(Part):
    """Where candidates are scored: ``count`` 0 in this process, else on up to that many Ray actors.

    A ``shared`` pool serves all searches on the cluster that ask for the same model in the same way, and ends when
    none has asked for ``idle_s``.
    """

    count: Annotated[int, Field(ge=0)] = 0
    pool: Literal["private", "shared"] = "private"
    idle_s: Annotated[float, Field(gt=0)] = 120.0
    cpus: Annotated[float, Field(gt=0)] = 1
    gpus: Annotated[float, Field(ge=0)] = 0

    @property
    def threads(self) -> int:
        """Threads of one evaluator; part of the numerics, whatever the number of evaluators."""
        return max(1, ceil(self.cpus))


class TrackingSpec(Part):
    """Where MLflow records the run; without ``uri`` the environment decides, then a local database."""

    enabled: bool = True
    uri: Annotated[str, AfterValidator(_without_credentials)] | None = None
    experiment: Annotated[str, Field(min_length=1)] = "bbtune"


_API: dict[str, Any] = {"api": NOT_OF_THE_TRACE}
_APART: dict[str, Any] = {
    **dict.fromkeys(("name", "tracking", "evaluators", "storage"), True),
    "budget": MONEY,
    "backbone": _API,
    "method": {"writer": _API},
}


class BaseJob(Part):
    """What every job says, whatever its method."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] = "job"
    task: TaskSpec
    backbone: BackboneSpec
    prompt: PromptSpec | TextPromptSpec = PromptSpec()
    method: Part
    selection: SelectionSpec = SelectionSpec()
    budget: BudgetSpec
    evaluators: EvaluatorsSpec = EvaluatorsSpec()
    tracking: TrackingSpec = TrackingSpec()
    storage: Annotated[str, Field(min_length=1), AfterValidator(_storage)] | None = None
    seed: Annotated[int, Field(ge=0)] = 0

    @property
    def apis(self) -> dict[str, ApiSpec]:
        """The endpoints that it asks, by where it says so."""
        return {"backbone.api": self.backbone.api} if self.backbone.api else {}

    @property
    def spec_hash(self) -> str:
        """SHA-256 (hex) of all that decides the trace: not name, tracking, number of evaluators, caps on money.

        Of local data and models the last part of the path counts: a journal knows their content by its own hash.
        """
        kept = self.model_dump(mode="json", exclude=_APART)
        for part, key in (("task", "source"), ("task", "test"), ("backbone", "model")):
            kept[part][key] = place_free(kept[part][key])
        kept["threads"] = self.evaluators.threads
        return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()

    @property
    def method_name(self) -> str:
        """Of the method, short."""
        raise NotImplementedError

    def with_seed(self, seed: int) -> Self:
        """The job with another few-shot draw and another seed of everything random."""
        return self.model_copy(update={"seed": seed, "task": self.task.model_copy(update={"seed": seed})})

    def to_yaml(self) -> str:
        """The whole job, defaults written out, as YAML."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


class JobSpec(BaseJob):
    """One search of a continuous prompt."""

    prompt: PromptSpec = PromptSpec()
    method: MethodSpec = MethodSpec()

    @model_validator(mode="before")
    @classmethod
    def _fill_from_preset(cls, raw: Any) -> Any:
        if not isinstance(raw, Mapping) or not isinstance(method := raw.get("method", {}), Mapping):
            return raw
        preset = method.get("preset", "default")
        return merged(PRESETS.get(preset, {}) if isinstance(preset, str) else {}, raw)

    @property
    def method_name(self) -> str:
        """The preset of a paper, else the optimizer."""
        return self.method.optimizer if self.method.preset == "default" else self.method.preset


class TextJob(BaseJob):
    """One search of a prompt in words."""

    prompt: TextPromptSpec
    method: TextMethodSpec = TextMethodSpec()

    @property
    def apis(self) -> dict[str, ApiSpec]:
        """The endpoints that it asks, by where it says so: of the model, and of the writer."""
        writer = self.method.writer
        return super().apis | ({"method.writer.api": writer.api} if writer and writer.api else {})

    @property
    def method_name(self) -> str:
        """The search."""
        return self.method.search


class BaselineJob(BaseJob):
    """One baseline; its budget may be left open, because its method ends by itself."""

    prompt: PromptSpec = PromptSpec()
    method: BaselineSpec
    budget: BudgetSpec = BudgetSpec()

    @property
    def method_name(self) -> str:
        """As the job names it."""
        return self.method.name


def flattened(tree: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """``{"task.shots": 16, ...}`` of nested mappings."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= flattened(value, f"{above}{key}.") if isinstance(value, Mapping) else {f"{above}{key}": value}
    return found


def merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Nested mappings laid over each other; a copy."""
    result: dict[str, Any] = {k: merged({}, v) if isinstance(v, Mapping) else v for k, v in under.items()}
    for key, value in over.items():
        below = result.get(key)
        if isinstance(value, Mapping):
            value = merged(below if isinstance(below, Mapping) else {}, value)
        result[str(key)] = value
    return result
