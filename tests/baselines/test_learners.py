"""What is trained by gradients: where it starts, what it changes, and what it leaves alone."""

from __future__ import annotations

import builtins
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import DynamicCache

from bbtune.backbone.products import TORCH
from bbtune.backbone.sources import read_model_card
from bbtune.baselines.heads import BiLstm, Mlp
from bbtune.baselines.learner import Learner
from bbtune.baselines.prompts import DeepPrompts, DePT, LowRankPrompt, PrefixTuning, PromptTuning
from bbtune.baselines.weights import IA3, Adapters, BitFit, FineTuning, LoRA
from bbtune.errors import BackboneError
from bbtune.evaluation.scorer import Scorer, label_head
from bbtune.plan import Plan, read_parts
from bbtune.spec import BaselineJob
from bbtune.task.task import label_array

WEIGHTS = {"bitfit": BitFit, "lora": LoRA, "ia3": IA3, "adapter": Adapters, "fine-tuning": FineTuning}
AT_INPUT = {"prompt-tuning": PromptTuning, "low-rank-prompt": LowRankPrompt, "dept": DePT}
PROMPTS = {**AT_INPUT, "deep-prompts": DeepPrompts, "prefix-tuning": PrefixTuning}
HEADS = {"mlp": Mlp, "bilstm": BiLstm}
LEARNERS: dict[str, Any] = {**PROMPTS, **WEIGHTS, **HEADS}

FAMILIES = ("bert", "roberta", "gpt2", "llama", "encoder")
OTHERS = [
    ("lora", "modernbert"),
    ("lora", "t5"),
    ("ia3", "distilbert"),
    ("adapter", "t5"),
    ("dept", "t5"),
    ("dept", "opt"),
    ("prefix-tuning", "t5"),
    ("prefix-tuning", "bart"),
    ("prefix-tuning", "gemma2"),
    ("prefix-tuning", "modernbert"),
    ("fine-tuning", "t5"),
    ("fine-tuning", "bart"),
    ("mlp", "t5"),
]
CASES = [(name, family) for name in LEARNERS for family in FAMILIES if (name, family) != ("bitfit", "llama")] + OTHERS
QUICK = ("bert", "gpt2", "encoder")  # the others take as long again


def marked(cases: list[tuple[str, str]]) -> list[Any]:
    """Cases as parameters, those of further families slow."""
    return [case if case[1] in QUICK else pytest.param(*case, marks=pytest.mark.slow) for case in cases]


STEPS = 20

MakePlan = Callable[..., Plan]


@dataclass
class Trained:
    """A learner after some steps of AdamW, and what it was before."""

    plan: Plan
    learner: Learner
    losses: list[float]
    start: dict[str, Tensor]
    before: dict[str, Tensor]


@pytest.fixture(scope="module")
def make_plan(tiny_models: dict[str, Path], tiny_task: Path) -> MakePlan:
    def make(name: str, family: str, **parts: Any) -> Plan:
        raw: dict[str, Any] = {
            "task": {"source": f"folder:{tiny_task}"},
            "backbone": {"model": f"path:{tiny_models[family]}", **parts.pop("backbone", {})},
            "prompt": {"text": "is this good or bad ?"},
            "method": {"name": name},
            "seed": 3,
            **parts,
        }
        if family.endswith("encoder"):
            raw["task"]["label_words"] = ["a bad end", "a great film"]
        spec = BaselineJob.model_validate(raw)
        read, faults = read_parts(spec, set())
        plan = read.plan(spec)
        assert plan is not None, faults
        return plan

    return make


@pytest.fixture(scope="module")
def trained(make_plan: MakePlan) -> Callable[[str, str], Trained]:
    @cache
    def train(name: str, family: str) -> Trained:
        plan = make_plan(name, family)
        learner = LEARNERS[name](plan)
        start = {key: weight.detach().clone() for key, weight in learner.trainable().items()}
        frozen = learner._frozen.model if learner.cached else learner.body
        before = {key: weight.detach().clone() for key, weight in frozen.named_parameters() if not weight.requires_grad}
        items, labels = learner.prepare(plan.train), torch.from_numpy(label_array(plan.train))
        optimizer = torch.optim.AdamW(learner.trainable().values(), lr=plan.spec.method.learning_rate, weight_decay=0)
        losses = []
        for _ in range(STEPS):
            optimizer.zero_grad()
            loss = cross_entropy(learner(items), labels)
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
        return Trained(plan, learner, losses, start, before)

    return train


