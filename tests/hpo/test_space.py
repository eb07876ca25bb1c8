"""Spaces over a job: what is refused before anything runs, what settings make of a job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from spaces import DOMAINS, files, raw_of, space_of

from bbtune.errors import BbtuneError, JobError
from bbtune.hpo.domains import Number
from bbtune.hpo.space import Space, laid_over
from bbtune.hpo.space_file import REFUSED, read_space
from bbtune.hpo.study import HpoStudy, Options, read_study
from bbtune.spec import flattened


def faults(folder: Path, spec: Any, parameters: dict[str, Any] | None = None, **parts: Any) -> list[str]:
    job, path = files(spec, folder, **({} if parameters is None else {"parameters": parameters}), **parts)
    with pytest.raises(JobError) as caught:
        read_space(path, yaml.safe_load(job.read_text()))
    assert caught.value.what == "space"
    return [str(fault).replace(f" (space {path})", "") for fault in caught.value.faults]


def test_all_faults_of_a_space_are_told_together(make_job, tmp_path) -> None:
    told = faults(
        tmp_path,
        make_job("bert"),
        {
            "method.sigma": {"float": [0, 1]},
            "method.simga": {"float": [0.1, 1]},
            "method.population": {"int": [8, 3]},
            "method.loss": {"choice": ["hinge", "hings"]},
            "prompt": {"choice": [1, 2]},
            "seed": {"int": [0, 9]},
        },
        searcher="tpe",
        trails=3,
        asha={"grace": 0},
    )
    assert told == [
        "asha.grace: expected greater than 0, got 0",
        'trails: unknown key; did you mean "trials"?',
        "parameters.method.population.int: expected [LOW, HIGH] with LOW below HIGH, got [8, 3]",
        "parameters.prompt: expected a field of prompt, such as prompt.tokens or method.sigma",
        "parameters.seed: is not searched: the luckiest would win; the winner is trained again with others",
        'searcher: expected one of random, optuna, nevergrad, bayes, got "tpe"',
        "parameters.method.sigma: 0.0 is refused: method.sigma: expected greater than 0, got 0.0",
        'parameters.method.simga: unknown key; did you mean "sigma"?',
        "parameters.method.loss: \"hings\" is refused: method.loss: expected 'cross-entropy' or 'hinge', got \"hings\"",
    ]


@pytest.mark.parametrize("field", REFUSED)
def test_a_field_that_is_not_searched_says_why(field, make_job, tmp_path) -> None:
    told = faults(tmp_path, make_job("bert"), {field: {"int": [1, 2]}, "method.l2": {"choice": [0.0, 0.1]}})
    assert told == [f"parameters.{field}: is not searched: {REFUSED[field]}"]
    (deeper,) = faults(tmp_path, make_job("bert"), {f"{field}.x": {"int": [1, 2]}})
    assert "is not searched" in deeper


def test_a_space_needs_parameters(make_job, tmp_path) -> None:
    assert faults(tmp_path, make_job("bert"), {}) == ["parameters: expected at least 1 item, got {}"]


def test_ends_are_judged_against_data_and_model_alone_and_together(make_job, tmp_path) -> None:
    (alone,) = faults(tmp_path, make_job("bert", prompt={"kind": "offset"}), {"prompt.tokens": {"int": [4, 4000]}})
    assert alone.startswith("parameters.prompt.tokens: 4000 is refused: ")
    spec = make_job("bert", budget={"evaluations": 16})
    fields = {"method.population": {"int": [2, 12]}, "method.members": {"int": [1, 2]}}
    (both,) = faults(tmp_path, spec, fields)
    expected = "parameters: with method.population 12, method.members 2 together, budget.evaluations: expected at least"
    assert both.startswith(expected)


def test_a_fault_of_the_job_is_the_jobs(make_job, tmp_path) -> None:
    job, path = files(make_job("bert"), tmp_path)
    with pytest.raises(JobError, match=r"1 fault in the job\n  method.sigma: ") as caught:
        read_space(path, yaml.safe_load(job.read_text()), ["method.sigma=-1"])
    assert caught.value.what == "job"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "cannot read the space file .*space.yaml: No such file"),
        ("", "space.yaml: expected a mapping with parameters, got an empty file"),
        ("a: [", "space.yaml is not YAML"),
    ],
)
def test_a_file_that_is_no_space_is_told_as_one(text, told, make_job, tmp_path) -> None:
    job, path = files(make_job("bert"), tmp_path)
    path.unlink()
    if text is not None:
        path.write_text(text)
    with pytest.raises(JobError, match=rf"1 fault in the space\n  .*{told}"):
        read_space(path, yaml.safe_load(job.read_text()), [])


def test_what_is_fixed_lies_over_the_job_and_overrides_over_both(make_job, tmp_path) -> None:
    fixed = {"method.alpha": 0.4, "selection.by": "loss", "prompt.layers": [0]}
    job, path = files(make_job("bert"), tmp_path, fixed=fixed)
    _, space = read_space(path, yaml.safe_load(job.read_text()), ["method.alpha=0.5"])
    spec = space.spec({})
    assert (spec.method.alpha, spec.selection.by, spec.prompt.layers) == (0.5, "loss", [0])
    told = faults(tmp_path, make_job("bert"), fixed={"method.alhpa": 1})
    assert told == ['method.alhpa: unknown key; did you mean "alpha"? (with what the space fixes)']


def test_a_job_with_another_method_is_given_the_spaces(make_job, tmp_path) -> None:
    spec = make_job("bert", method={"sigma": 0.3, "schedule": "whole-sweeps"})
    job, path = files(spec, tmp_path, method="random")
    method = read_space(path, yaml.safe_load(job.read_text()))[1].spec({}).method
    assert (method.optimizer, method.sigma, method.schedule) == ("random", 0.3, "round-robin")
    job, path = files(spec, tmp_path, method="cma-diagonal")  # its own
    assert read_space(path, yaml.safe_load(job.read_text()))[1].spec({}).method.schedule == "whole-sweeps"


def test_no_settings_are_the_job_as_it_is(make_job) -> None:
    spec = make_job("bert")
    assert space_of(spec).spec({}) == spec


@given(st.tuples(st.floats(0, 1), st.floats(0, 1), st.sampled_from([0.0, 1.0])))
def test_settings_become_the_fields_of_the_job(make_job, code) -> None:
    space = space_of(make_job("bert"))
    settings = space.settings(code)
    known = flattened(space.spec(settings).model_dump(mode="json"))
    assert {path: known[path] for path in DOMAINS} == settings
    again = space.code(settings)
    assert again is not None
    assert space.settings(again) == settings


def test_the_job_as_it_is_has_a_code_if_it_lies_inside(make_job) -> None:
    spec = make_job("bert", method={"sigma": 0.2})
    space = space_of(spec)
    assert space.settings(space.own_code())["method.sigma"] == 0.2
    narrow = Space({"method.sigma": Number(0.5, 1.0, log=False, whole=False)}, raw_of(spec))
    assert narrow.own_code() is None


def test_what_the_job_leaves_open_counts_as_it_is_chosen(make_job) -> None:
    raw = raw_of(make_job("bert"))
    raw["method"] = {"optimizer": "auto"}
    raw["selection"] = {}
    space = Space({"selection.average": Number(1, 4, log=False, whole=True)}, raw)
    assert space.settings(space.own_code()) == {"selection.average": 3}


def test_laying_values_over_a_job_leaves_the_job_alone() -> None:
    job = {"method": {"sigma": 1}, "prompt": None}
    assert laid_over(job, {"prompt.tokens": 3, "method.loss": "hinge"}) == {
        "method": {"sigma": 1, "loss": "hinge"},
        "prompt": {"tokens": 3},
    }
    assert job == {"method": {"sigma": 1}, "prompt": None}


def study_of(
    make_job: Any, folder: Path, options: Options | None = None, overrides: Any = (), **space: Any
) -> HpoStudy:
    job, path = files(make_job("bert"), folder, **space)
    return read_study(job, path, options or Options(), overrides)


def test_options_of_the_command_go_before_those_of_the_space(make_job, tmp_path) -> None:
    said = {"trials": 7, "searcher": "bayes", "asha": {"grace": 0.5}}
    study = study_of(make_job, tmp_path, **said)
    assert (study.trials, study.searcher, study.asha.grace, study.asha.reduction) == (7, "bayes", 0.5, 2.0)
    study = study_of(make_job, tmp_path, Options(3, "random", asha=False), **said)
    assert (study.trials, study.searcher, study.asha) == (3, "random", None)


def test_the_folder_is_named_by_all_that_decides_what_is_proposed(make_job, tmp_path) -> None:
    kinds: list[Any] = [{}, {"options": Options(seed=1)}, {"options": Options(trials=3)}, {"trials": 4}]
    kinds += [{"options": Options(asha=False)}, {"options": Options(searcher="bayes")}, {"overrides": ["seed=9"]}]
    kinds += [{"parameters": {"method.l2": {"choice": [0.0, 0.1]}}}, {"fixed": {"method.alpha": 0.1}}]
    folders = [study_of(make_job, tmp_path, **kind).default_folder for kind in kinds]
    assert len(set(folders)) == len(kinds)
    assert folders[0].parent == Path("runs")
    assert folders[0].name.startswith("tiny-bert-hpo-")
    more = study_of(make_job, tmp_path, Options(concurrent=3), ["evaluators.count=2", "tracking.enabled=true"])
    assert more.default_folder == folders[0]


def test_a_searcher_that_is_not_there_is_told(make_job, tmp_path) -> None:
    with pytest.raises(BbtuneError, match=r'--searcher: expected one of random, .*did you mean "optuna"'):
        study_of(make_job, tmp_path, Options(searcher="optunna"))


def test_a_job_that_pays_an_api_or_is_stored_elsewhere_is_refused(make_job, tmp_path) -> None:
    with pytest.raises(JobError, match="storage: expected none, a study is kept in --out"):
        study_of(make_job, tmp_path, overrides=["storage=/nowhere"])
