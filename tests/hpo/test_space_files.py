"""Every space that comes with the project goes with a job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bbtune.hpo.space_file import read_space
from bbtune.yaml_text import read_yaml

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "search_spaces").glob("*.yaml"))
WORDS = ["bad", "great", "good", "late", "warm", "dull"]
IN_WORDS = ("genetic", "policy_gradient")


@pytest.fixture
def job(request: pytest.FixtureRequest, tiny_models: dict[str, Path]) -> dict[str, Any]:
    """The quickstart job; for searches of prompts in words the same on a tiny language model."""
    job = read_yaml(ROOT / "jobs" / "quickstart.yaml")
    if request.getfixturevalue("path").stem not in IN_WORDS:
        return job
    task = {"source": "builtin:support", "template": "{text} . it was {mask}", "label_words": WORDS}
    model = f"path:{tiny_models['gpt2']}"
    prompt = {"kind": "text", "text": "Read it.", "instructions": ["Judge it.", "Is it good?"]}
    return {**job, "task": task, "backbone": {"model": model}, "prompt": prompt, "evaluators": {}}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_space_goes_with_a_job_which_lies_inside_and_says_what_it_is_for(path: Path, job: dict[str, Any]) -> None:
    spec, space = read_space(path, job)
    assert spec.about
    assert space.spec({}).method_name == spec.method or "method.preset" in spec.fixed
    assert space.own_code() is not None


def test_the_index_names_every_space() -> None:
    index = (ROOT / "search_spaces" / "README.md").read_text(encoding="utf-8")
    assert [path.name for path in FILES if f"]({path.name})" not in index] == []
