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


@pytest.mark.skipif("BBTUNE_DATA" not in os.environ, reason="BBTUNE_DATA names no folder of task folders")
def test_ag_news_on_minilm_lowers_the_loss_and_scores_as_expected_without_tuning(tmp_path):
    changes = ["tracking.enabled=false", "budget.evaluations=61"]
    result = api.run(load_job(JOBS / "agnews_minilm.yaml", changes), tmp_path / "run")
    assert 0.6 < result.scores["zero_shot"].test.value < 0.8
    assert result.scores["tuned"].dev.value >= result.scores["zero_shot"].dev.value - 0.05
    assert result.scores["majority"].test.value == 0.25
