"""The job as strict, frozen data: read from YAML, overrides or Python; one hash.

Only what can be judged from the job alone is judged here. What needs the data, the tokenizer or the
model's configuration is judged in :mod:`bbtune.plan`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from math import ceil
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from bbtune.errors import Fault, JobError, did_you_mean
from bbtune.presets import PRESETS, PresetName


def _absolute(source: str) -> str:
    """Expand ``~`` and ``$NAME`` in sources that are local paths, and make them absolute."""
    scheme, colon, rest = source.partition(":")
    if not colon or scheme not in {"folder", "file", "path"}:
        return source
    path = os.path.expanduser(os.path.expandvars(rest))
    if unset := re.findall(r"\$\{?(\w+)", path):
        raise ValueError(f"the environment variable {unset[0]} is not set; set it to the folder that it stands for")
    return f"{scheme}:{os.path.abspath(path)}"


def _task_source(source: str) -> str:
    scheme, _, rest = source.partition(":")
    if scheme not in {"folder", "file", "hf", "builtin"} or not rest:
        raise ValueError("expected folder:DIR, file:TABLE, hf:NAME or builtin:NAME")
    return _absolute(source)


def _test_source(source: str) -> str:
    if not source.startswith("file:") or source == "file:":
        raise ValueError("expected file:TABLE")
    return _absolute(source)


def _model_source(source: str) -> str:
    scheme, _, rest = source.partition(":")
    if scheme not in {"hf", "path", "package", "cache"} or not rest:
        raise ValueError("expected hf:NAME, path:DIR_OR_GGUF, package:NAME or cache:NAME")
    return _absolute(source)


_CREDENTIALS = re.compile(r"://[^/\n].*@")  # of scheme://user:password@host; files (sqlite:///a@b) have none


def _without_credentials(uri: str) -> str:
    if _CREDENTIALS.search(uri):
        raise ValueError(
            "expected no user or password in it, a job is kept and shown; set MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD in the environment, or for a database the whole MLFLOW_TRACKING_URI"
        )
    return uri


def _word(word: str) -> str:
    if not word.strip():
        raise ValueError("expected a word")
    return word


_Word = Annotated[str, AfterValidator(_word)]


class _Part(BaseModel):
    # Inputs are hidden so that a refused password is not shown by pydantic's own error text either.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, hide_input_in_errors=True)


class ColumnsSpec(_Part):
    """Which columns of a table hold what."""

    text: str = "text"
    text_b: str | None = None
    label: str = "label"


class TaskSpec(_Part):
    """The data and how they are put to the model; what a task card gives is the default."""

    source: Annotated[str, AfterValidator(_task_source)]
    shots: Annotated[int, Field(ge=1)] | None = None
    seed: Annotated[int, Field(ge=0)] = 13
    template: str | None = None
    label_words: list[_Word | list[_Word]] | None = None
    labels: list[str] | None = None
    metric: Literal["accuracy", "macro_f1", "f1", "matthews"] | None = None
    positive_label: str | None = None
    columns: ColumnsSpec = ColumnsSpec()
    test: Annotated[str, AfterValidator(_test_source)] | None = None
    holdout: Annotated[float, Field(gt=0, lt=1)] = 0.5


class BackboneSpec(_Part):
    """The frozen model."""

    model: Annotated[str, AfterValidator(_model_source)]
    kind: Literal["auto", "masked-lm", "causal-lm", "sentence-encoder"] = "auto"
    revision: str | None = None
    dtype: Literal["float32", "bfloat16"] = "float32"
    device: Annotated[str, Field(pattern=r"^(cpu|cuda(:\d+)?)$")] = "cpu"
    max_tokens: Annotated[int, Field(ge=8)] = 256
    temperature: Annotated[float, Field(gt=0)] = 0.05
    trust_remote_code: bool = False
    allow_pickle: bool = False


class PromptSpec(_Part):
    """The prompt that is searched: its text, and which hidden states are tuned."""

    kind: Literal["offset", "prefix"] = "prefix"
    text: Annotated[str, Field(min_length=1)] | None = None
    tokens: Annotated[int, Field(ge=1)] | None = None
    layers: Literal["all", "input"] | Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] = "all"
    intrinsic_dim: Annotated[int, Field(ge=1)] = 200


class MethodSpec(_Part):
    """How the search works; a preset gives the defaults."""

    preset: PresetName = "default"
    optimizer: str = "cma-diagonal"
    population: Annotated[int, Field(ge=2)] = 20
    sigma: Annotated[float, Field(gt=0)] = 0.2
    alpha: Annotated[float, Field(gt=0)] = 0.7
    loss: Literal["cross-entropy", "hinge"] = "cross-entropy"
    blocks: Literal["layerwise", "joint"] = "layerwise"
    accept: Literal["improves", "best-ever"] = "improves"
    schedule: Literal["round-robin", "whole-sweeps"] = "round-robin"


class BudgetSpec(_Part):
    """Hard limits of the search; at least one."""

    evaluations: Annotated[int, Field(ge=1)] | None = None
    examples: Annotated[int, Field(ge=1)] | None = None
    seconds: Annotated[float, Field(gt=0)] | None = None


class EvaluatorsSpec(_Part):
    """Where candidates are scored: ``count`` 0 in this process, else on that many Ray actors."""

    count: Annotated[int, Field(ge=0)] = 0
    cpus: Annotated[float, Field(gt=0)] = 1
    gpus: Annotated[float, Field(ge=0)] = 0

    @property
    def threads(self) -> int:
        """Threads of one evaluator; part of the numerics, whatever the number of evaluators."""
        return max(1, ceil(self.cpus))


class TrackingSpec(_Part):
    """Where MLflow records the run; without ``uri`` the environment decides, then a local database."""

    enabled: bool = True
    uri: Annotated[str, AfterValidator(_without_credentials)] | None = None
    experiment: Annotated[str, Field(min_length=1)] = "bbtune"


class JobSpec(_Part):
    """One tuning job."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] = "job"
    task: TaskSpec
    backbone: BackboneSpec
    prompt: PromptSpec = PromptSpec()
    method: MethodSpec = MethodSpec()
    budget: BudgetSpec
    evaluators: EvaluatorsSpec = EvaluatorsSpec()
    tracking: TrackingSpec = TrackingSpec()
    seed: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="before")
    @classmethod
    def _fill_from_preset(cls, raw: Any) -> Any:
        if not isinstance(raw, Mapping) or not isinstance(method := raw.get("method", {}), Mapping):
            return raw
        preset = method.get("preset", "default")
        return _merged(PRESETS.get(preset, {}) if isinstance(preset, str) else {}, raw)

    @property
    def spec_hash(self) -> str:
        """SHA-256 (hex) of all that decides the trace: not the name, the tracking or the number of evaluators."""
        kept = self.model_dump(mode="json", exclude={"name", "tracking", "evaluators"})
        kept["threads"] = self.evaluators.threads
        return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()

    def to_yaml(self) -> str:
        """The whole job, defaults written out, as YAML."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def load_job(path: str | Path, overrides: Sequence[str] = ()) -> JobSpec:
    """Read a job file.

    Args:
        path: YAML file.
        overrides: ``key.path=value`` each, the value read as YAML.

    Raises:
        JobError: with every fault of the job that its text alone can show.
    """
    spec, faults, _ = read_job(path, overrides)
    if faults or spec is None:
        raise JobError(faults)
    return spec


def read_job(path: str | Path, overrides: Sequence[str] = ()) -> tuple[JobSpec | None, list[Fault], set[str]]:
    """Read as much of a job file as can be read: the spec, the faults, and the paths left out as faulty."""
    try:
        raw = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise JobError([Fault("", f"cannot read the job file {path}: {error.strerror}")]) from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: not UTF-8, or a date such as 2024-13-01
        raise JobError([Fault("", f"{path} is not YAML: {_yaml_fault(error)}")]) from error
    if not isinstance(raw, dict):
        raise JobError([Fault("", f"{path}: expected a mapping with task, backbone and budget, got {_kind(raw)}")])
    for override in overrides:
        _override(raw, override)
    return parse_job(raw)


# What stands for a required key that is missing or faulty while the rest of the job is judged.
_STAND_INS: dict[str, dict[str, Any]] = {
    "task": {"source": "builtin:support"},
    "backbone": {"model": "package:none"},
    "budget": {"evaluations": 1 << 62},
}


def parse_job(raw: Mapping[str, Any]) -> tuple[JobSpec | None, list[Fault], set[str]]:
    """Validate ``raw``; faulty keys are reported, dropped and replaced by defaults so that the rest is judged too."""
    faults: list[Fault] = []
    broken: set[str] = set()
    data = _merged({}, raw)
    for _ in range(3):  # dropping a faulty key can only reveal that a required one is missing
        try:
            spec = JobSpec.model_validate(data)
        except ValidationError as error:
            by_path: dict[str, Any] = {}
            for item in error.errors():  # of the members of a union, the one that came furthest speaks
                best = by_path.setdefault(_path(item["loc"]), item)
                if len(item["loc"]) > len(best["loc"]):
                    by_path[_path(item["loc"])] = item
            faults += [_fault(item) for path, item in by_path.items() if path not in broken]
            broken |= set(by_path)
            for item in by_path.values():
                _replace(data, item)
        else:
            return spec, faults + _combinations(spec, broken), broken
    return None, faults, broken


def _combinations(spec: JobSpec, broken: set[str]) -> list[Fault]:
    """Faults of fields that are right alone and wrong together; those that rest on a broken one are left out."""
    faults = []
    budget, method, cuda = spec.budget, spec.method, spec.backbone.device.startswith("cuda")

    def sound(*paths: str) -> bool:
        return not any(f"{b}.".startswith(f"{p}.") or p.startswith(f"{b}.") for b in broken for p in paths)

    if sound("budget") and budget.evaluations is None and budget.examples is None and budget.seconds is None:
        faults.append(Fault("budget", "expected at least one of evaluations, examples, seconds; got none"))
    first = method.population + (method.accept == "improves")
    rests_on = ("budget.evaluations", "method.population", "method.accept", "method.preset")
    if sound(*rests_on) and budget.evaluations is not None and budget.evaluations < first:
        faults.append(
            Fault(
                "budget.evaluations",
                f"expected at least one generation, {first} evaluations (population {method.population}"
                f"{' and the starting point' if method.accept == 'improves' else ''}), got {budget.evaluations}; "
                "raise the budget or lower method.population",
            )
        )
    if sound("evaluators", "backbone.device") and spec.evaluators.count and cuda != (spec.evaluators.gpus > 0):
        faults.append(
            Fault(
                "evaluators.gpus",
                f"expected {'more than 0' if cuda else '0'} with backbone.device {spec.backbone.device}, "
                f"got {spec.evaluators.gpus}; change one of the two",
            )
        )
    for path, values in (("prompt.layers", spec.prompt.layers), ("task.labels", spec.task.labels)):
        if isinstance(values, list) and len(set(values)) < len(values):
            faults.append(Fault(path, f"expected each {path[:-1].split('.')[1]} once, got {_shown(values)}"))
    if sound("task.source") and spec.task.test is not None and not spec.task.source.startswith("file:"):
        faults.append(Fault("task.test", f"expected it beside a source file:TABLE only, got {_shown(spec.task.test)}"))
    return faults


def _fault(item: Any) -> Fault:
    path, kind, value = _path(item["loc"]), item["type"], item["input"]
    if kind == "extra_forbidden":
        return Fault(path, f"unknown key{did_you_mean(str(item['loc'][-1]), _keys_at(item['loc'][:-1]))}")
    if kind == "missing":
        return Fault(path, "missing; this key is required")
    message = re.sub(r"^(Input|Value|String|List) should", "should", item["msg"]).removeprefix("Value error, ")
    message = re.sub(r"^should (be|have)\b", "expected", message).replace("should match", "expected a match of", 1)
    hint = did_you_mean(value, list(PRESETS)) if path == "method.preset" and isinstance(value, str) else ""
    if kind == "string_type" and isinstance(value, bool):
        hint = "; YAML reads bare yes, no, on and off as true or false, put the word in quotes"
    return Fault(path, f"{message}, got {_shown(value)}{hint}")


def _keys_at(location: Sequence[Any]) -> list[str]:
    model: Any = JobSpec
    for key in location:
        field = model.model_fields.get(key)
        if field is None or not isinstance(field.annotation, type) or not issubclass(field.annotation, BaseModel):
            return []
        model = field.annotation
    return list(model.model_fields)


def _path(location: Sequence[Any]) -> str:
    """``task.label_words`` from pydantic's location, without the names of union members behind it."""
    keys: list[str] = []
    for key in location:
        if isinstance(key, int):
            keys[-1] += f"[{key}]"
        elif len(keys) >= 2 and keys != ["task", "columns"]:
            break
        else:
            keys.append(str(key))
    return ".".join(keys)


