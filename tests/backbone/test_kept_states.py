"""Layers below the tuned one run once, and what is kept of them is used only where it holds."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from trials import (
    AS_OFFSETS,
    DEPTH,
    MIXED,
    REPLAYED,
    WITHIN,
    Trial,
    examples,
    make_trial,
    named,
    numbers,
)

from bbtune.backbone.replay import ReplayStack
from bbtune.backbone.stack import Texts


@pytest.fixture(scope="module")
def trial_of(make_job):
    """Trials by setting; each test gives them the texts it wants."""
    return cache(lambda setting: make_trial(make_job, setting))


@pytest.mark.parametrize("setting", REPLAYED, ids=named)
def test_a_replay_from_any_layer_is_the_full_run_bit_for_bit(setting, trial_of):
    trial = trial_of(setting)
    trial.use(examples(MIXED))
    rows = sorted((trial.encoder.row(example) for example in trial.texts("train")), key=lambda row: len(row.ids))
    prompts = trial.space.prompts(numbers(1, 0, 8)[0])

    def texts() -> Texts:
        return trial.path.prepare(rows, trial.encoder.prompt_length, trial.space.sets)

    expected = trial.path.read(texts(), [prompts], 0)
    for layer in range(1, DEPTH):
        restarted = texts()
        assert torch.equal(trial.path.read(restarted, [prompts], layer), expected)
        assert torch.equal(trial.path.read(restarted, [prompts], layer), expected)


class Counted:
    """Which layers run, as the stock modules see it, or a path of our own."""

    def __init__(self, trial: Trial) -> None:
        self._path, self._ran = trial.path, list[int]()
        self._handles: list[Any] = []
        if isinstance(trial.path, ReplayStack):
            self._handles = [
                layer.register_forward_pre_hook(lambda module, args, number=number: self._ran.append(number))
                for number, layer in enumerate(trial.model.layers)
            ]
        else:
            original = trial.path.run
            trial.path.run = lambda texts, layer, *rest: (self._ran.append(layer), original(texts, layer, *rest))[1]

    def __enter__(self) -> list[int]:
        return self._ran

    def __exit__(self, *_: object) -> None:
        vars(self._path).pop("run", None)
        for handle in self._handles:
            handle.remove()


@pytest.mark.parametrize("setting", AS_OFFSETS, ids=named)
def test_a_second_call_runs_no_layer_below_the_tuned_one(setting, trial_of):
    trial = trial_of(setting)
    for first in range(DEPTH):
        trial.use(examples(MIXED[:4]), examples((2, 4)))
        z = numbers(3, first, 9)
        trial.candidates(z, "train", first)
        trial.candidates(z, "dev", first)
        z[:, first] = numbers(3, 0, 10)[:, 0]
        with Counted(trial) as ran:
            found = {split: trial.candidates(z, split, first) for split in ("train", "dev")}  # each keeps its own
        assert ran == 2 * list(range(first, DEPTH))
        for split, got in found.items():
            assert trial.off(z, split, got) < WITHIN


@pytest.mark.parametrize("setting", AS_OFFSETS, ids=named)
def test_kept_states_are_not_used_under_another_lower_prompt(setting, trial_of):
    trial = trial_of(setting)
    trial.use(examples(MIXED[:4]))
    z = numbers(2, 2, 12)
    before = trial.candidates(z, "train", 2)
    z[:, 0] += 0.5
    with Counted(trial) as ran:
        changed = trial.candidates(z, "train", 2)
    assert ran == list(range(DEPTH))
    assert trial.off(z, "train", changed) < WITHIN
    assert np.abs(changed - before).max() > 1e-2
    z[:, 0] -= 0.5
    assert np.abs(trial.candidates(z, "train", 2) - before).max() < WITHIN


@pytest.mark.parametrize("setting", AS_OFFSETS, ids=named)
def test_no_more_than_two_states_are_kept(setting, trial_of):
    trial = trial_of(setting)
    trial.use(examples((3, 1)))
    for first in (0, 1, 2, 0, 2, 1):
        trial.candidates(numbers(2, first, first), "train", first)
        assert len(trial.kept("train")) <= 2
