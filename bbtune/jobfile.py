"""Read a job from YAML, overrides or Python, and tell all its faults together.

Only what can be judged from the job alone is judged here. What needs the data, the tokenizer or the
model's configuration is judged in :mod:`bbtune.plan`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from bbtune.combinations import combination_faults, shown
from bbtune.errors import Fault, JobError, did_you_mean
from bbtune.methods import BASELINES, method_class
from bbtune.presets import PRESETS
from bbtune.spec import BaseJob, BaselineJob, JobSpec, TextJob, merged
from bbtune.text_search import WRITING
from bbtune.yaml_text import parse_yaml, read_yaml


def load_job(path: str | Path, overrides: Sequence[str] = (), method: str | None = None) -> BaseJob:
    """Read a job file.

    Args:
        path: YAML file.
        overrides: ``key.path=value`` each, the value read as YAML.
        method: another optimizer than the job's, or a baseline; what the job sets for its own method goes, the loss
            of a search stays.

    Raises:
        JobError: with every fault of the job that its text alone can show.
    """
    spec, faults, _ = read_job(path, overrides, method)
    if faults or spec is None:
        raise JobError(faults)
    return spec


def read_job(
    path: str | Path, overrides: Sequence[str] = (), method: str | None = None
) -> tuple[BaseJob | None, list[Fault], set[str]]:
    """Read as much of a job file as can be read: the spec, the faults, and the paths left out as faulty."""
    raw = read_yaml(path)
    if method is not None:
        raw = with_method(raw, method)
    for change in overrides:
        override(raw, change)
    return parse_job(raw)


_OF_THE_LOSS = ("sigma", "alpha", "loss", "l2")  # what any optimizer is given


def with_method(raw: dict[str, Any], method: str) -> dict[str, Any]:
    """A job with another method; prompt and budget stay, also those of its preset."""
    given = raw.get("method")
    preset = given.get("preset") if isinstance(given, dict) else None
    whole = merged(PRESETS.get(preset, {}) if isinstance(preset, str) else {}, raw)
    given = whole.get("method")
    if method in BASELINES:
        return whole | {"method": {"name": method}}
    given = given if isinstance(given, dict) else {}
    if _in_words(whole):
        kept = {key: value for key, value in given.items() if key != "writer" or method in WRITING}
        return whole | {"method": kept | {"search": method}}
    return whole | {"method": {key: given[key] for key in _OF_THE_LOSS if key in given} | {"optimizer": method}}


def _in_words(raw: Mapping[str, Any]) -> bool:
    """Whether the prompt of a job is text."""
    prompt = raw.get("prompt")
    return isinstance(prompt, dict) and prompt.get("kind") == "text"


# What stands for a required key that is missing or faulty while the rest of the job is judged.
_STAND_INS: dict[str, dict[str, Any]] = {
    "task": {"source": "builtin:support"},
    "backbone": {"model": "package:none"},
    "budget": {"evaluations": 1 << 62},
    "prompt": {"kind": "text"},
    "method": {"name": "zero-shot"},
}


def parse_job(raw: Mapping[str, Any]) -> tuple[BaseJob | None, list[Fault], set[str]]:
    """Validate ``raw``; faulty keys are reported, dropped and replaced by defaults so that the rest is judged too."""
    faults: list[Fault] = []
    broken: set[str] = set()
    data = merged({}, raw)
    given = data.get("method")
    searched = given is None or (isinstance(given, dict) and "name" not in given)  # a name in its place is a baseline's
    kind = (TextJob if _in_words(data) else JobSpec) if searched else BaselineJob
    for _ in range(3):  # dropping a faulty key can only reveal that a required one is missing
        try:
            spec: BaseJob = kind.model_validate(data)
        except ValidationError as error:
            by_path: dict[str, Any] = {}
            for item in _untagged(error):  # of the members of a union, the one that came furthest speaks
                path = _path(item["loc"], kind)
                best = by_path.setdefault(path, item)
                if len(item["loc"]) > len(best["loc"]):
                    by_path[path] = item
            faults += [_fault(item, kind) for path, item in by_path.items() if path not in broken]
            broken |= set(by_path)
            for item in by_path.values():
                _replace(data, item, kind)
        else:
            return spec, faults + combination_faults(spec, broken), broken
    return None, faults, broken


def _untagged(error: ValidationError) -> list[dict[str, Any]]:
    """The errors of a job, their places without the name of the method, which pydantic puts behind ``method``."""
    found: list[dict[str, Any]] = [dict(item) for item in error.errors()]
    for item in found:
        if item["loc"][0] == "method" and item["loc"][1:2] and item["loc"][1] in BASELINES:
            item["tag"], item["loc"] = item["loc"][1], ("method", *item["loc"][2:])
    return found


def faults_in(error: ValidationError, model: type[BaseModel]) -> list[Fault]:
    """What pydantic finds in a file of another kind than a job, in the words that a job's faults have."""
    return [_fault(item, model) for item in error.errors()]


