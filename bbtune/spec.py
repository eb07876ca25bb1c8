"""The job as strict, frozen data, with one hash. :mod:`bbtune.jobfile` reads it and tells its faults."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Self

import yaml
from pydantic import AfterValidator, ConfigDict, Field, model_validator

from bbtune.backbone_spec import BackboneSpec
from bbtune.endpoint_spec import NOT_OF_THE_TRACE, ApiSpec
from bbtune.errors import hide_credentials
from bbtune.methods import BaselineSpec, Part, filled_in
from bbtune.presets import PRESETS
from bbtune.prompt_spec import MethodSpec, PromptSpec
from bbtune.run_spec import MONEY, BudgetSpec, EvaluatorsSpec, SelectionSpec, TrackingSpec
from bbtune.source_names import absolute_path, place_free
from bbtune.task_spec import TaskSpec
from bbtune.text_spec import TextMethodSpec, TextPromptSpec


def _storage(place: str) -> str:
    """A URL without credentials, or a path made absolute."""
    if hide_credentials(place) != place:
        raise ValueError("expected no user, password or key in it, a job is kept and shown; set it in the environment")
    return place if "://" in place else absolute_path(place)


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
    """Names the run folder."""
    task: TaskSpec
    backbone: BackboneSpec
    prompt: PromptSpec | TextPromptSpec = PromptSpec()
    method: Part
    selection: SelectionSpec = SelectionSpec()
    budget: BudgetSpec
    evaluators: EvaluatorsSpec = EvaluatorsSpec()
    tracking: TrackingSpec = TrackingSpec()
    storage: Annotated[str, Field(min_length=1), AfterValidator(_storage)] | None = None
    """Where the run's folder goes, `STORAGE/<name>-<hash>`: a path that all machines see, or a URL such as
    `s3://bucket/runs`; else `BBTUNE_STORAGE`, else `runs` in the working folder."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of projections, optimizers and bootstrap."""

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


_OF_A_PAPER = {
    "required": ["method"],
    "properties": {"method": {"required": ["preset"], "properties": {"preset": {"not": {"const": "default"}}}}},
}


class JobSpec(BaseJob):
    """One search of a continuous prompt."""

    model_config = ConfigDict(json_schema_extra=filled_in("budget", given=_OF_A_PAPER))

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
