"""The JSON Schema takes every job that the loader takes, and tells a misspelt key."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from bbtune.errors import JobError
from bbtune.job_schema import job_schema
from bbtune.jobfile import load_job, parse_job
from bbtune.methods import BASELINES
from bbtune.suite import is_suite
from bbtune.yaml_text import read_yaml

ROOT = Path(__file__).parents[2]
OF_CLUSTERS = {"kuberay.yaml", "ray_up.yaml"}
FILES = sorted(path for path in (ROOT / "jobs").rglob("*.yaml") if path.name not in OF_CLUSTERS and not is_suite(path))
SCHEMA = job_schema()
VALIDATOR = Draft202012Validator(SCHEMA)
TASK: dict[str, Any] = {"source": "builtin:support"}
SMALL: dict[str, Any] = {"task": TASK, "backbone": {"model": "package:none"}, "budget": {"evaluations": 100}}


def faults(job: Any) -> list[str]:
    return [error.message for error in VALIDATOR.iter_errors(job)]


def renamed(job: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The job once for each of its keys, that key misspelt."""

    def places(part: Any, path: list[Any]) -> Iterator[list[Any]]:
        if isinstance(part, dict):
            for key, value in part.items():
                yield [*path, key]
                yield from places(value, [*path, key])

    for *above, key in places(job, []):
        changed = copy.deepcopy(job)
        holder = changed
        for step in above:
            holder = holder[step]
        holder[f"{key}x"] = holder.pop(key)
        yield ".".join([*above, key]), changed


def name_of(path: Path) -> str:
    return path.relative_to(ROOT / "jobs").as_posix()


def test_the_schema_is_a_schema() -> None:
    Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_shipped_job_is_taken_and_none_of_its_keys_may_be_misspelt(path: Path) -> None:
    raw = read_yaml(path)
    assert faults(raw) == []
    assert [key for key, changed in renamed(raw) if not faults(changed)] == []


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_shipped_job_with_its_defaults_written_out_is_taken(
    path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As in the ``spec.yaml`` of a run folder."""
    monkeypatch.setenv("BBTUNE_DATA", str(tmp_path))
    assert faults(load_job(path).model_dump(mode="json")) == []


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_shipped_job_names_the_schema_to_editors(path: Path) -> None:
    said = path.read_text(encoding="utf-8").splitlines()[0].removeprefix("# yaml-language-server: $schema=")
    assert (path.parent / said).resolve() == ROOT / "docs" / "reference" / "job.schema.json"


@pytest.mark.parametrize(
    "change",
    [
        {"method": {"preset": "paper-bbtv2"}, "budget": ...},
        {"backbone": {"api": {"base_url": "http://h/v1", "model": "m"}}, "prompt": {"kind": "text"}},
        {"method": {"optimizer": "nevergrad:DE"}},
        {"method": {"optimizer": "own:Mine"}},
        {"prompt": {"layers": [0, 3]}, "selection": {"by": "last"}, "evaluators": {"cpus": 0.5}},
        {"method": {"name": "lora"}, "budget": ...},
        {"task": TASK | {"label_words": ["bad", ["good", "great"]]}},
        {"prompt": {"kind": "text"}, "method": {"search": "nevergrad", "writer": {"model": "cache:m"}}},
    ],
    ids=str,
)
def test_what_the_loader_fills_in_may_be_left_out(change: dict[str, Any]) -> None:
    job = {key: value for key, value in (SMALL | change).items() if value is not ...}
    assert parse_job(job)[1] == []
    assert faults(job) == []


@pytest.mark.parametrize(
    "change",
    [
        {"budget": ...},
        {"backbone": {"kind": "auto"}},
        {"task": TASK | {"shots": "16"}},
        {"task": {"source": "support"}},
        {"method": "lora"},
        {"method": {"name": "loar"}},
        {"method": {"optimizer": "cmaa"}},
        {"method": {"search": "genetic"}},
        {"prompt": {"kind": "text"}, "method": {"optimizer": "auto"}},
        {"backbone": {"model": "package:none", "device": "gpu"}},
        {"prompt": {"kind": "prefix", "instructions": ["a"]}},
    ],
    ids=str,
)
def test_what_the_loader_refuses_of_keys_types_and_names_the_schema_refuses(change: dict[str, Any]) -> None:
    job = {key: value for key, value in (SMALL | change).items() if value is not ...}
    assert faults(job) != []
    with pytest.raises(JobError):
        raise JobError(parse_job(job)[1] or examined(job))


def examined(job: dict[str, Any]) -> Any:
    """Faults that are told one step later: names of optimizers and searches."""
    from bbtune.examine import examine

    spec, _, broken = parse_job(job)
    assert spec is not None
    return examine(spec, broken)[3]


def test_every_key_says_what_it_means() -> None:
    silent = [
        f"{name}.{key}"
        for name, part in SCHEMA["$defs"].items()
        for key, rule in part["properties"].items()
        if not rule.get("description") and "$ref" not in str(rule)
    ]
    assert silent == []
    assert all(part["description"] for part in SCHEMA["$defs"].values())


def test_every_baseline_is_taken_by_its_name_and_what_it_must_be_given() -> None:
    given = {"template-ensemble": {"templates": ["{text}", "A text: {text}"]}}
    jobs = [SMALL | {"method": {"name": name} | given.get(name, {})} for name in BASELINES]
    assert [job["method"]["name"] for job in jobs if faults(job)] == []