@pytest.mark.parametrize(("name", "family"), marked(CASES))
def test_the_loss_on_train_falls(trained: Callable[[str, str], Trained], name: str, family: str) -> None:
    losses = trained(name, family).losses
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(("name", "family"), marked(CASES))
def test_gradients_reach_every_trained_weight(trained: Callable[[str, str], Trained], name: str, family: str) -> None:
    weights = trained(name, family).learner.trainable()
    assert weights
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in weights.values())
    assert all(weight.dtype == torch.float32 for weight in weights.values())
    moved = [key for key, weight in weights.items() if not torch.equal(weight, trained(name, family).start[key])]
    assert len(moved) > len(weights) / 2


@pytest.mark.parametrize(("name", "family"), marked(CASES))
def test_frozen_weights_stay_as_they_are(trained: Callable[[str, str], Trained], name: str, family: str) -> None:
    one = trained(name, family)
    frozen = one.learner._frozen.model if one.learner.cached else one.learner.body
    after = dict(frozen.named_parameters())
    assert one.before or name == "fine-tuning"
    assert all(torch.equal(after[key], value) for key, value in one.before.items())


@pytest.mark.parametrize(("name", "family"), marked(CASES))
def test_the_other_texts_of_a_batch_do_not_matter(
    trained: Callable[[str, str], Trained], name: str, family: str
) -> None:
    one = trained(name, family)
    items = one.learner.prepare(one.plan.dev)
    with torch.no_grad():
        together = one.learner(items)
        alone = torch.cat([one.learner([item]) for item in items])
    assert len({one.learner.length(item) for item in items}) > 1 or name == "mlp"
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("name", "family"), marked(CASES))
def test_a_fresh_learner_starts_alike_and_takes_what_was_learned(
    trained: Callable[[str, str], Trained], name: str, family: str
) -> None:
    one = trained(name, family)
    torch.manual_seed(len(name))  # of another process's own making: nothing may depend on it
    state = torch.get_rng_state()
    fresh = LEARNERS[name](one.plan)
    assert torch.equal(torch.get_rng_state(), state)
    assert fresh.trainable().keys() == one.start.keys()
    assert all(torch.equal(weight, one.start[key]) for key, weight in fresh.trainable().items())
    fresh.load({key: weight.detach() for key, weight in one.learner.trainable().items()})
    with torch.no_grad():
        expected = one.learner(one.learner.prepare(one.plan.dev))
        assert torch.equal(fresh(fresh.prepare(one.plan.dev)), expected)


@pytest.mark.parametrize("name", ["lora", "adapter", "low-rank-prompt", "dept", "mlp", "bilstm"])
def test_another_seed_starts_elsewhere(make_plan: MakePlan, name: str) -> None:
    one, other = (LEARNERS[name](make_plan(name, "bert", seed=seed)).trainable() for seed in (3, 4))
    assert any(not torch.equal(weight, other[key]) for key, weight in one.items())


