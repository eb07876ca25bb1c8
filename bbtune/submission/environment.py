"""The environment of a submitted job, which anybody who can see the cluster can read: nothing secret goes into it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bbtune.errors import BbtuneError, Fault, JobError, did_you_mean, hide_credentials
from bbtune.yaml_text import read_yaml

_KNOWN = ["py_modules", "py_executable", "pip", "uv", "conda", "container", "image_uri", "env_vars", "config"]
_KNOWN += ["nsight", "rocprof_sys", "worker_process_setup_hook"]
_OURS = {
    "working_dir": "the job and its data are the working folder",
    "excludes": "all of the working folder is needed",
}
_SECRET_NAME = re.compile(r"(?i)(key|token|secret|pass(word|wd|phrase)?|pwd|credential)s?$|(?i:auth)")
_SECRET_VALUE = re.compile(r"^(sk-|AKIA|ASIA|gh[pousr]_|github_pat_|hf_|glpat-|xox[abp]-|AIza|Bearer )|-----BEGIN ")
# Seconds that a job has to end by itself once it is stopped; Ray's own are three.
_ALWAYS = {"RAY_JOB_STOP_WAIT_TIME_S": "30"}


def runtime_env(path: Path | None, working_dir: Path) -> dict[str, Any]:
    """What Ray is to make ready for the job.

    Args:
        path: of a YAML file with Ray's own keys: ``pip``, ``env_vars`` ...
        working_dir: with the job and its data.

    Raises:
        BbtuneError: if there is no such file.
        JobError: with every fault of it.
    """
    if path is not None and not path.is_file():
        raise BbtuneError(f"--runtime-env: expected a YAML file, found none at {path}")
    raw = {} if path is None else read_yaml(path, "environment")
    if faults := list(_faults(raw)):
        raise JobError(faults, f"environment {path}")
    return {**raw, "env_vars": {**_ALWAYS, **(raw.get("env_vars") or {})}, "working_dir": str(working_dir)}


def _faults(raw: Mapping[str, Any]) -> Iterator[Fault]:
    for key in raw:
        if key in _OURS:
            yield Fault(key, f"expected none, {_OURS[key]}")
        elif key not in _KNOWN:
            yield Fault(key, f"unknown key{did_you_mean(key, _KNOWN)}; Ray knows {', '.join(_KNOWN)}")
    variables = raw.get("env_vars")
    if variables is not None and not isinstance(variables, dict):
        yield Fault("env_vars", f"expected a mapping of names to values, got {type(variables).__name__}")
        variables = {}
    for name, value in (variables or {}).items():
        if not isinstance(value, str):
            yield Fault(f"env_vars.{name}", f"expected text, got {value!r}; put it in quotes")
        elif _SECRET_NAME.search(name) or _looks_secret(value):
            yield Fault(f"env_vars.{name}", f"looks like a credential; {_INSTEAD}")
    for place, text in _texts(raw):
        if not place.startswith("env_vars") and _looks_secret(text):
            yield Fault(place, f"holds a credential; {_INSTEAD}")


_INSTEAD = "whoever sees the cluster can read this, set it in the environment of the cluster's machines"


def _looks_secret(value: str) -> bool:
    return hide_credentials(value) != value or _SECRET_VALUE.search(value) is not None


def _texts(tree: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """All texts of nested mappings and lists, with their places."""
    if isinstance(tree, str):
        yield place, tree
    elif isinstance(tree, dict):
        for key, value in tree.items():
            yield from _texts(value, f"{place}.{key}".lstrip("."))
    elif isinstance(tree, list):
        for number, value in enumerate(tree):
            yield from _texts(value, f"{place}[{number}]")
