"""A real server that takes embeddings: losses are those of the same weights here, and tuning works.

python benchmarks/vllm_server.py ENVIRONMENT MODEL
BBTUNE_VLLM_URL=http://127.0.0.1:PORT/v1 BBTUNE_VLLM_MODEL=MODEL pytest -m vllm
"""

from __future__ import annotations

import json
import os
import urllib.request

import numpy as np
import pytest
from small_task import ACCURACY

from bbtune.build import limits, make_search, make_selection
from bbtune.endpoint.endpoint import Endpoint
from bbtune.endpoint.purse import Caps, Purse
from bbtune.endpoint.secrets import Secret
from bbtune.endpoint.store import AnswerStore
from bbtune.endpoint_spec import ApiSpec
from bbtune.errors import EndpointError
from bbtune.evaluation.evaluator import PromptEvaluator
from bbtune.evaluation.wire import WirePool
from bbtune.evaluation.worker import Worker
from bbtune.examine import make_plan
from bbtune.loop import Generation, Ledger, Stopped, run_search
from bbtune.objective import Objective
from bbtune.probing import probe_job
from bbtune.prompts.space import layer_scales
from bbtune.task.task import label_array

URL, MODEL = (os.environ.get(f"BBTUNE_VLLM_{name}") for name in ("URL", "MODEL"))
KEY = "VLLM_API_KEY" if os.environ.get("VLLM_API_KEY") else None
WHY = "needs BBTUNE_VLLM_URL, a vLLM server with --enable-prompt-embeds, and BBTUNE_VLLM_MODEL, the folder it serves"
pytestmark = [pytest.mark.vllm, pytest.mark.skipif(not URL or not MODEL, reason=WHY), pytest.mark.timeout(600)]


def served_name():
    """What the server calls its model."""
    headers = {"Authorization": f"Bearer {os.environ[KEY]}"} if KEY else {}
    with urllib.request.urlopen(urllib.request.Request(f"{URL}/models", headers=headers), timeout=30) as response:
        return json.load(response)["data"][0]["id"]


@pytest.fixture
def endpoint(tmp_path):
    spec = ApiSpec(base_url=URL, model=served_name(), api_key_env=KEY)
    store, purse = AnswerStore(tmp_path / "answers.sqlite"), Purse(tmp_path / "purse.sqlite", Caps())
    model = Endpoint(spec, Secret.from_environment(KEY), purse, store)
    yield model
    for part in (model, purse, store):
        part.close()


@pytest.fixture
def plan(make_job):
    return make_plan(
        make_job(
            "llama",
            backbone={"model": f"path:{MODEL}"},
            prompt={"kind": "offset", "layers": "input", "tokens": 5, "intrinsic_dim": 20},
            method={"optimizer": "cma", "population": 8},
            budget={"evaluations": 48},
        )
    )[0]


def test_losses_of_the_server_are_those_of_the_same_weights_here(plan, endpoint):
    pool, worker = WirePool(plan, endpoint), Worker(plan)
    (stds,) = pool.run("calibrate", [()])
    assert stds == pytest.approx(worker.calibrate())
    z = np.random.default_rng(0).standard_normal((6, 1, 20)) * layer_scales(stds, 0.7, 0.2) * 0.2
    objectives = {split: Objective(label_array(getattr(plan, split)), "cross-entropy") for split in ("train", "dev")}
    for split, subset in [("train", None), ("dev", None), ("train", (1, 4))]:
        objective = objectives[split].of(subset)
        there, here = (objective(kind.candidates(z, split, 0, subset)) for kind in (pool, worker))
        assert np.abs(there - here).max() < 1e-3
        assert np.ptp(here) > 0.05
    for numbers in (None, z[0]):
        there, here = (objectives["dev"](kind.label_logits(numbers, plan.dev)[None]) for kind in (pool, worker))
        assert np.abs(there - here).max() < 1e-3
    assert pool.missing == 0


def test_a_search_over_the_wire_lowers_the_loss_and_what_was_asked_is_not_asked_again(plan, endpoint):
    pool = WirePool(plan, endpoint)
    assert "asked in embeddings" in pool.run("describe", [()])[0]
    scales = layer_scales(pool.run("calibrate", [()])[0], plan.spec.method.alpha, plan.spec.method.sigma)
    runs, paid = [], []
    for _ in range(2):
        evaluator = PromptEvaluator(pool, plan, ACCURACY, scales, pool.run("together", [()])[0])
        search = make_search(plan.spec, plan.sizes, label_array(plan.train))
        selection = make_selection(plan.spec, search)
        runs.append(list(run_search(search, evaluator, Ledger(limits(plan.spec), plan.sizes), selection)))
        paid.append(endpoint.purse.spent().requests)
    (start,) = evaluator.evaluate(np.zeros((1, 1, 20)), "train").loss
    losses, again = ([event.best_loss for event in events if isinstance(event, Generation)] for events in runs)
    assert isinstance(runs[0][-1], Stopped)
    assert losses[-1] < start - 0.05
    assert losses == again
    assert paid[0] == paid[1] > 40 * len(plan.train)


def test_a_probe_of_a_continuous_job_finds_that_embeddings_are_taken(plan):
    api = {"base_url": URL, "model": served_name(), "api_key_env": KEY}
    backbone = plan.spec.backbone.model_copy(update={"api": ApiSpec(**api)})
    *found, used = probe_job(plan.spec.model_copy(update={"backbone": backbone}))
    assert "prompt_embeds: yes" in found
    assert used.startswith("used: label words of a text in embeddings")


def test_a_server_of_another_model_is_found_out(make_job, endpoint):
    job = make_job("llama", prompt={"kind": "offset", "layers": "input"})  # 32 wide, with tokens of its own
    with pytest.raises(EndpointError):
        WirePool(make_plan(job)[0], endpoint).run("describe", [()])
