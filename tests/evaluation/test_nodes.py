"""A cluster of three machines: one is killed or freezes in the middle of a search, another comes; the trace stays."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bbtune import api
from bbtune.journal import read_journal

pytestmark = [pytest.mark.ray, pytest.mark.slow]

PROGRAM = Path(__file__).parents[2] / "benchmarks" / "cluster_nodes.py"


def trace(folder: Path) -> list[dict[str, Any]]:
    kept = ("split", "z_sha256", "loss", "metric", "examples", "layer_forwards")
    return [{key: r[key] for key in kept} for r in read_journal(folder / "journal.jsonl") if r["event"] == "scores"]


def said_by(job: Path, out: Path, how: str) -> str:
    """What a search on three nodes says, one of which is killed or frozen at its twentieth generation."""
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    done = subprocess.run(
        [sys.executable, str(PROGRAM), str(job), str(out), how, "20"],
        env=environment | {"RAY_worker_niceness": "0", "RAY_TMPDIR": "/tmp"},
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stderr


@pytest.fixture(scope="module")
def job(make_job, tmp_path_factory) -> Path:
    """A search of sixty generations."""
    path = tmp_path_factory.mktemp("job") / "job.yaml"
    path.write_text(make_job("bert", budget={"evaluations": 241}, evaluators={"count": 2}).to_yaml())
    return path


@pytest.fixture(scope="module")
def undisturbed(job, tmp_path_factory) -> list[dict[str, Any]]:
    """The trace of the search in this process."""
    from bbtune.jobfile import load_job

    folder = tmp_path_factory.mktemp("alone") / "run"
    api.run(load_job(job, ["evaluators.count=0"]), folder)
    return trace(folder)


@pytest.mark.parametrize("how", ["kill", "freeze"])
def test_a_node_that_is_lost_and_one_that_comes_change_nothing_but_seconds(how, job, undisturbed, tmp_path):
    said = said_by(job, tmp_path / "run", how)
    assert trace(tmp_path / "run") == undisturbed
    if how == "kill":
        assert "an evaluator was lost" in said
