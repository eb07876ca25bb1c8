"""YAML as people write it in job files: safe, each key once, and faults in words."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from bbtune.errors import Fault, JobError

_NEEDS = {"job": "task, backbone and budget", "space": "parameters", "suite": "jobs"}
_MERGE = "tag:yaml.org,2002:merge"


def read_yaml(path: str | Path, what: str = "job") -> dict[str, Any]:
    """The mapping that a YAML file holds.

    Args:
        what: what it describes, for messages: ``job``, ``space`` ...

    Raises:
        JobError: if the file cannot be read, or holds something else.
    """
    try:
        raw = parse_yaml(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise JobError([Fault("", f"cannot read the {what} file {path}: {error.strerror}")], what) from error
    except ValueError as error:
        raise JobError([Fault("", f"{path} is not YAML: {' '.join(str(error).split())}")], what) from error
    if not isinstance(raw, dict):
        expected = f"a mapping with {_NEEDS[what]}" if what in _NEEDS else "a mapping"
        raise JobError([Fault("", f"{path}: expected {expected}, got {_kind(raw)}")], what)
    return raw


def parse_yaml(text: str) -> Any:
    """What a YAML text says; all keys are text, as they are written.

    Raises:
        ValueError: if it is not YAML, or a part of it holds itself.
    """
    try:
        found = yaml.load(text, _PlainKeys)  # noqa: S506, a safe loader
    except yaml.MarkedYAMLError as error:  # without the faulty line itself, which may hold a password
        mark = error.problem_mark
        where = f" (line {mark.line + 1}, column {mark.column + 1})" if mark is not None else ""
        raise ValueError(f"{error.problem}{where}") from error
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error
    if _holds_itself(found, set(), set()):
        raise ValueError("a part that an anchor (&) names holds itself")
    return found


class _PlainKeys(yaml.SafeLoader):
    """Safe YAML whose keys are text, and in which a key that is given twice is an error; plain YAML forgets the first.

    Plain YAML 1.1 also takes a key such as ``on`` for true, and 2024-01-01 for a date.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        given: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem="expected text as a key", problem_mark=key.start_mark)
            if key.tag == _MERGE:
                continue
            if key.value in given:
                problem = f"the key {key.value!r} is given twice"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            given.add(key.value)
        self.flatten_mapping(node)
        for key, _ in node.value:
            key.tag = self.DEFAULT_SCALAR_TAG
        return super().construct_mapping(node, deep)


# 5e-5 is a number to everyone but YAML 1.1, which wants 5.0e-5.
_PlainKeys.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+]?\d+[eE][-+]?\d+$"), list("-+0123456789"))


def _holds_itself(value: Any, above: set[int], seen: set[int]) -> bool:
    """Whether a mapping or list is among those that it stands in; what was seen without finding that is not."""
    if not isinstance(value, dict | list) or id(value) in seen:
        return False
    if id(value) in above:
        return True
    parts = value.values() if isinstance(value, dict) else value
    found = any(_holds_itself(part, above | {id(value)}, seen) for part in parts)
    seen.add(id(value))
    return found


def _kind(value: Any) -> str:
    return "an empty file" if value is None else f"a {type(value).__name__}"
