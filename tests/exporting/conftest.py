"""Finished runs on tiny models, to be exported."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bbtune import api

PROMPTS: dict[str, dict[str, Any]] = {
    "prefix": {"kind": "prefix", "layers": "all"},
    "offsets": {"kind": "offset", "layers": "all"},
    "some": {"kind": "prefix", "layers": [1]},
    "input": {"kind": "offset", "layers": "input"},
    "behind": {"kind": "prefix", "place": "after"},  # the text
}
MakeRun = Callable[..., Path]


@pytest.fixture(scope="session")
def make_run(make_job: Any, tmp_path_factory: pytest.TempPathFactory) -> MakeRun:
    """Folders of finished runs on tiny models, each made once."""
    made: dict[str, Path] = {}

    def make(family: str, prompt: str = "prefix", **parts: Any) -> Path:
        key = json.dumps([family, prompt, parts], sort_keys=True)
        if key not in made:
            made[key] = tmp_path_factory.mktemp("runs") / "run"
            job = make_job(family, **({"budget": {"evaluations": 13}, "prompt": PROMPTS[prompt]} | parts))
            api.run(job, made[key])
        return made[key]

    return make
