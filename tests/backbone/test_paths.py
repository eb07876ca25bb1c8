"""Every path through a model gives the logits of the plain forward, whatever was asked of it before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import spearmanr
from stock import Line, stock_of
from tiny_models import MAKERS, save_model
from trials import (
    BY_CHOICE,
    DEPTH,
    DIM,
    EVERY_WAY,
    MIXED,
    SETTINGS,
    WITHIN,
    Setting,
    Trial,
    examples,
    make_trial,
    named,
    numbers,
)

from bbtune.backbone.products import TORCH, UPCAST
from bbtune.examine import make_plan
from bbtune.objective import Objective
from bbtune.task.task import label_array
from bbtune.task.verbalizer import label_token_ids


@pytest.fixture(scope="module")
def trial_of(make_job):
    """Trials by setting; each test gives them the texts it wants."""
    return cache(lambda setting: make_trial(make_job, setting))


@pytest.mark.parametrize("setting", SETTINGS, ids=named)
def test_every_path_gives_the_logits_of_the_plain_forward(setting, trial_of):
    trial = trial_of(setting)
    trial.use(examples(MIXED))
    for first in (0, 1):
        z = numbers(2, first, first)
        got = trial.candidates(z, "train", first)
        assert trial.off(z, "train", got) < WITHIN
    assert np.abs(trial.label_logits(z[1], trial.texts("train")) - got[1]).max() < WITHIN


@dataclass(frozen=True)
class Call:
    """One call of a worker.

    Attributes:
        first: of the tuned layers, modulo their number: the lowest in which the candidates differ.
        upwards: whether the candidates differ in all layers from ``first`` on, or in that one alone.
        moves: whether the search goes on from the first of the candidates.
        jumps: whether another starting point is taken before the call, as for a judgement on dev.
    """

    split: str
    first: int
    population: int
    upwards: bool
    moves: bool
    jumps: bool


_LENGTHS = st.integers(1, 40)
_TEXTS = st.one_of(
    st.lists(_LENGTHS, min_size=1, max_size=6),
    st.builds(lambda length, count: [length] * count, _LENGTHS, st.integers(1, 6)),
    st.lists(st.sampled_from([2, 3, 9]), min_size=40, max_size=40),
)
_LAYERS = st.sets(st.integers(0, DEPTH - 1), min_size=1).map(sorted)
_CALLS = st.builds(
    Call,
    split=st.sampled_from(["train", "train", "dev"]),
    first=st.integers(0, DEPTH - 1),
    population=st.integers(1, 5),
    upwards=st.booleans(),
    moves=st.booleans(),
    jumps=st.sampled_from([False, False, True]),
)
_SEQUENCE = {
    "layers": _LAYERS,
    "train": _TEXTS,
    "dev": _TEXTS,
    "calls": st.lists(_CALLS, min_size=1, max_size=5),
    "scale": st.sampled_from([0.3, 1.0, 2.0]),
    "seed": st.integers(0, 2**16),
}


def play(
    trial: Trial, layers: Sequence[int], calls: Sequence[Call], scale: float, seed: int
) -> list[tuple[NDArray[np.float64], str, int, NDArray[np.float32]]]:
    """What was asked, z (P, L, D) on a split from a layer on, and what was answered."""
    rng, width = np.random.default_rng(seed), len(layers)
    here = rng.standard_normal((width, DIM))
    answered = []
    for call in calls:
        first = call.first % width
        if call.jumps:
            here = rng.standard_normal((width, DIM))
        z = np.repeat(here[None], call.population, axis=0)
        stop = width if call.upwards else first + 1
        z[:, first:stop] += rng.standard_normal((call.population, stop - first, DIM))
        answered.append((scale * z, call.split, first, trial.candidates(scale * z, call.split, first)))
        if call.moves:
            here = z[0]
    return answered


def check_sequence(trial: Trial, train: Any, dev: Any, layers: Any, calls: Any, scale: float, seed: int) -> None:
    trial.use(examples(train, seed), examples(dev, seed + 1), layers)
    for z, split, _, got in play(trial, layers, calls, scale, seed):
        assert trial.off(z, split, got) < WITHIN


@pytest.mark.parametrize("family", list(MAKERS))
def test_the_sequence_of_calls_changes_no_logits(family, trial_of):
    choices = [setting for setting in SETTINGS if setting[0] == family]

    @settings(max_examples=4, deadline=None, derandomize=True)
    @given(setting=st.sampled_from(choices), **_SEQUENCE)
    def check(setting: Setting, **sequence: Any) -> None:
        check_sequence(trial_of(setting), **sequence)

    check()


@pytest.mark.slow
@pytest.mark.parametrize("setting", SETTINGS, ids=named)
def test_no_long_sequence_of_calls_changes_logits(setting, trial_of):
    @settings(max_examples=8, deadline=None)
    @given(**_SEQUENCE)
    def check(**sequence: Any) -> None:
        check_sequence(trial_of(setting), **sequence)

    check()


@pytest.mark.parametrize("setting", BY_CHOICE, ids=named)
def test_layers_visited_in_turn_leave_no_trace_in_the_bits(setting, trial_of):
    """Actors are asked for different things in different orders, and those of a resumed run for nothing before."""
    trial = trial_of(setting)
    trial.use(examples(MIXED[:4]))
    calls = [Call("train", layer, 2, False, True, False) for layer in (0, 1, 2, 1, 2)]
    for z, split, first, answer in play(trial, range(DEPTH), calls, 1.0, 0)[2:]:
        trial.restart()
        assert np.array_equal(trial.candidates(z, split, first), answer), f"layer {first}"


@pytest.mark.slow
@pytest.mark.parametrize("setting", SETTINGS, ids=named)
def test_what_was_asked_before_changes_no_bit(setting, trial_of):
    trial = trial_of(setting)

    @settings(max_examples=5, deadline=None)
    @given(**_SEQUENCE)
    def check(layers: Any, train: Any, dev: Any, calls: Any, scale: float, seed: int) -> None:
        trial.use(examples(train[:6], seed), examples(dev[:2], seed + 1), layers)
        for z, split, first, answer in play(trial, layers, calls, scale, seed):
            trial.restart()
            assert np.array_equal(trial.candidates(z, split, first), answer)

    check()


@pytest.mark.parametrize("setting", BY_CHOICE, ids=named)
def test_candidates_of_one_call_are_scored_as_one_by_one(setting, trial_of):
    trial = trial_of(setting)
    trial.use(examples(MIXED))
    z = numbers(5, 1, 5)
    together = trial.candidates(z, "train", 1)
    alone = np.concatenate([trial.candidates(one[None], "train", 1) for one in z])
    assert np.abs(together - alone).max() < 1e-5


@pytest.mark.parametrize("setting", EVERY_WAY, ids=named)
def test_forty_texts_and_single_ones_are_scored_in_their_own_order(setting, trial_of):
    trial = trial_of(setting)
    lengths = np.random.default_rng(5).integers(1, 40, 40).tolist()
    trial.use(examples(lengths), examples([4]))
    z = numbers(3, 1, 6)
    assert trial.off(z, "train", trial.candidates(z, "train", 1), most=20) < WITHIN
    assert trial.off(z, "dev", trial.candidates(z, "dev", 1)) < WITHIN


@pytest.mark.parametrize("setting", EVERY_WAY, ids=named)
@pytest.mark.parametrize("prompt", [{"tokens": 1}, {"tokens": 30}, {"text": "is it good ?", "tokens": 9}], ids=str)
def test_prompts_of_any_length_are_followed(setting, prompt, make_job):
    trial = make_trial(make_job, setting, prompt=prompt)
    trial.use(examples(MIXED))
    z = numbers(2, 0, 15)
    assert trial.off(z, "train", trial.candidates(z, "train", 0)) < WITHIN


@pytest.mark.parametrize("family", ["llama", "mistral", "gpt2"])
def test_a_prompt_behind_the_text_may_be_the_last_that_is_read(family, make_job):
    trial = make_trial(make_job, (family, "offset", "after", False), task={"template": "{text} {mask}"})
    trial.use(examples(MIXED))
    row = trial.encoder.row(trial.texts("train")[0])
    assert row.read == row.prompt + trial.encoder.prompt_length - 1
    for first in range(DEPTH):
        z = numbers(2, first, 16)
        assert trial.off(z, "train", trial.candidates(z, "train", first)) < WITHIN


# -- padding on the other side

WITHOUT_POSITIONS = {"t5", "flan-t5", "t5-encoder", "bart"}  # T5's are relative, and shift; BART's cannot be given


@pytest.mark.parametrize("family", list(MAKERS))
def test_it_is_known_which_families_cannot_be_told_positions(family, tiny_models):
    assert stock_of(family, tiny_models[family]).takes_positions == (family not in WITHOUT_POSITIONS)


@pytest.mark.parametrize("setting", [s for s in BY_CHOICE if s[0] != "bart"], ids=named)
def test_the_stock_model_padded_on_the_left_gives_the_same_logits(setting, trial_of, tiny_models):
    family, kind, _, _ = setting
    trial = trial_of(setting)
    trial.use(examples(MIXED))
    z = numbers(1, 0, 7)
    ours = trial.candidates(z, "train", 0)[0]
    rows = [trial.encoder.row(example) for example in trial.texts("train")]
    assert len({len(row.ids) for row in rows}) > 2
    lines = [Line(row.ids, row.prompt, row.read, row.decoder_ids) for row in rows]
    prompts = trial.space.prompts(z[0]).layers
    outputs = stock_of(family, tiny_models[family]).outputs(lines, prompts, kind == "prefix", left=True)
    if family.endswith("encoder"):
        theirs = trial.head(outputs)
    else:
        ids, _ = label_token_ids(trial.plan.label_words, trial.model.card.tokenizer, True)
        theirs = torch.stack([outputs[:, of_label].logsumexp(dim=-1) for of_label in ids], dim=-1)
    assert np.abs(ours - theirs.numpy()).max() < WITHIN


# -- bfloat16


@pytest.mark.parametrize(
    ("family", "kind", "product"),
    [
        ("bert", "offset", TORCH),
        ("bert", "prefix", UPCAST),
        ("llama", "offset", UPCAST),
        ("llama", "prefix", TORCH),
        ("gpt2", "offset", TORCH),
    ],
)
def test_bfloat16_ranks_candidates_as_float32_does(family, kind, product, make_job, tmp_path):
    # At an initializer_range of 0.3 the attention of a random model is so sharp that rounding moves whole ranks.
    width = {"n_embd": 128} if family == "gpt2" else {"hidden_size": 128, "intermediate_size": 256}
    folder = save_model(family, tmp_path / "model", **width, initializer_range=0.15)
    z, found = numbers(40, 0, 13), []
    for dtype in ("float32", "bfloat16"):
        job = make_job(family, prompt={"kind": kind}, backbone={"model": f"path:{folder}", "dtype": dtype})
        plan, _, _ = make_plan(job)
        trial = Trial(replace(plan, product=product if dtype == "bfloat16" else TORCH))
        assert trial.model.embeddings.dtype == getattr(torch, dtype)
        trial.use(examples([2 + i % 9 for i in range(16)]))
        logits = trial.candidates(z, "train", 0)
        found.append(Objective(label_array(trial.texts("train")), "cross-entropy")(logits))
    assert np.ptp(found[0]) > 0.3  # candidates differ by much more than bfloat16 rounds
    assert spearmanr(*found).statistic > 0.99
