"""Prompts that travel as embeddings score as they do on the model itself."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from served import Deaf, MostProbable, Served
from tiny_models import save_model

from bbtune.build import limits, make_search, make_selection
from bbtune.errors import BackboneError, DeadlineReached, EndpointError
from bbtune.evaluation.evaluator import PromptEvaluator
from bbtune.evaluation.local import LocalPool
from bbtune.evaluation.wire import WirePool, packed
from bbtune.evaluation.worker import Worker
from bbtune.examine import make_plan
from bbtune.loop import Generation, Ledger, run_search
from bbtune.task.task import label_array

AT_THE_INPUT = {"kind": "offset", "layers": "input"}
FAMILIES = ["llama", "gpt2", "qwen2", "qwen3", "mistral", "gpt_neox", "gemma", "gemma2", "gemma3_text"]


def apart(one, other):
    """How far label logits are from others, the number per text by which log-probabilities differ left out."""
    one, other = (logits - logits.mean(axis=-1, keepdims=True) for logits in (one, other))
    return np.abs(one - other).max()


def plan_of(make_job, family, prompt=None, **parts):
    return make_plan(make_job(family, prompt={**AT_THE_INPUT, **(prompt or {})}, **parts))[0]


def numbers(count):
    """z (P, 1, D) of candidates."""
    return np.random.default_rng(0).standard_normal((count, 1, 6))


@pytest.fixture(scope="module")
def llama(make_job, tiny_models):
    """A plan, and a pool that asks a server."""
    plan = plan_of(make_job, "llama")
    return plan, WirePool(plan, Served(tiny_models["llama"]))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("place", ["before", "after"])
def test_candidates_have_the_scores_that_they_have_on_the_model(family, place, make_job, tiny_models):
    plan = plan_of(make_job, family, {"place": place})
    worker, pool, z = Worker(plan), WirePool(plan, Served(tiny_models[family])), numbers(3)
    for split, subset in [("train", None), ("dev", None), ("train", (1, 6)), ("dev", (7, 0))]:
        expected = worker.candidates(z, split, 0, subset)
        (got,) = pool.run("candidates", [(z, split, 0, subset)])
        assert (got.shape, got.dtype) == (expected.shape, np.float32)
        assert apart(got, expected) < 1e-4
    assert pool.missing == 0
    assert pool.run("calibrate", [()])[0] == pytest.approx(worker.calibrate())
    assert "MiB" in pool.run("describe", [()])[0]


@pytest.mark.parametrize("text", [None, "say how it was :"])
@pytest.mark.parametrize("place", ["before", "after"])
def test_the_untouched_model_and_any_texts_have_the_scores_that_they_have_on_the_model(
    text, place, make_job, tiny_models
):
    plan = plan_of(make_job, "llama", {"place": place, "text": text, "tokens": None if text else 4})
    worker, pool = Worker(plan), WirePool(plan, Served(tiny_models["llama"]))
    for z in (None, numbers(1)[0]):
        expected = worker.label_logits(z, plan.dev[:5])
        (got,) = pool.run("label_logits", [(z, plan.dev[:5])])
        assert apart(got, expected) < 1e-4


def test_several_words_of_a_label_are_summed(make_job, tiny_models):
    plan = plan_of(make_job, "gpt2", task={"label_words": [["bad", "late"], ["great", "good", "warm"]]})
    worker, pool = Worker(plan), WirePool(plan, Served(tiny_models["gpt2"]))
    assert apart(pool.candidates(numbers(2), "train", 0), worker.candidates(numbers(2), "train", 0)) < 1e-4


def test_weights_of_two_bytes_are_sent_as_they_are_used(make_job, tiny_models):
    plan = plan_of(make_job, "llama", backbone={"dtype": "bfloat16"})
    served = Served(tiny_models["llama"])
    WirePool(plan, served).candidates(numbers(1), "train", 0)
    sent = served.inputs(served.requests[0].body("tiny"))["inputs_embeds"]
    assert sent.dtype == torch.float32
    assert torch.equal(sent, sent.bfloat16().float())


def test_a_model_whose_embeddings_are_narrower_is_refused_and_one_whose_are_not_is_taken(
    make_job, tiny_models, tmp_path
):
    with pytest.raises(BackboneError, match="expected embeddings as wide as the layers"):
        WirePool(plan_of(make_job, "opt"), Served(tiny_models["opt"]))
    folder = save_model("opt", tmp_path / "opt", word_embed_proj_dim=32)
    plan = plan_of(make_job, "opt", backbone={"model": f"path:{folder}"})
    pool = WirePool(plan, Served(folder))
    assert apart(pool.candidates(numbers(2), "train", 0), Worker(plan).candidates(numbers(2), "train", 0)) < 1e-4


def generations(plan, task, pool):
    """Best losses and dev metrics of a search on a pool."""
    scales = plan.spec.method.alpha * pool.run("calibrate", [()])[0] / plan.spec.method.sigma
    evaluator = PromptEvaluator(pool, plan, task.metric, scales, pool.run("together", [()])[0])
    search = make_search(plan.spec, plan.sizes, label_array(plan.train))
    events = list(
        run_search(search, evaluator, Ledger(limits(plan.spec), plan.sizes), make_selection(plan.spec, search))
    )
    found = [event for event in events if isinstance(event, Generation)]
    return [(event.best_loss, event.dev_metric) for event in found if event.best_loss is not None]


@pytest.mark.parametrize(
    "method", [{"optimizer": "cma"}, {"optimizer": "gauss-newton", "blocks": "joint", "probe_examples": 3}]
)
def test_a_search_takes_the_way_that_it_takes_on_the_model(method, make_job, tiny_models):
    plan, task, _ = make_plan(make_job("llama", prompt=AT_THE_INPUT, method=method))
    here = generations(plan, task, LocalPool(plan))
    there = generations(plan, task, WirePool(plan, Served(tiny_models["llama"])))
    assert len(here) > 1
    assert np.allclose(there, here, atol=1e-4)


def test_equal_embeddings_are_equal_text_in_any_process_and_nothing_but_them_is_in_it():
    program = (
        "import torch; from bbtune.evaluation.wire import packed; print(packed(torch.arange(12.).reshape(3, 4) / 7))"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    whole = torch.arange(24.0).reshape(6, 4) / 7
    assert packed(whole[:3]) == packed(whole[:3].clone()) == packed(whole.double()[:3].float()) == said.strip()
    assert packed(whole.T[:3]) != packed(whole[:3])


def test_a_question_is_asked_in_the_same_words_by_every_pool(llama, make_job, tiny_models):
    plan, _ = llama
    served = [Served(tiny_models["llama"]) for _ in range(2)]
    for model, z in zip(served, (numbers(3), numbers(3)[::-1]), strict=True):
        WirePool(plan, model).candidates(z, "train", 0)
    first, second = ({request.key("there", "tiny") for request in model.requests} for model in served)
    assert first == second
    assert len(first) == 3 * len(plan.train)


@pytest.mark.parametrize("top", [100, 20])
def test_words_outside_the_most_probable_tokens_are_bounded_by_the_last_of_them_and_counted(
    top, make_job, tiny_models, monkeypatch
):
    monkeypatch.setattr("bbtune.evaluation.label_tokens.LabelTokens.TOP", top)
    plan = plan_of(make_job, "gpt2")
    exact, bounded = (WirePool(plan, kind(tiny_models["gpt2"])) for kind in (Served, MostProbable))
    z = numbers(3)
    expected, got = exact.candidates(z, "train", 0), bounded.candidates(z, "train", 0)
    differ = np.abs(got - expected) > 1e-5
    assert 0 < differ.sum() <= bounded.missing < got.size
    assert (got[differ] > expected[differ]).all()
    assert exact.missing == 0
    assert "bounded" in bounded.describe()


def test_a_server_that_ignores_embeddings_is_told_so(llama, tiny_models):
    pool = WirePool(llama[0], Deaf(tiny_models["llama"]))
    with pytest.raises(EndpointError, match=r"expected an answer to the \d+ embeddings .* --enable-prompt-embeds"):
        pool.run("candidates", [(numbers(1), "train", 0, None)])


def test_a_server_of_other_weights_is_found_out_before_the_search(llama, tiny_models, tmp_path):
    other = Served(save_model("llama", tmp_path / "other", initializer_range=0.5))
    with pytest.raises(
        EndpointError, match=r"expected a server with the weights of path:.*name the model that is served"
    ):
        WirePool(llama[0], other).run("describe", [()])


def test_an_answer_without_log_probabilities_is_told_so(llama, tiny_models):
    class Silent(Served):
        def ask(self, requests, deadline=None):
            return [replace(answer, tokens=()) for answer in super().ask(requests, deadline)]

    with pytest.raises(EndpointError, match="expected log-probabilities"):
        WirePool(llama[0], Silent(tiny_models["llama"])).candidates(numbers(1), "train", 0)


def test_the_deadline_goes_to_the_model_and_ends_the_calls(llama, tiny_models):
    served = Served(tiny_models["llama"])
    pool = WirePool(llama[0], served)
    later = time.monotonic() + 600
    calls = [(numbers(1), "train", 0, (0,))] * 2
    pool.run("candidates", calls, later)
    pool.run("candidates", calls[:1])
    assert served.deadlines == [later, later, None]
    with pytest.raises(DeadlineReached):
        pool.run("candidates", calls, time.monotonic() - 1)
    pool.close()
    assert served.closed


def test_as_many_candidates_share_a_call_as_memory_should_hold(llama, monkeypatch):
    plan, pool = llama
    assert pool.each("together") == [plan.spec.method.population]
    monkeypatch.setattr("bbtune.evaluation.wire._AT_ONCE", 1)
    assert pool.each("together") == [1]
    assert pool.each("peak_memory_mib")[0] > 1
