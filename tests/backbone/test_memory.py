"""Memory does not grow in the life of a worker."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import sys
from pathlib import Path

import numpy as np
import psutil
import yaml

from bbtune.evaluation.worker import Worker
from bbtune.jobfile import parse_job
from bbtune.examine import make_plan

spec, faults, _ = parse_job(yaml.safe_load(Path(sys.argv[1]).read_text()))
assert not faults, faults
plan, task, _ = make_plan(spec)
worker, rng = Worker(plan), np.random.default_rng(0)
here = rng.standard_normal((3, 6))
for generation in range(1, 1201):
    layer = generation % 3
    z = np.repeat(here[None], 4, axis=0)
    z[:, layer] = rng.standard_normal((4, 6))
    worker.candidates(z, "train", layer)
    here = z[generation % 4]
    if generation % 10 == 0:
        worker.candidates(here[None], "dev", 0)
        worker.label_logits(here, task.test[:4])
    if generation in (200, 1200):
        print(psutil.Process().memory_info().rss)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "kind", "place"),
    [
        ("bert", "offset", "before"),
        ("encoder", "prefix", "before"),
        ("llama", "offset", "before"),
        ("llama", "prefix", "after"),
        ("gpt2", "offset", "after"),
        ("t5", "prefix", "before"),
    ],
)
def test_a_thousand_generations_take_no_more_memory_than_two_hundred(family, kind, place, make_job, tmp_path):
    job = tmp_path / "job.yaml"
    job.write_text(make_job(family, prompt={"kind": kind, "place": place}).to_yaml())
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(job)], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    early, late = (int(line) for line in done.stdout.split())
    assert late - early < 4 * 2**20