def _replace(data: dict[str, Any], item: Any) -> None:
    """Remove a faulty key from ``data``, put a stand-in where a required one is missing."""
    keys = [str(key) for key in item["loc"] if not isinstance(key, int)]
    if item["type"] == "missing":
        data[keys[0]] = _STAND_INS[keys[0]] | data.get(keys[0], {})
        return
    *parents, last = keys[: 3 if keys[:2] == ["task", "columns"] else 2]  # behind them: names of union members
    holder = data
    for key in parents:
        holder = holder.get(key, {})
    holder.pop(last, None)


def _merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged: dict[str, Any] = {k: _merged({}, v) if isinstance(v, Mapping) else v for k, v in under.items()}
    for key, value in over.items():
        below = merged.get(key)
        if isinstance(value, Mapping):
            value = _merged(below if isinstance(below, Mapping) else {}, value)
        merged[str(key)] = value
    return merged


def _override(raw: dict[str, Any], override: str) -> None:
    path, equals, text = override.partition("=")
    if not equals or not path.strip():
        raise JobError([Fault("--set", f"expected key.path=value, got {_shown(override)}")])
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):
        value = text  # a template such as "{text} . It was {mask} ." is text, not YAML
    *parents, last = path.strip().split(".")
    holder = raw
    for key in parents:
        if not isinstance(holder.get(key), dict):
            holder[key] = {}
        holder = holder[key]
    holder[last] = value


def _shown(value: Any) -> str:
    text = _CREDENTIALS.sub("://***@", json.dumps(value, default=str))
    return text if len(text) <= 80 else text[:77] + "..."


def _yaml_fault(error: Exception) -> str:
    """What is wrong and where, without the faulty line itself, which may hold a password."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"{error.problem} (line {error.problem_mark.line + 1}, column {error.problem_mark.column + 1})"
    return " ".join(str(error).split())


def _kind(value: Any) -> str:
    return "an empty file" if value is None else f"a {type(value).__name__}"
