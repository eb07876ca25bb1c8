"""The same logits on a CUDA device."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bbtune.evaluation.worker import Worker
from bbtune.plan import make_plan

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


@pytest.mark.parametrize("family", ["bert", "roberta", "gpt2", "llama", "encoder"])
@pytest.mark.parametrize("kind", ["offset", "prefix"])
def test_logits_on_cuda_equal_those_on_the_cpu(family, kind, make_job):
    task = {"label_words": ["a bad end", "a great film"]} if family == "encoder" else {}
    z = 0.3 * np.random.default_rng(0).standard_normal((3, 6))
    logits = []
    for device in ("cpu", "cuda"):
        plan, _, _ = make_plan(make_job(family, prompt={"kind": kind}, task=task, backbone={"device": device}))
        logits.append(Worker(plan).candidates(z[None], "train", 0)[0])
    assert np.abs(logits[0] - logits[1]).max() < 1e-3
