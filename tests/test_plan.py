"""Jobs that are right alone and wrong with their data or their model."""

from __future__ import annotations

from typing import Any

import pytest

from bbtune.examine import examine

PAPER = {"schedule": "whole-sweeps", "accept": "best-ever"}
MODEL_ALL = {"optimizer": "gauss-newton", "blocks": "joint"}


def faults_of(spec: Any) -> list[str]:
    return [str(fault) for fault in examine(spec, set())[3]]


def test_a_plan_knows_the_sizes_that_decide_the_cost(make_job):
    plan = examine(make_job("gpt2", prompt={"layers": [2, 1]}), set())[0]
    sizes = plan.sizes
    assert (sizes.train, sizes.dev, sizes.layers, sizes.depth) == (8, 8, (1, 2), 3)


# 4 candidates on 8 train examples, and the starting point; dev of 8 twice. The model has 3 layers.
@pytest.mark.parametrize(
    ("parts", "key", "need", "candidates"),
    [
        ({}, "examples", 5 * 8 + 2 * 8, 5),
        ({"method": {"accept": "best-ever"}}, "examples", 4 * 8 + 2 * 8, 4),
        ({}, "layer_forwards", 5 * 8 * 3 + 2 * 8 * 3, 5),
        ({"method": {"accept": "best-ever"}}, "layer_forwards", 4 * 8 * 3 + 2 * 8 * 3, 4),
        ({"prompt": {"layers": [2]}}, "layer_forwards", 8 * (4 * 1 + 2) + 8 * 3 + 2 * 8 * 3, 5),
        ({"prompt": {"layers": [1, 2]}}, "layer_forwards", 8 * (4 * 2 + 1) + 8 * 3 + 2 * 8 * 3, 5),
    ],
)
def test_a_budget_that_holds_no_generation_is_told(parts, key, need, candidates, make_job):
    def spec(value: int) -> Any:
        return make_job("bert", budget={"evaluations": None, key: value}, **parts)

    words = f"{candidates} candidates on 8 train examples, dev of 8 twice"
    assert faults_of(spec(need)) == []
    assert faults_of(spec(need - 1)) == [
        f"budget.{key}: expected at least one generation, {need} ({words}), got {need - 1}"
    ]


# Of gauss-newton the centre and three steps belong to it, on all examples.
@pytest.mark.parametrize(
    ("examples", "need", "words"),
    [
        (None, 9 * 8 + 2 * 8, "9 candidates on 8 train examples"),
        (2, 5 * 2 + 4 * 8 + 2 * 8, "5 candidates on 2 train examples and 4 on 8"),
        (50, 9 * 8 + 2 * 8, "9 candidates on 8 train examples"),
    ],
)
@pytest.mark.parametrize(("key", "layers"), [("examples", 1), ("layer_forwards", 3)])
def test_a_round_of_probes_on_a_part_of_the_examples_is_priced_as_it_is(key, layers, examples, need, words, make_job):
    method, need = {**MODEL_ALL, "population": 5, "probe_examples": examples}, need * layers

    def spec(value: int) -> Any:
        return make_job("bert", method=method, budget={"evaluations": None, key: value})

    assert faults_of(spec(need)) == []
    assert faults_of(spec(need - 1)) == [
        f"budget.{key}: expected at least one generation, {need} ({words}, dev of 8 twice), got {need - 1}"
    ]


@pytest.mark.parametrize(
    ("method", "sweep", "words"),
    [
        ({}, 12, "4 candidates for each of 3 blocks"),
        ({"generations_per_visit": 5}, 60, "4 candidates for each of 3 blocks, 5 generations each"),
        ({"generations_per_visit": 2, "blocks": "joint"}, 8, "4 candidates for each of 1 blocks, 2 generations each"),
    ],
)
def test_a_budget_that_holds_no_sweep_is_told(method, sweep, words, make_job):
    def spec(evaluations: int) -> Any:
        return make_job("bert", method={**PAPER, **method}, budget={"evaluations": evaluations})

    assert faults_of(spec(sweep)) == []
    assert faults_of(spec(sweep - 1)) == [
        f"budget.evaluations: expected at least one sweep, {sweep} ({words}), got {sweep - 1}"
    ]


