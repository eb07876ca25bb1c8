"""The page of all keys of a job, from the schema that editors use."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

_HEAD = """# Job file

Every key of a job. This page and the [JSON Schema](job.schema.json) are made from one source, the classes that read a
job; [job files](../jobs.md) explains the terms and has examples. A first line

    # yaml-language-server: $schema=PATH/TO/docs/reference/job.schema.json

lets an editor complete, explain and check the keys of a file while it is written; `bbtune validate` finds what no
schema can. Where *default* is empty, nothing is set, or it goes by other keys, as is said there.
"""
# Where the terms of a part are explained, beside the page of job files.
_SEE = {
    "task": "[templates, tables and task folders](../jobs.md#task-folders), "
    "[answers in words](../jobs.md#answers-in-words)",
    "backbone.api": "[models behind an API](../api.md)",
    "prompt": "[prompts](../concepts.md#prompts), [place of the prompt](../jobs.md#place-of-the-prompt)",
    "method": "[methods](../methods.md)",
    "budget": "[cost](../concepts.md#cost), [money](../api.md#money)",
    "evaluators": "[how many evaluators](../sizing.md)",
    "tracking": "[MLflow](../mlflow.md)",
}


def job_page(schema: dict[str, Any]) -> str:
    """The page, as Markdown."""
    return "\n".join([_HEAD, *_sections(schema)]).rstrip() + "\n"


def _sections(schema: dict[str, Any]) -> Iterator[str]:
    """A table for the job itself, then one for each of its parts, of every kind that it may have."""
    parts, choice = schema["$defs"], schema["else"]
    kinds = [_named(ref) for ref in (choice["else"], choice["then"], schema["then"])]  # searches first
    job = parts[kinds[0]]
    yield from _table("", job | {"properties": {k: r for k, r in job["properties"].items() if not _refs(r)}}, parts)
    for key, rule in job["properties"].items():
        if not _refs(rule):
            continue
        names = dict.fromkeys(name for kind in kinds for name in _refs(parts[kind]["properties"][key]))
        for number, name in enumerate(names):
            yield from _part(key, parts, name, several=len(names) > 1, first=number == 0)


def _part(path: str, parts: dict[str, Any], name: str, several: bool, first: bool) -> Iterator[str]:
    part = parts[name]
    yield f"## `{path}`{_whose(part) if several else ''}\n"
    yield f"{part['description']}\n"
    if first and path in _SEE:
        yield f"See {_SEE[path]}.\n"
    yield from _table(f"{path}.", part, parts)
    for key, rule in part["properties"].items():
        for below in _refs(rule):
            if path != "method.writer":  # an API is explained once
                yield from _part(f"{path}.{key}", parts, below, several=False, first=True)


def _whose(part: dict[str, Any]) -> str:
    """What tells a part from others of the same key."""
    keys = part["properties"]
    if "name" in keys:
        return " of " + ", ".join(f"`{name}`" for name in keys["name"].get("enum", [keys["name"].get("const")]))
    words = keys.get("kind", {}).get("const") == "text" or "search" in keys
    return " of a search in words" if words else " of a search"


def _table(path: str, part: dict[str, Any], parts: dict[str, Any]) -> Iterator[str]:
    yield "| key | type | default | meaning |\n|---|---|---|---|"
    for key, rule in part["properties"].items():
        default = "**required**" if key in part.get("required", []) else _default(rule)
        meaning = rule.get("description") or parts[_refs(rule)[0]]["description"]
        if meaning == part.get("description"):
            meaning = "The baseline."
        yield f"| `{path}{key}` | {_type(rule)} | {default} | {meaning} |".replace("|  |", "| |")
    yield ""


def _default(rule: dict[str, Any]) -> str:
    value = rule.get("default")
    if value is None or value == []:
        return ""
    members = value if isinstance(value, list) else [value]
    return ", ".join(f"`{str(member).lower() if isinstance(member, bool) else member}`" for member in members)


def _type(rule: dict[str, Any]) -> str:
    """A type in words, ``null`` left out."""
    if "const" in rule:
        return f"`{rule['const']}`"
    if "enum" in rule:
        return ", ".join(f"`{value}`" for value in rule["enum"])
    if "anyOf" in rule:
        return " or ".join(dict.fromkeys(_type(one) for one in rule["anyOf"] if one.get("type") != "null"))
    if "$ref" in rule:
        return "mapping"
    if rule.get("type") == "array":
        return f"list of {_many(_type(rule['items']))}"
    if "type" not in rule:
        return ", ".join(f"`{kind}:NAME`" for kind in re.findall(r"\w+", str(rule["pattern"])))
    return f"{rule['type']}{_bounds(rule)}"


def _many(kind: str) -> str:
    return " or ".join(re.sub(r"^(list|string|integer|number)\b", r"\g<0>s", one) for one in kind.split(" or "))


def _bounds(rule: dict[str, Any]) -> str:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    found = [f"{sign} {rule[name]:g}" for name, sign in signs.items() if name in rule]
    return f" {', '.join(found)}" if found else ""


def _refs(rule: dict[str, Any]) -> list[str]:
    """Names of the parts that a key may hold."""
    found = [rule, *rule.get("anyOf", []), *(one["then"] for one in rule.get("allOf", []))]
    return [_named(one) for one in found if "$ref" in one]


def _named(ref: dict[str, Any]) -> str:
    return str(ref["$ref"]).rpartition("/")[2]