# Keys of one kind of search in a job of another.
_OF_OTHERS = {
    "method.optimizer": "; a search for a prompt in words is named by method.search",
    "method.search": "; it belongs to a prompt in words (prompt.kind: text), others have method.optimizer",
    "prompt.tokens": "; a prompt in words is made of instructions, keywords, demonstrations, label_words and templates",
}


def _fault(item: Any, model: type[BaseModel]) -> Fault:
    path, kind, value = _path(item["loc"], model), item["type"], item["input"]
    if kind == "extra_forbidden":
        hint = _OF_OTHERS.get(path) or did_you_mean(str(item["loc"][-1]), _keys_at(item, model))
        return Fault(path, f"unknown key{hint}")
    if kind.startswith("union_tag"):
        name = value.get("name") if isinstance(value, dict) else value
        return Fault("method.name", f"expected one of {', '.join(BASELINES)}, got {shown(name)}{_method_hint(name)}")
    if kind == "missing":
        return Fault(path, "missing; this key is required")
    if kind in ("model_type", "model_attributes_type"):
        keys = ", ".join(_keys_at({**item, "loc": (*item["loc"], "")}, model))
        hint = f"; write method: {{name: {value}}}" if path == "method" and value in BASELINES else ""
        keys = "name (a baseline) or optimizer (a search)" if path == "method" else keys
        return Fault(path, f"expected a mapping of {keys}, got {shown(value)}{hint}")
    if kind == "dict_type":
        return Fault(path, f"expected a mapping, got {shown(value)}")
    if kind == "too_short":
        least = item["ctx"]["min_length"]
        return Fault(path, f"expected at least {least} item{'s' * (least > 1)}, got {shown(value)}")
    message = re.sub(r"^(Input|Value|String|List) should", "should", item["msg"]).removeprefix("Value error, ")
    if path == "prompt.kind" and model is JobSpec:
        message = "expected 'offset', 'prefix' or 'text'"
    message = re.sub(r"^should (be|have)\b", "expected", message).replace("should match", "expected a match of", 1)
    if str(item["loc"][-1]) == "api_key_env":  # what stands there may be the key itself
        return Fault(path, f"{message}: the name of the variable of the environment that holds the key, not the key")
    hint = did_you_mean(value, list(PRESETS)) if path == "method.preset" and isinstance(value, str) else ""
    if kind == "string_type" and isinstance(value, bool):
        hint = "; YAML reads bare yes, no, on and off as true or false, put the word in quotes"
    return Fault(path, f"{message}, got {shown(value)}{hint}")


def _method_hint(name: Any) -> str:
    """For an optimizer that was given as the name of a baseline, or a baseline that is misspelt."""
    if not isinstance(name, str):
        return ""
    return did_you_mean(name, BASELINES) or "; the optimizer of a search is given as method.optimizer"


