"""Read a job from YAML, overrides or Python, and tell all its faults together.

Only what can be judged from the job alone is judged here. What needs the data, the tokenizer or the
model's configuration is judged in :mod:`bbtune.plan`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from bbtune.errors import Fault, JobError, did_you_mean, hide_credentials
from bbtune.methods import BASELINES, method_class
from bbtune.optimizers.base import population_asked
from bbtune.presets import PRESETS
from bbtune.spec import BaseJob, BaselineJob, JobSpec, MethodSpec, merged
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
        raw = _with_method(raw, method)
    for change in overrides:
        override(raw, change)
    return parse_job(raw)


_OF_THE_LOSS = ("sigma", "alpha", "loss", "l2")  # what any optimizer is given


def _with_method(raw: dict[str, Any], method: str) -> dict[str, Any]:
    """A job with another method; prompt and budget stay, also those of its preset."""
    given = raw.get("method")
    preset = given.get("preset") if isinstance(given, dict) else None
    whole = merged(PRESETS.get(preset, {}) if isinstance(preset, str) else {}, raw)
    given = whole.get("method")
    if method in BASELINES:
        return whole | {"method": {"name": method}}
    kept = {key: given[key] for key in _OF_THE_LOSS if key in given} if isinstance(given, dict) else {}
    return whole | {"method": kept | {"optimizer": method}}


# What stands for a required key that is missing or faulty while the rest of the job is judged.
_STAND_INS: dict[str, dict[str, Any]] = {
    "task": {"source": "builtin:support"},
    "backbone": {"model": "package:none"},
    "budget": {"evaluations": 1 << 62},
    "method": {"name": "zero-shot"},
}


def parse_job(raw: Mapping[str, Any]) -> tuple[BaseJob | None, list[Fault], set[str]]:
    """Validate ``raw``; faulty keys are reported, dropped and replaced by defaults so that the rest is judged too."""
    faults: list[Fault] = []
    broken: set[str] = set()
    data = merged({}, raw)
    given = data.get("method")
    searched = given is None or (isinstance(given, dict) and "name" not in given)  # a name in its place is a baseline's
    kind = JobSpec if searched else BaselineJob
    for _ in range(3):  # dropping a faulty key can only reveal that a required one is missing
        try:
            spec: BaseJob = kind.model_validate(data)
        except ValidationError as error:
            by_path: dict[str, Any] = {}
            for item in _untagged(error):  # of the members of a union, the one that came furthest speaks
                best = by_path.setdefault(_path(item["loc"]), item)
                if len(item["loc"]) > len(best["loc"]):
                    by_path[_path(item["loc"])] = item
            faults += [_fault(item, kind) for path, item in by_path.items() if path not in broken]
            broken |= set(by_path)
            for item in by_path.values():
                _replace(data, item)
        else:
            return spec, faults + _combinations(spec, broken), broken
    return None, faults, broken


def _untagged(error: ValidationError) -> list[dict[str, Any]]:
    """The errors of a job, their places without the name of the method, which pydantic puts behind ``method``."""
    found: list[dict[str, Any]] = [dict(item) for item in error.errors()]
    for item in found:
        if item["loc"][0] == "method" and item["loc"][1:2] and item["loc"][1] in BASELINES:
            item["tag"], item["loc"] = item["loc"][1], ("method", *item["loc"][2:])
    return found


def _combinations(spec: BaseJob, broken: set[str]) -> list[Fault]:
    """Faults of fields that are right alone and wrong together; those that rest on a broken one are left out."""
    cuda = spec.backbone.device.startswith("cuda")

    def sound(*paths: str) -> bool:
        return not any(f"{b}.".startswith(f"{p}.") or p.startswith(f"{b}.") for b in broken for p in paths)

    faults = _budget_faults(spec, sound) if isinstance(spec, JobSpec) else []
    if sound("selection") and spec.selection.by == "last" and spec.selection.patience is not None:
        why = "the latest prompt is always the one handed out"
        faults.append(Fault("selection.patience", f"expected none with selection.by last, {why}; take metric or loss"))
    if sound("selection") and isinstance(spec, BaselineJob) and spec.selection.average not in (None, 1):
        why = "a baseline hands out one step, no mean"
        faults.append(Fault("selection.average", f"expected none, {why}, got {spec.selection.average}"))
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


def _budget_faults(spec: JobSpec, sound: Callable[..., bool]) -> list[Fault]:
    """A search needs a limit, and room for a generation under it."""
    faults, budget, method = [], spec.budget, spec.method
    limits = budget.model_dump()
    if sound("budget") and all(limit is None for limit in limits.values()):
        faults.append(Fault("budget", f"expected at least one of {', '.join(limits)}; got none"))
    size = 2 if method.optimizer == "auto" else population_asked(method.optimizer, method.population)
    least = method.members * (size + method.first_extras)  # the start and a generation, of every member
    rests_on = ("budget.evaluations", "method.population", "method.members", "method.accept", "method.preset")
    if sound(*rests_on) and budget.evaluations is not None and budget.evaluations < least:
        words = "" if method.optimizer == "auto" else f" (population {size}{_extras(method)})"
        mend = "raise the budget" if method.optimizer == "auto" else "raise the budget or lower method.population"
        expected = f"expected at least one generation, {least} evaluations{words}"
        faults.append(Fault("budget.evaluations", f"{expected}, got {budget.evaluations}; {mend}"))
    return faults


def faults_in(error: ValidationError, model: type[BaseModel]) -> list[Fault]:
    """What pydantic finds in a file of another kind than a job, in the words that a job's faults have."""
    return [_fault(item, model) for item in error.errors()]


