"""The JSON Schema of a job file: what an editor completes, explains and checks while it is written.

It knows keys, types and names. What is right alone and wrong together is for `bbtune validate`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from bbtune.methods import BASELINES, TRAINING_DEFAULTS, method_class
from bbtune.optimizers import OPTIMIZERS
from bbtune.presets import OPTIMIZER_DEFAULTS
from bbtune.spec import BaselineJob, JobSpec, TextJob
from bbtune.text_search import TEXT_SEARCHES

_ABOUT = "A job of bbtune: a search for a prompt, continuous or in words, or a baseline beside it."
# As the loader tells the kinds of jobs apart: a name makes a baseline, else words are searched as words.
_NOT_NULL = {"not": {"type": "null"}}  # as it is while somebody writes
_IS_BASELINE = {"required": ["method"], "properties": {"method": {"required": ["name"], **_NOT_NULL}}}
_IS_TEXT = {
    "required": ["prompt"],
    "properties": {"prompt": {"required": ["kind"], "properties": {"kind": {"const": "text"}}}},
}


def job_schema() -> dict[str, Any]:
    """The schema, as JSON data (draft 2020-12)."""
    jobs = (BaselineJob, TextJob, JobSpec)
    refs, found = models_json_schema([(job, "validation") for job in jobs], schema_generator=_Untitled)
    baseline, text, search = (refs[job, "validation"] for job in jobs)
    parts = found["$defs"]
    for part, key, known, more in (
        ("MethodSpec", "optimizer", ["auto", *OPTIMIZERS], "^(nevergrad|own):.+"),
        ("TextMethodSpec", "search", [*TEXT_SEARCHES], "^nevergrad:.+"),
    ):
        parts[part]["properties"][key]["anyOf"] = [{"enum": known}, {"pattern": more}]
    kinds = dict.fromkeys(method_class(name).__name__ for name in BASELINES)
    for kind in kinds:
        parts[kind]["properties"]["name"]["description"] = parts[kind]["description"]
        _tell_defaults(parts[kind]["properties"])
    parts["BaselineJob"]["properties"]["method"] = _by_name(kinds, parts)
    for key in {key for chosen in OPTIMIZER_DEFAULTS.values() for key in chosen}:
        del parts["MethodSpec"]["properties"][key]["default"]  # it goes by the optimizer, as its description says
    return {
        "$schema": GenerateJsonSchema.schema_dialect,
        "title": "bbtune job",
        "description": _ABOUT,
        "if": _IS_BASELINE,
        "then": baseline,
        "else": {"if": _IS_TEXT, "then": text, "else": search},
        "$defs": {name: _tidied(part) for name, part in sorted(parts.items())},
    }


def _by_name(kinds: Iterable[str], parts: Mapping[str, Any]) -> dict[str, Any]:
    """A baseline of any kind, by its name; ``oneOf`` would answer a misspelt name with the names of the first kind."""
    rules = []
    for kind in kinds:
        named = {
            "type": "object",
            "required": ["name"],
            "properties": {"name": {"enum": _names(parts[kind]["properties"])}},
        }
        rules.append({"if": named, "then": {"$ref": f"#/$defs/{kind}"}})
    name = {"description": "The baseline.", "enum": list(BASELINES)}
    return {"type": "object", "required": ["name"], "properties": {"name": name}, "allOf": rules}


def _names(keys: Mapping[str, Any]) -> list[str]:
    """The baselines of a kind."""
    return list(keys["name"].get("enum", [keys["name"].get("const")]))


def _tell_defaults(keys: dict[str, Any]) -> None:
    """Put what goes with the name of a baseline into its keys: as the default, or in words where names differ."""
    named: dict[str, dict[Any, list[str]]] = {}
    for name in _names(keys):
        for key, value in TRAINING_DEFAULTS.get(name, {}).items():
            named.setdefault(key, {}).setdefault(value, []).append(f"`{name}`")
    for key, by_value in named.items():
        if len(by_value) == 1:
            keys[key]["default"] = next(iter(by_value))
        else:
            told = [f"{value} with {', '.join(names)}" for value, names in by_value.items()]
            keys[key]["description"] += f" Else {'; '.join(told)}."


class _Untitled(GenerateJsonSchema):
    """Without titles that only say the name of a key again."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def _tidied(schema: Any) -> Any:
    """Descriptions in one line; without defaults that say nothing, or the same again for a whole part."""
    if isinstance(schema, list):
        return [_tidied(member) for member in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {key: _tidied(value) for key, value in schema.items() if key not in ("title", "discriminator")}
    if isinstance(kept.get("description"), str):
        kept["description"] = " ".join(kept["description"].replace("``", "`").split())
    if "default" in kept and (kept["default"] is None or isinstance(kept["default"], dict)):
        del kept["default"]
    return kept