def _keys_at(item: Any, model: type[BaseModel]) -> list[str]:
    """Keys that are known beside the one that an error speaks of."""
    if "tag" in item:
        return list(method_class(item["tag"]).model_fields)
    for key in (key for key in item["loc"][:-1] if not isinstance(key, int)):
        below = _below(model, key)
        if below is None:
            return []
        model = below
    return list(model.model_fields)


def _below(model: type[BaseModel] | None, key: str) -> type[BaseModel] | None:
    """The class of a mapping in a job; None where a key holds no such mapping, or one of several kinds."""
    field = None if model is None else model.model_fields.get(key)
    kinds = [] if field is None else [field.annotation, *get_args(field.annotation)]
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)


def _own(location: Sequence[Any], model: type[BaseModel]) -> list[Any]:
    """The keys of a job in pydantic's location, without the names of union members behind them."""
    keys: list[Any] = []
    here: type[BaseModel] | None = model
    for key in location:
        if not isinstance(key, int):
            if here is None and len(keys) > 1:
                break
            here = _below(here, key)
        keys.append(key)
    return keys


def _path(location: Sequence[Any], model: type[BaseModel]) -> str:
    """``task.label_words[0]`` from pydantic's location."""
    path = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in _own(location, model))
    return path.removeprefix(".")


def _replace(data: dict[str, Any], item: Any, model: type[BaseModel]) -> None:
    """Remove a faulty key from ``data``, put a stand-in where a required one is missing."""
    keys = [str(key) for key in _own(item["loc"], model) if not isinstance(key, int)]
    no_baseline = item["type"].startswith("union_tag") or item["type"] == "model_attributes_type"
    if no_baseline or (keys[0] == "method" and item["type"] == "missing"):
        data["method"] = _STAND_INS["method"]
        return
    if item["type"] == "missing" and len(keys) < 3:
        data[keys[0]] = _STAND_INS[keys[0]] | data.get(keys[0], {})
        return
    *parents, last = keys[:-1] if item["type"] == "missing" else keys
    holder = data
    for key in parents:
        holder = holder.get(key, {})
    holder.pop(last, None)
    if "api" in keys:  # what is asked there is judged by the rest of the job
        _stand_for_api(data, keys[: keys.index("api")])


def _stand_for_api(data: dict[str, Any], parents: Sequence[str]) -> None:
    """Let a mapping have an endpoint, where its own is at fault."""
    for key in parents:
        data = data.get(key, {})
    api = data.get("api") or {}
    named = {key: value for key, value in api.items() if value is not None}
    data["api"] = named if "serve" in named else {"base_url": "http://none/v1", "model": "none", **named}


def override(raw: dict[str, Any], change: str) -> None:
    """Lay ``key.path=value`` over a job, the value read as YAML.

    Raises:
        JobError: if there is no ``=``.
    """
    path, equals, text = change.partition("=")
    if not equals or not path.strip():
        raise JobError([Fault("--set", f"expected key.path=value, got {shown(change)}")])
    value = _override_value(path.strip().split("."), text)
    *parents, last = path.strip().split(".")
    holder = raw
    for key in parents:
        if not isinstance(holder.get(key), dict):
            holder[key] = {}
        holder = holder[key]
    holder[last] = value


def _override_value(keys: list[str], text: str) -> Any:
    """``text`` as YAML; but a template such as ``{text} . It was {mask} .`` is text, not a mapping."""
    try:
        value = parse_yaml(text)
    except ValueError:
        return text
    models: Any = JobSpec
    for key in keys[:-1]:
        models = getattr(models.model_fields.get(key), "annotation", None)
        if not hasattr(models, "model_fields"):
            return value
    field = models.model_fields.get(keys[-1])
    members = (get_args(field.annotation) or [field.annotation]) if field is not None else []
    wants_text = {getattr(member, "__origin__", member) for member in members} in ({str}, {str, type(None)})
    return text if wants_text and value is not None and (not isinstance(value, str) or " #" in text) else value