def _fault(item: Any, model: type[BaseModel]) -> Fault:
    path, kind, value = _path(item["loc"]), item["type"], item["input"]
    if kind == "extra_forbidden":
        return Fault(path, f"unknown key{did_you_mean(str(item['loc'][-1]), _keys_at(item, model))}")
    if kind.startswith("union_tag"):
        name = value.get("name") if isinstance(value, dict) else value
        return Fault("method.name", f"expected one of {', '.join(BASELINES)}, got {_shown(name)}{_method_hint(name)}")
    if kind == "missing":
        return Fault(path, "missing; this key is required")
    if kind in ("model_type", "model_attributes_type"):
        keys = ", ".join(_keys_at({**item, "loc": (*item["loc"], "")}, model))
        hint = f"; write method: {{name: {value}}}" if path == "method" and value in BASELINES else ""
        keys = "name (a baseline) or optimizer (a search)" if path == "method" else keys
        return Fault(path, f"expected a mapping of {keys}, got {_shown(value)}{hint}")
    if kind == "dict_type":
        return Fault(path, f"expected a mapping, got {_shown(value)}")
    if kind == "too_short":
        least = item["ctx"]["min_length"]
        return Fault(path, f"expected at least {least} item{'s' * (least > 1)}, got {_shown(value)}")
    message = re.sub(r"^(Input|Value|String|List) should", "should", item["msg"]).removeprefix("Value error, ")
    message = re.sub(r"^should (be|have)\b", "expected", message).replace("should match", "expected a match of", 1)
    hint = did_you_mean(value, list(PRESETS)) if path == "method.preset" and isinstance(value, str) else ""
    if kind == "string_type" and isinstance(value, bool):
        hint = "; YAML reads bare yes, no, on and off as true or false, put the word in quotes"
    return Fault(path, f"{message}, got {_shown(value)}{hint}")


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
        field = model.model_fields.get(key)
        kinds = [] if field is None else [field.annotation, *get_args(field.annotation)]
        below = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
        if not below:
            return []
        model = below[0]
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
    no_baseline = item["type"].startswith("union_tag") or item["type"] == "model_attributes_type"
    if no_baseline or (keys[0] == "method" and item["type"] == "missing"):
        data["method"] = _STAND_INS["method"]
        return
    if item["type"] == "missing":
        data[keys[0]] = _STAND_INS[keys[0]] | data.get(keys[0], {})
        return
    *parents, last = keys[: 3 if keys[:2] == ["task", "columns"] else 2]  # behind them: names of union members
    holder = data
    for key in parents:
        holder = holder.get(key, {})
    holder.pop(last, None)


def override(raw: dict[str, Any], change: str) -> None:
    """Lay ``key.path=value`` over a job, the value read as YAML.

    Raises:
        JobError: if there is no ``=``.
    """
    path, equals, text = change.partition("=")
    if not equals or not path.strip():
        raise JobError([Fault("--set", f"expected key.path=value, got {_shown(change)}")])
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


def _shown(value: Any) -> str:
    text = hide_credentials(json.dumps(value, default=str))
    return text if len(text) <= 80 else text[:77] + "..."


def _extras(method: MethodSpec) -> str:
    """What a first generation has beside its population, in words."""
    extras = ["the starting point"] if method.accept == "improves" else []
    extras += ["three steps"] if method.optimizer == "gauss-newton" else []
    words = "".join(f" and {extra}" for extra in extras)
    return words + (f", of {method.members} members each" if method.members > 1 else "")
