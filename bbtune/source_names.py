"""Names of sources in a job: where a task, a table or a model comes from."""

from __future__ import annotations

import os
import re
from typing import Annotated

from pydantic import AfterValidator


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
    """A task source, its path absolute."""
    scheme, _, rest = source.partition(":")
    if scheme not in {"folder", "file", "hf", "builtin"} or not rest:
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


TaskSource = Annotated[str, AfterValidator(_task_source)]
TestSource = Annotated[str, AfterValidator(_test_source)]
ModelSource = Annotated[str, AfterValidator(_model_source)]
