"""Whole jobs whose continuous prompt travels to a server as embeddings: the run is that of the model itself."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from records import lines, recorded
from scripted_upstream import ScriptedUpstream
from served import EmbeddingsUpstream
from views import Witness, interrupt

from bbtune.api import dry_run, resume, run
from bbtune.errors import BbtuneError
from bbtune.predictor import Predictor
from bbtune.probing import probe_job

PROMPT = {"kind": "offset", "layers": "input"}
GENERATIONS = 10
EVALUATIONS = 37  # of a budget of 40: the starting point, and four in every generation behind it
SPLITS = 8  # texts in each
DESCRIBED = 6  # requests that compare texts with their embeddings
AT_A_TIME = 8  # requests in flight, by default
TEXTS = ["a warm film", "a bad noise and late"]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A folder of answers for each test."""
    monkeypatch.setenv("BBTUNE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def job_at(make_job, tiny_models):
    """Jobs on the llama of the tests: ``job_at(url)`` behind an API, ``job_at()`` here."""

    def make(url=None, **parts):
        backbone = {"model": f"path:{tiny_models['llama']}"}
        if url:
            backbone["api"] = {"base_url": url, "model": "tiny", "price": {"input": 1.0, "output": 2.0}}
        return make_job("llama", backbone=backbone, prompt=PROMPT, **parts)

    return make


@pytest.fixture
def upstream(tiny_models):
    with EmbeddingsUpstream(tiny_models["llama"]) as server:
        yield server


def trace(result):
    """Best losses and dev metrics, in order."""
    return [(point.best_loss, point.dev) for point in result.curve if point.best_loss is not None]


def test_a_run_over_the_wire_is_that_of_the_model_itself_and_predicts_the_same(job_at, upstream, tmp_path):
    here = run(job_at(), tmp_path / "here")
    there = run(job_at(upstream.url), tmp_path / "there")
    assert len(trace(here)) == GENERATIONS
    assert np.allclose(trace(there), trace(here), atol=1e-4)
    assert np.allclose(there.learned["z"], here.learned["z"])
    assert there.scores == here.scores
    assert there.cost.evaluations == here.cost.evaluations == EVALUATIONS
    assert there.paid.requests == upstream.requests >= EVALUATIONS * SPLITS + DESCRIBED
    assert there.paid.dollars == pytest.approx((there.paid.input_tokens + 2 * there.paid.output_tokens) / 1e6)
    with Predictor(here) as one, Predictor(there) as other:
        local, remote = one.predict(TEXTS), other.predict(TEXTS)
    assert [found.label for found in remote] == [found.label for found in local]
    assert [found.probability for found in remote] == pytest.approx([found.probability for found in local], abs=1e-4)


def test_a_run_that_was_cut_off_goes_on_and_asks_nothing_twice(job_at, upstream, tmp_path):
    spec = job_at(upstream.url)
    with pytest.raises(KeyboardInterrupt):
        run(spec, tmp_path / "cut", Witness(4, interrupt))
    before = upstream.requests
    cut = resume(tmp_path / "cut")
    assert 0 < before < upstream.requests == cut.paid.requests
    assert set(upstream.answered.values()) == {1}
    whole = run(spec, tmp_path / "whole")
    assert upstream.requests == cut.paid.requests
    assert whole.paid.requests == 0
    assert whole.paid.cached > 0
    assert trace(cut) == trace(whole)
    assert cut.scores == whole.scores


def test_a_run_that_was_killed_inside_a_generation_buys_no_answer_twice(job_at, tiny_models, tmp_path):
    answered = DESCRIBED + 3 * SPLITS  # of the first generation, so that more are left than are asked at a time
    with EmbeddingsUpstream(tiny_models["llama"], hold_after=answered) as upstream:
        job, folder = tmp_path / "job.yaml", tmp_path / "run"
        job.write_text(job_at(upstream.url).to_yaml())
        command = [sys.executable, "-m", "bbtune", "run", str(job), "--out", str(folder)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            for _ in range(AT_A_TIME):
                assert upstream.held.acquire(timeout=120)
        finally:
            process.kill()
            process.wait()
        upstream.answer_again()
        assert lines(folder) > 1
        result = resume(folder)
        assert set(upstream.answered.values()) == {1}
        assert result.paid.requests == upstream.requests + AT_A_TIME  # those in flight may have been paid
        assert result.cost.evaluations == EVALUATIONS


@pytest.mark.parametrize(
    "cap", [{"requests": DESCRIBED + 10 * SPLITS + 4 * SPLITS + 1}, {"tokens": 4000}, {"dollars": 0.004}]
)
def test_a_cap_ends_the_search_early_and_leaves_enough_for_the_test_split(cap, job_at, upstream, tmp_path):
    ((name, most),) = cap.items()
    result = run(job_at(upstream.url, budget=cap), tmp_path / "run")
    assert result.stop_reason == f"budget.{name}"
    assert 5 <= result.cost.evaluations < EVALUATIONS
    spent = {"tokens": result.paid.input_tokens + result.paid.output_tokens}.get(name) or getattr(result.paid, name)
    assert 0.5 * most < spent <= most
    assert result.paid.requests == upstream.requests
    assert [event.number for event in recorded(tmp_path / "run")] == list(range(result.cost.evaluations // 4 + 2))


def test_a_cap_that_leaves_nothing_to_the_search_hands_out_the_start_or_says_how_to_go_on(job_at, upstream, tmp_path):
    with pytest.raises(BbtuneError, match=r"bbtune resume .* --set budget.requests=MORE"):
        run(job_at(upstream.url, budget={"requests": 12}), tmp_path / "run")
    assert upstream.requests <= 12
    assert resume(tmp_path / "run", ["budget.requests=1000"]).stop_reason == "budget.requests"


def test_a_dry_run_sends_nothing_and_foresees_the_rows_that_are_sent(job_at, upstream, tmp_path):
    said = dry_run(job_at(upstream.url))
    assert upstream.requests == 0
    paid = run(job_at(upstream.url), tmp_path / "run").paid
    total = next(line for line in said.splitlines() if line.startswith("total")).split()
    requests, read, written = (int(number) for number in total[2:5])
    assert paid.requests <= requests <= 1.6 * paid.requests  # every generation might have dev judge a new prompt
    assert read / requests == pytest.approx(paid.input_tokens / paid.requests, rel=0.05)
    assert written == requests
    assert float(total[5]) == pytest.approx((read + 2 * written) / 1e6, abs=1e-4)
    rows = {line.split("  ")[0]: line for line in said.splitlines()}
    assert int(rows["test, tuned"].split()[2]) == SPLITS
    assert int(rows["test, zero-shot"].split()[2]) == 2 * SPLITS


def test_a_server_that_ignores_embeddings_is_told_before_a_run(job_at):
    with ScriptedUpstream("vllm") as upstream:
        *found, used = probe_job(job_at(upstream.url))
    assert any(line.startswith("prompt_embeds: no (the answer is not that to the text") for line in found)
    assert used == "used: nothing: a continuous prompt needs a server that takes prompt_embeds"
