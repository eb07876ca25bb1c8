"""The same logits on a CUDA device."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from trials import DEPTH, SETTINGS, examples, make_trial, numbers

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: "-".join(map(str, setting)))
def test_logits_on_cuda_equal_those_on_the_cpu(setting, make_job):
    logits = []
    for device in ("cpu", "cuda"):
        trial = make_trial(make_job, setting, backbone={"device": device})
        trial.use(examples((3, 1, 7, 3, 12)))
        logits.append([trial.candidates(0.3 * numbers(3, first, first), "train", first) for first in range(DEPTH)])
    assert np.abs(np.array(logits[0]) - np.array(logits[1])).max() < 1e-3


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: "-".join(map(str, setting)))
def test_paths_on_cuda_give_the_logits_of_the_plain_forward(setting, make_job):
    trial = make_trial(make_job, setting, backbone={"device": "cuda"})
    trial.use(examples((3, 1, 7, 3, 12)))
    for first in range(DEPTH):
        z = 0.3 * numbers(3, first, first)
        assert trial.off(z, "train", trial.candidates(z, "train", first)) < 1e-3


@pytest.mark.parametrize("family", ["bert", "llama", "gpt2", "t5"])
def test_as_many_candidates_share_a_call_as_a_population_has_where_memory_allows(family, make_job):
    trial = make_trial(make_job, (family, "offset", "before", False), backbone={"device": "cuda"})
    assert trial.together() == 5  # all that a trial lets share a call
