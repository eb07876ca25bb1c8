"""The choice of a search where the job leaves it open."""

from __future__ import annotations

from typing import Any

import pytest

from bbtune.auto import resolve
from bbtune.cost import Sizes
from bbtune.examine import make_plan
from bbtune.spec import JobSpec

SIZES = Sizes(32, 32, (0, 1, 2), 3)


def job(**parts: Any) -> JobSpec:
    base = {"task": {"source": "builtin:support"}, "backbone": {"model": "path:/nowhere"}}
    return JobSpec.model_validate({**base, "budget": {"evaluations": 600}, **parts})


@pytest.mark.parametrize(
    ("budget", "probes"),
    [
        ({"evaluations": 600}, 40),
        ({"evaluations": 100}, 12),
        ({"evaluations": 20}, 4),
        ({"examples": 32 * 162}, 20),  # dev, twice, has as many
        ({"layer_forwards": 32 * 3 * 162}, 20),
        ({"evaluations": 600, "examples": 32 * 162}, 20),
        ({"seconds": 60.0}, 40),
    ],
)
def test_with_label_logits_it_is_gauss_newton_with_as_many_probes_as_the_budget_bears(budget, probes):
    spec, why = resolve(job(budget=budget), SIZES)
    assert (spec.method.optimizer, spec.method.blocks, spec.method.population) == ("gauss-newton", "joint", probes)
    assert f"{probes} probes" in why
    assert (spec.selection.by, spec.selection.average) == ("loss", 3)


@pytest.mark.parametrize(
    ("budget", "train", "probes", "part"),
    [
        ({"examples": 160 * 602}, 160, 40, 32),
        ({"examples": 160 * 98}, 160, 30, 32),  # eight rounds of 30 / 5 + 6
        ({"examples": 160 * 50}, 160, 6, None),  # steps alone would use it up
        ({"seconds": 60.0}, 500, 40, 100),
        ({"seconds": 60.0}, 127, 40, None),
        ({"evaluations": 600, "seconds": 60.0}, 500, 40, None),  # a call is a call, however few its texts
    ],
)
def test_of_many_examples_probes_see_a_part_where_texts_are_counted(budget, train, probes, part):
    spec, why = resolve(job(budget=budget), Sizes(train, 32, (0, 1, 2), 3))
    assert (spec.method.population, spec.method.probe_examples) == (probes, part)
    assert (f" on {part} examples each" in why) == (part is not None)


@pytest.mark.parametrize(
    ("budget", "given", "probes", "part"),
    [
        ({"evaluations": 600}, 20, 40, 20),
        ({"evaluations": 600}, 32, 40, None),  # that is all of them
        ({"evaluations": 600}, 500, 40, None),
        ({"examples": 32 * 102}, 8, 24, 8),  # eight rounds of 24 / 4 + 6
        ({"examples": 32 * 42}, 8, 4, 8),
    ],
)
def test_the_part_of_the_examples_that_a_job_gives_is_kept_and_counted(budget, given, probes, part):
    spec, why = resolve(job(budget=budget, method={"probe_examples": given}), SIZES)
    assert (spec.method.population, spec.method.probe_examples) == (probes, part)
    assert (f" on {part} examples each" in why) == (part is not None)


@pytest.mark.parametrize(("calls", "optimizer"), [(600, "spsa"), (99, "random"), (4, "random")])
def test_with_losses_alone_it_goes_by_the_budget(calls, optimizer):
    spec, why = resolve(job(budget={"evaluations": calls}, method={"probe_examples": 5}), SIZES, logits=False)
    assert (spec.method.optimizer, spec.method.probe_examples) == (optimizer, None)
    assert optimizer.split("-")[0] in why
    assert spec.method.population + 1 <= calls


def test_a_budget_of_a_few_calls_is_left_to_random_search():
    spec, why = resolve(job(budget={"evaluations": 8}), SIZES)
    assert (spec.method.optimizer, spec.method.population) == ("random", 7)
    assert "8 evaluations" in why


def test_it_never_probes_more_directions_than_there_are_numbers():
    spec, _ = resolve(job(prompt={"intrinsic_dim": 5}), Sizes(32, 32, (0, 2), 3))
    assert spec.method.population == 10


def test_one_number_and_no_limit_but_time_give_a_job_that_runs():
    spec, _ = resolve(job(budget={"seconds": 5.0}, prompt={"intrinsic_dim": 1}), Sizes(8, 8, (0,), 3))
    assert spec.method.population == 2


def test_what_the_job_says_stays():
    method = {"population": 16, "loss": "hinge", "probe_examples": 9}
    spec, _ = resolve(job(method=method, selection={"average": 2, "by": "loss"}), SIZES)
    assert (spec.method.population, spec.method.loss, spec.method.probe_examples) == (16, "hinge", 9)
    assert (spec.selection.average, spec.selection.by) == (2, "loss")


@pytest.mark.parametrize("optimizer", ["spsa", "cma-diagonal", "gauss-newton"])
def test_a_named_optimizer_is_left_alone(optimizer):
    before = job(method={"optimizer": optimizer})
    spec, why = resolve(before, SIZES)
    assert why == ""
    assert spec.method == before.method
    assert (spec.selection.by, spec.selection.average) == ("metric", 1)


def test_a_plan_has_everything_chosen_and_says_why(make_job):
    plan, _, _ = make_plan(
        make_job("bert", method={"optimizer": "auto", "blocks": "joint"}, budget={"evaluations": 60})
    )
    assert plan.spec.method.optimizer == "gauss-newton"
    assert "60 evaluations" in plan.chosen