@pytest.mark.parametrize(("family", "kind"), [("bert", "masked-lm"), ("encoder", "sentence-encoder")])
@pytest.mark.parametrize("prompt", ["offset", "prefix"])
def test_a_prompt_behind_the_text_is_for_causal_models(family, kind, prompt, make_job):
    task = {"template": "{text}", "label_words": ["bad", "good"]} if family == "encoder" else {}
    spec = make_job(family, prompt={"kind": prompt, "place": "after"}, task=task)
    assert faults_of(spec) == [
        f"prompt.place: expected before for a {kind}, only a causal language model can have its prompt behind the "
        "text, got after"
    ]


@pytest.mark.parametrize("template", ["{text} {mask}", "{text}{mask}", "{text}", "it was : {text} {mask} and late"])
def test_a_prefix_behind_the_text_needs_words_behind_it(template, make_job):
    def spec(**prompt: str) -> Any:
        return make_job("gpt2", prompt=prompt, task={"template": template})

    (fault,) = faults_of(spec(kind="prefix", place="after"))
    assert fault.startswith("task.template: expected words between the last field and {mask} with prompt.place after")
    assert "a prefix is only seen by the tokens behind it" in fault
    assert faults_of(spec(kind="prefix", place="before")) == []
    assert faults_of(spec(kind="offset", place="after")) == []


@pytest.mark.parametrize("template", ["{text} it was {mask}", "{text} .{mask}", "{text}\n{mask}", "{text} it was"])
def test_words_behind_the_text_are_enough_for_a_prefix_there(template, make_job):
    assert faults_of(make_job("gpt2", prompt={"place": "after"}, task={"template": template})) == []


def test_a_field_behind_the_mask_is_one_fault_wherever_the_prompt_stands(make_job):
    (fault,) = faults_of(make_job("gpt2", prompt={"place": "after"}, task={"template": "{mask} {text}"}))
    assert fault.startswith("task.template: expected {mask} at the end")


def test_the_place_is_not_judged_by_a_kind_that_is_at_fault(make_job):
    spec = make_job("gpt2", prompt={"place": "after"}, task={"template": "{text} {mask}"})
    assert examine(spec, {"prompt.kind"})[3] == []


@pytest.mark.parametrize(
    ("method", "faults"),
    [
        (MODEL_ALL, []),
        ({**MODEL_ALL, "schedule": "recent-gain", "restarts": 2}, []),
        (
            {"optimizer": "gauss-newton", "blocks": "layerwise"},
            ["method.blocks: expected joint, gauss-newton looks at all tuned layers together, got layerwise"],
        ),
        (
            {**MODEL_ALL, "schedule": "whole-sweeps"},
            ["method.schedule: expected round-robin, generations of gauss-newton differ in size, got whole-sweeps"],
        ),
        (
            {"schedule": "recent-gain", "accept": "best-ever"},
            ["method.accept: expected improves, recent-gain needs to know what each layer gains, got best-ever"],
        ),
        ({"schedule": "recent-gain"}, []),
        ({**MODEL_ALL, "probe_examples": 4}, []),
        (
            {"optimizer": "cma", "probe_examples": 4},
            ["method.probe_examples: expected none, cma does not probe, got 4"],
        ),
        ({"optimizer": "cma-vkd", "schedule": "whole-sweeps"}, []),
    ],
)
def test_a_search_whose_parts_do_not_go_together_is_told(method, faults, make_job):
    assert faults_of(make_job("bert", method=method)) == faults


def test_both_faults_of_gauss_newton_are_told_and_none_that_rests_on_a_broken_key(make_job):
    method = {"optimizer": "gauss-newton", "blocks": "layerwise", "schedule": "whole-sweeps"}
    spec = make_job("bert", method=method)
    assert [fault.path for fault in examine(spec, set())[3]] == ["method.blocks", "method.schedule"]
    assert [fault.path for fault in examine(spec, {"method.blocks"})[3]] == ["method.schedule"]


def test_faults_of_the_search_come_before_those_of_data_and_model_and_label_words_after_the_layers(make_job):
    method = {"optimizer": "gauss-newton", "blocks": "layerwise"}
    task = {"template": "{text}", "label_words": ["bad"]}
    spec = make_job("bert", method=method, task=task, prompt={"layers": [0, 9]})
    faults = [fault.path for fault in examine(spec, set())[3]]
    assert faults == ["method.blocks", "task.template", "prompt.layers", "task.label_words"]