@pytest.mark.parametrize(("name", "family"), marked([case for case in CASES if case[0] in WEIGHTS]))
def test_weights_start_at_zero_shot(make_plan: MakePlan, name: str, family: str) -> None:
    plan = make_plan(name, family)
    learner = LEARNERS[name](plan)
    found = learner(learner.prepare(plan.dev)).detach().numpy()
    np.testing.assert_allclose(found, untouched(plan), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", ["bert", "roberta", "gpt2", "llama"])
@pytest.mark.parametrize("name", AT_INPUT)
def test_a_prompt_at_the_input_starts_at_the_prompt_in_words(make_plan: MakePlan, name: str, family: str) -> None:
    plan = make_plan(name, family)
    learner = LEARNERS[name](plan)
    found = learner(learner.prepare(plan.dev)).detach().numpy()
    np.testing.assert_allclose(found, untouched(plan, with_prompt=True), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen3"])
def test_a_prefix_is_a_cache_of_keys_and_values(make_plan: MakePlan, family: str) -> None:
    plan = make_plan("prefix-tuning", family)
    learner = PrefixTuning(plan)
    learner.load({"prefix.embedding.weight": 2 * torch.randn_like(learner.trainable()["prefix.embedding.weight"])})
    rows = learner.prepare(plan.dev)
    with torch.no_grad():
        found = learner(rows)
        for row, logits in zip(rows, found, strict=True):
            torch.testing.assert_close(logits, from_cache(learner, row.ids), rtol=1e-4, atol=1e-4)


def from_cache(learner: PrefixTuning, ids: list[int]) -> Tensor:
    """Label logits (C,) of the stock model whose cache holds the prefix."""
    cached = DynamicCache()
    for layer, (keys, values) in enumerate(learner.keys_values()):
        cached.update(keys[None], values[None], layer)
    tokens = cached.get_seq_length()
    out = learner.frozen.body(
        input_ids=torch.tensor([ids]),
        attention_mask=torch.ones(1, tokens + len(ids), dtype=torch.long),
        position_ids=torch.arange(len(ids))[None],
        past_key_values=cached,
    )
    return learner.head(out.last_hidden_state[:, -1])[0]


def test_a_prefix_starts_at_the_keys_and_values_of_the_prompt_text(make_plan: MakePlan) -> None:
    learner = PrefixTuning(make_plan("prefix-tuning", "bert"))
    encoder = learner.encoder
    alone = encoder.batch([encoder.prompt_alone()])
    entering = learner.frozen.entering(alone)
    for layer, (keys, values) in enumerate(learner.keys_values()):
        attention = learner.frozen.layers[layer].attention.self
        for got, project in ((keys, attention.key), (values, attention.value)):
            expected = project(entering[layer][0, 1 : 1 + got.shape[1]])
            torch.testing.assert_close(got.transpose(0, 1).flatten(1), expected)


def test_a_prompt_without_words_has_ten_positions(make_plan: MakePlan) -> None:
    shapes = {name: PROMPTS[name](make_plan(name, "bert", prompt={})).trainable() for name in PROMPTS}
    assert shapes["prompt-tuning"]["prompt"].shape == (10, 32)
    assert [tuple(weight.shape) for weight in shapes["deep-prompts"].values()] == [(10, 32)] * 3
    assert shapes["low-rank-prompt"]["change.left"].shape == (10, 8)
    assert shapes["dept"]["change.left"].shape == (96, 8)
    assert shapes["prefix-tuning"]["prefix.embedding.weight"].shape == (10, 3 * 2 * 32)


def test_a_prefix_learner_leaves_other_models_alone(make_plan: MakePlan) -> None:
    plan = make_plan("mlp", "bert")
    before = Mlp(plan).prepare(plan.dev)
    prefix = PrefixTuning(make_plan("prefix-tuning", "bert"))
    prefix(prefix.prepare(plan.dev))
    assert all(torch.equal(one, other) for one, other in zip(before, Mlp(plan).prepare(plan.dev), strict=True))


def test_fine_tuning_leaves_the_pooler_and_the_head_alone(make_plan: MakePlan) -> None:
    names = FineTuning(make_plan("fine-tuning", "encoder")).trainable()
    assert not any("pooler" in name for name in names)
    assert {name for name in names if "embeddings" in name}
    names = FineTuning(make_plan("fine-tuning", "bert")).trainable()
    assert not any("cls." in name for name in names)


def test_features_are_those_that_zero_shot_reads(make_plan: MakePlan) -> None:
    plan = make_plan("mlp", "encoder")
    learner = Mlp(plan)
    features = torch.stack(learner.prepare(plan.dev))
    torch.testing.assert_close(features.norm(dim=-1), torch.ones(len(features)))
    assert set(learner.trainable()) == {"net.1.weight", "net.1.bias", "net.3.weight", "net.3.bias"}
    found = label_head(plan, learner._frozen)(features)
    np.testing.assert_allclose(found, untouched(plan), rtol=1e-4, atol=1e-4)


def test_weights_beside_a_model_in_bfloat16_are_float32(make_plan: MakePlan) -> None:
    for name in ("lora", "ia3", "adapter", "prompt-tuning", "low-rank-prompt", "dept", "prefix-tuning"):
        learner = LEARNERS[name](plan := make_plan(name, "llama", backbone={"dtype": "bfloat16"}))
        cross_entropy(learner(learner.prepare(plan.train)), torch.from_numpy(label_array(plan.train))).backward()
        assert all(weight.dtype == weight.grad.dtype == torch.float32 for weight in learner.trainable().values()), name


@pytest.mark.parametrize(("name", "family"), [("bitfit", "llama"), ("ia3", "modernbert")])
def test_a_model_that_does_not_fit_a_method_is_refused_in_words(make_plan: MakePlan, name: str, family: str) -> None:
    with pytest.raises(BackboneError, match=rf"{name} expected a model whose .*, got {family}; use lora"):
        LEARNERS[name](make_plan(name, family))


def test_attention_that_cannot_be_rerouted_is_refused_in_words(
    make_plan: MakePlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transformers.PreTrainedModel.set_attn_implementation", lambda *_: None)
    with pytest.raises(BackboneError, match=r"prefix-tuning expected a model .* use deep-prompts"):
        PrefixTuning(make_plan("prefix-tuning", "bert"))


def test_a_missing_library_is_named(make_plan: MakePlan, monkeypatch: pytest.MonkeyPatch) -> None:
    read = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "peft":
            raise ImportError(name)
        return read(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(BackboneError, match=r"pip install bbtune\[baselines\]"):
        LoRA(make_plan("lora", "bert"))


def untouched(plan: Plan, with_prompt: bool = False) -> np.ndarray:
    """Label logits (N, C) of dev, from the model as it is."""
    plan = Plan(**{**vars(plan), "product": TORCH})
    encoder = plan.encoder(read_model_card(plan.spec.backbone), with_prompt)
    return Scorer(plan, with_prompt).untouched(plan.dev, encoder)
