"""The jobs that ship, on real models and real data."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bbtune import api
from bbtune.jobfile import load_job

JOBS = Path(__file__).parents[1] / "jobs"

pytestmark = pytest.mark.slow


def test_the_quickstart_beats_zero_shot_beyond_chance(tmp_path):
    job = load_job(JOBS / "quickstart.yaml", ["tracking.enabled=false", "evaluators.count=2", "evaluators.cpus=1"])
    result = api.run(job, tmp_path / "run")
    assert result.gain.low > 0
    assert "tuned is better than zero-shot" in result.summary()
    assert (
        result.scores["tuned"].test.value > result.scores["zero_shot"].test.value > result.scores["majority"].test.value
    )


def test_the_api_quickstart_asks_a_real_server_and_says_what_it_paid(tmp_path, smollm, monkeypatch):
    pytest.importorskip("xllamacpp", reason="pip install 'bbtune[api-demo]'")
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "models").symlink_to(smollm.parent)  # the model is there, answers are not
    monkeypatch.setenv("BBTUNE_CACHE", str(tmp_path / "cache"))
    changes = ["tracking.enabled=false", "budget.examples=500", "method.minibatch=16", "task.holdout=0.1"]
    result = api.run(load_job(JOBS / "api_quickstart.yaml", changes), tmp_path / "run")
    assert result.scores["zero_shot"].test.value > result.scores["majority"].test.value
    assert result.scores["tuned"].dev.value >= result.scores["zero_shot"].dev.value
    assert result.paid.requests > 500
    assert result.paid.dollars == pytest.approx(
        (result.paid.input_tokens * 0.15 + result.paid.output_tokens * 0.6) / 1e6
    )
    assert "at the prices of the job" in result.summary()


@pytest.mark.skipif("BBTUNE_DATA" not in os.environ, reason="BBTUNE_DATA names no folder of task folders")
def test_ag_news_on_minilm_lowers_the_loss_and_scores_as_expected_without_tuning(tmp_path):
    changes = ["tracking.enabled=false", "budget.evaluations=61"]
    result = api.run(load_job(JOBS / "agnews_minilm.yaml", changes), tmp_path / "run")
    assert 0.6 < result.scores["zero_shot"].test.value < 0.8
    assert result.scores["tuned"].dev.value >= result.scores["zero_shot"].dev.value - 0.05
    assert result.scores["majority"].test.value == 0.25
