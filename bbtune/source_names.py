"""Names of sources in a job: where a task, a table or a model comes from."""

from __future__ import annotations

import os
import re
from typing import Annotated, Any

from pydantic import AfterValidator, Field

_LOCAL = {"folder", "file", "path"}  # schemes of sources that are paths


def absolute_path(path: str) -> str:
    """A path with ``~`` and ``$NAME`` expanded, made absolute.

    Raises:
        ValueError: if a variable is not set.
    """
    path = os.path.expanduser(os.path.expandvars(path))
    if unset := re.findall(r"\$\{?(\w+)", path):
        raise ValueError(f"the environment variable {unset[0]} is not set; set it to the folder that it stands for")
    return os.path.abspath(path)


def local_path(source: str | None) -> str | None:
    """The path of a source that is one, such as ``file:/data/tickets.csv``; None of others."""
    scheme, _, rest = (source or "").partition(":")
    return rest if scheme in _LOCAL else None


def place_free(source: str | None) -> str | None:
    """A source whose path, if it is one, is cut down to its last part."""
    path = local_path(source)
    return source if source is None or path is None else f"{source.partition(':')[0]}:{os.path.basename(path)}"


def _absolute(source: str) -> str:
    """Make sources that are local paths absolute."""
    path = local_path(source)
    return source if path is None else f"{source.partition(':')[0]}:{absolute_path(path)}"


def _task_source(source: str) -> str:
    """A task source, its path absolute."""
    scheme, _, rest = source.partition(":")
    if scheme not in {"folder", "file", "hf", "builtin", "object"} or not rest:
        raise ValueError("expected folder:DIR, file:TABLE, hf:NAME or builtin:NAME")
    return _absolute(source)


def _test_source(source: str) -> str:
    """A table, its path absolute."""
    if not source.startswith("file:") or source == "file:":
        raise ValueError("expected file:TABLE")
    return _absolute(source)


def _model_source(source: str) -> str:
    """A model source, its path absolute."""
    scheme, _, rest = source.partition(":")
    if scheme not in {"hf", "path", "package", "cache"} or not rest:
        raise ValueError("expected hf:NAME, path:DIR_OR_GGUF, package:NAME or cache:NAME")
    return _absolute(source)


def _scheme(pattern: str) -> Any:
    """What an editor can tell of a source; the faults of a job are told in better words by its validator."""
    return Field(json_schema_extra={"pattern": pattern})


TaskSource = Annotated[str, AfterValidator(_task_source), _scheme("^(folder|file|hf|builtin|object):.+")]
TestSource = Annotated[str, AfterValidator(_test_source), _scheme("^file:.+")]
ModelSource = Annotated[str, AfterValidator(_model_source), _scheme("^(hf|path|package|cache):.+")]
