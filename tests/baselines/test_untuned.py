"""Methods without training: what they ask the model, and what they make of its answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import log_softmax, softmax
from small_task import ACCURACY, DEV, TEMPLATE, TRAIN, fitted, plan_of

from bbtune.backbone.sources import ModelCard, read_model_card
from bbtune.baselines.account import Past
from bbtune.baselines.in_context import InContext, balanced_draw, demonstration
from bbtune.baselines.untuned import Calibration, Majority, TemplateEnsemble, ZeroShot
from bbtune.errors import JobError
from bbtune.evaluation.scorer import Scorer
from bbtune.loop import Cost
from bbtune.plan import Plan
from bbtune.seeds import generator
from bbtune.task.task import Example, label_array
from bbtune.task.template import Template


def decoded(card: ModelCard, encoder: Any, examples: Sequence[Example]) -> list[str]:
    return [" ".join(card.tokenizer.decode(encoder.row(example).ids).split()) for example in examples]


def test_majority_is_the_most_frequent_label_of_train(tiny_models: dict[str, Path]) -> None:
    method = Majority(plan_of(tiny_models["bert"], {"name": "majority"}, train=TRAIN[1:]), ACCURACY)
    (step,), end = fitted(method)
    assert method.label_logits(DEV[:3]).tolist() == [[1.0, 0.0]] * 3
    assert (step.dev_metric, end.cost.examples, end.parameters, end.reason) == (0.5, 0, 0, "done")
    again = Majority(plan_of(tiny_models["bert"], {"name": "majority"}), ACCURACY)
    again.restore(end.learned)
    assert again.label_logits(DEV[:1]).tolist() == [[1.0, 0.0]]
    assert method.peak_memory_mib() > 0


def test_majority_of_a_balanced_train_split_goes_by_dev(tiny_models: dict[str, Path]) -> None:
    plan = plan_of(tiny_models["bert"], {"name": "majority"})
    for dev, expected in ((DEV[:1], 1), (DEV[1:2], 0), (DEV, 0)):
        method = Majority(Plan(**{**vars(plan), "dev": dev}), ACCURACY)
        fitted(method)
        assert method.label_logits(DEV[:1]).argmax() == expected


@pytest.mark.parametrize("family", ["bert", "gpt2", "t5", "encoder"])
def test_zero_shot_is_the_untouched_model_however_many_texts_there_are(
    tiny_models: dict[str, Path], family: str
) -> None:
    template = "{text}" if family == "encoder" else TEMPLATE
    plan = plan_of(tiny_models[family], {"name": "zero-shot"}, template)
    method = ZeroShot(plan, ACCURACY)
    (step,), end = fitted(method)
    expected = Scorer(plan, with_prompt=False).untouched(DEV)
    np.testing.assert_allclose(method.label_logits(DEV * 10), np.tile(expected, (10, 1)), atol=1e-5)
    assert step.dev_metric == (expected.argmax(axis=1) == label_array(DEV)).mean()
    assert (end.cost.examples, end.cost.evaluations, end.parameters, dict(end.learned)) == (len(DEV), 0, 0, {})
    assert end.cost.layer_forwards == len(DEV) * read_model_card(plan.spec.backbone).layer_count


def test_an_ensemble_of_one_template_twice_has_the_probabilities_of_zero_shot(tiny_models: dict[str, Path]) -> None:
    plan = plan_of(tiny_models["roberta"], {"name": "template-ensemble", "templates": [TEMPLATE, TEMPLATE]})
    method = TemplateEnsemble(plan, ACCURACY)
    _, end = fitted(method)
    expected = log_softmax(method.untouched(DEV), axis=-1)
    np.testing.assert_allclose(method.label_logits(DEV), expected, atol=1e-5)
    assert end.cost.examples == 2 * len(DEV)


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_an_ensemble_is_the_mean_over_its_templates_and_not_over_the_jobs(
    tiny_models: dict[str, Path], family: str
) -> None:
    others = ["{text} it was {mask}", "the film was {text} : it was {mask} ."]
    plan = plan_of(tiny_models[family], {"name": "template-ensemble", "templates": others})
    each = [
        softmax(Scorer(plan_of(tiny_models[family], {"name": "zero-shot"}, text), False).untouched(DEV), axis=-1)
        for text in others
    ]
    got = TemplateEnsemble(plan, ACCURACY).label_logits(DEV)
    np.testing.assert_allclose(got, np.log(np.mean(each, axis=0)), atol=1e-5)


def test_templates_of_an_ensemble_have_the_tokens_of_label_words_that_belong_there(
    tiny_models: dict[str, Path],
) -> None:
    others = ["{text} it was {mask}", "{text} ({mask})"]  # " great" and "great" are two tokens of this vocabulary
    plan = plan_of(tiny_models["roberta"], {"name": "template-ensemble", "templates": others})
    each = [
        softmax(Scorer(plan_of(tiny_models["roberta"], {"name": "zero-shot"}, text), False).untouched(DEV), axis=-1)
        for text in others
    ]
    method = TemplateEnsemble(plan, ACCURACY)
    np.testing.assert_allclose(method.label_logits(DEV), np.log(np.mean(each, axis=0)), atol=1e-5)
    method.close()


def test_calibration_makes_a_neutral_text_uniform(tiny_models: dict[str, Path]) -> None:
    method = Calibration(plan_of(tiny_models["bert"], {"name": "calibration", "neutral": ["or"]}), ACCURACY)
    _, end = fitted(method)
    np.testing.assert_allclose(softmax(method.label_logits([Example("or", None, 0)]), axis=-1), 0.5, atol=1e-5)
    assert end.cost.examples == 1 + len(DEV)


def test_calibration_divides_by_the_mean_probabilities_of_the_neutral_texts(tiny_models: dict[str, Path]) -> None:
    neutral = ["or", "is this", "the kettle"]
    plan = plan_of(tiny_models["gpt2"], {"name": "calibration", "neutral": neutral})
    method = Calibration(plan, ACCURACY)
    _, end = fitted(method)
    mean = softmax(method.untouched([Example(text, None, 0) for text in neutral]), axis=-1).mean(axis=0)
    divided = softmax(method.untouched(DEV), axis=-1) / mean
    expected = divided / divided.sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(softmax(method.label_logits(DEV), axis=-1), expected, atol=1e-5)
    fresh = Calibration(plan, ACCURACY)
    fresh.restore(end.learned)
    np.testing.assert_array_equal(fresh.label_logits(DEV), method.label_logits(DEV))


def test_neutral_texts_of_a_pair_task_stand_for_both_texts(tiny_models: dict[str, Path]) -> None:
    single = plan_of(tiny_models["bert"], {"name": "calibration", "neutral": ["or"]})
    pairs = tuple(Example(example.text, "it was late", example.label) for example in DEV)
    parts = {"kind": "pair", "template": Template("{text_a} ? {mask} , {text_b}", "pair"), "train": pairs, "dev": pairs}
    method = Calibration(Plan(**{**vars(single), **parts}), ACCURACY)
    fitted(method)
    np.testing.assert_allclose(softmax(method.label_logits([Example("or", "or", 0)]), axis=-1), 0.5, atol=1e-5)


@pytest.mark.parametrize("family", ["bert", "gpt2", "t5", "bart"])
def test_rows_in_context_hold_the_drawn_examples_solved_and_then_the_text(
    tiny_models: dict[str, Path], family: str
) -> None:
    settings = {"name": "in-context", "demonstrations": 3, "orders": 2}
    plan = plan_of(tiny_models[family], settings, "{text} . it was {mask}")
    method = InContext(plan, ACCURACY)
    steps, end = fitted(method)
    card, drawn = read_model_card(plan.spec.backbone), end.learned["demonstrations"]
    solved = [f"{TRAIN[i].text} . it was {('bad', 'great')[TRAIN[i].label]}" for i in drawn]
    (row,) = decoded(card, method._encoder, DEV[:1])
    parts = [row.replace(" ", "").find(text.replace(" ", "")) for text in (*solved, DEV[0].text)]
    assert -1 not in parts
    assert parts == sorted(parts)
    assert (drawn.shape, drawn.dtype, len(set(drawn.tolist()))) == ((3,), np.int64, 3)
    assert len(steps) == 2
    assert end.cost.examples == 2 * len(DEV)


def test_in_context_logits_are_those_of_a_template_written_by_hand(tiny_models: dict[str, Path]) -> None:
    plan = plan_of(tiny_models["gpt2"], {"name": "in-context", "demonstrations": 2, "orders": 3})
    method = InContext(plan, ACCURACY)
    steps, end = fitted(method)
    words = ("bad", "great")
    before = "".join(f"{TRAIN[i].text} . it was {words[TRAIN[i].label]} .\n" for i in end.learned["demonstrations"])
    by_hand = plan_of(tiny_models["gpt2"], {"name": "zero-shot"}, before + TEMPLATE)
    expected = Scorer(by_hand, with_prompt=False).untouched(DEV)
    np.testing.assert_allclose(method.label_logits(DEV), expected, atol=1e-5)
    best = max(step.dev.metric for step in steps if step.dev)
    assert (expected.argmax(axis=1) == label_array(DEV)).mean() == best == steps[-1].dev_metric


def test_in_context_is_restored_from_arrays_without_the_train_examples(tiny_models: dict[str, Path]) -> None:
    plan = plan_of(tiny_models["bert"], {"name": "in-context", "demonstrations": 2, "orders": 1})
    method = InContext(plan, ACCURACY)
    _, end = fitted(method)
    fresh = InContext(Plan(**{**vars(plan), "train": (), "dev": ()}), ACCURACY)
    fresh.restore(end.learned)
    np.testing.assert_array_equal(fresh.label_logits(DEV), method.label_logits(DEV))
    assert not np.allclose(method.label_logits(DEV), method.untouched(DEV))


def test_demonstrations_with_braces_and_mask_tokens_stay_text(tiny_models: dict[str, Path]) -> None:
    odd = (Example("{text} {mask} [MASK] was late {", None, 0), Example("}} great {{", None, 1))
    plan = plan_of(tiny_models["bert"], {"name": "in-context", "demonstrations": 2, "orders": 1}, train=odd)
    method = InContext(plan, ACCURACY)
    _, end = fitted(method)
    card = read_model_card(plan.spec.backbone)
    row = method._encoder.row(DEV[0]) if method._encoder else None
    assert row is not None
    assert row.ids.count(card.tokenizer.mask_token_id) == 1
    assert b"[MASK]" not in end.learned["words"].tobytes()
    assert b"}} great {{" in end.learned["words"].tobytes()


def test_long_demonstrations_are_cut_to_equal_shares_and_leave_room_for_the_text(
    tiny_models: dict[str, Path],
) -> None:
    long = tuple(Example("the parcel is late and " * 60, None, label) for label in (0, 1, 0, 1))
    settings = {"name": "in-context", "demonstrations": 4, "orders": 1}
    plan = plan_of(tiny_models["bert"], settings, train=long, backbone={"max_tokens": 96})
    method = InContext(plan, ACCURACY)
    _, end = fitted(method)
    card = read_model_card(plan.spec.backbone)
    encoder, lines = method._encoder, end.learned["words"].tobytes().decode().split("\n")
    assert encoder is not None
    room = encoder.max_tokens
    share = (room - room // 4) // 5
    lengths = [len(card.tokenizer(line, add_special_tokens=False)["input_ids"]) for line in lines]
    assert all(line.startswith("the parcel is late") and line.split()[-2] in ("bad", "great") for line in lines)
    assert max(lengths) == share - 1
    assert len(encoder.row(Example("great story " * 80, None, 1)).ids) <= room
    assert "great story" in decoded(card, encoder, [Example("great story " * 80, None, 1)])[0]


def test_both_texts_of_a_long_pair_are_kept_in_part(tiny_models: dict[str, Path]) -> None:
    plan = plan_of(tiny_models["bert"], {"name": "in-context"})
    pair = Plan(**{**vars(plan), "kind": "pair", "template": Template("{text_a} ? {mask} , {text_b}", "pair")})
    card = read_model_card(plan.spec.backbone)
    line = demonstration(pair, card, Example("late " * 50, "good", 1), 12)
    assert line == "late late late late late late late ? great , good"  # and one for the end of the line


def test_more_demonstrations_than_there_is_room_for_are_refused(tiny_models: dict[str, Path]) -> None:
    narrow = plan_of(tiny_models["bert"], {"name": "in-context", "demonstrations": 8}, backbone={"max_tokens": 40})
    with pytest.raises(JobError, match=r"expected 8 texts under the template in 40 tokens \(3 for each\)"):
        fitted(InContext(narrow, ACCURACY))


def test_draws_are_balanced_over_labels_as_well_as_possible() -> None:
    labels = np.array([0, 0, 0, 0, 0, 0, 1, 1, 2])
    counts = {}
    for count in range(1, 10):
        drawn = balanced_draw(labels, count, generator(0, "demonstrations", count))
        assert len(set(drawn.tolist())) == count
        counts[count] = sorted(Counter(labels[drawn].tolist()).values())
    assert counts[3] == [1, 1, 1]
    assert counts[5] == [1, 2, 2]
    assert counts[7] == [1, 2, 4]
    orders = {tuple(balanced_draw(labels, 3, generator(0, "demonstrations", order)).tolist()) for order in range(8)}
    assert len(orders) > 1


@pytest.mark.parametrize("past", [Past(2, Cost(seconds=2000.0)), Past(3, Cost(seconds=1.0), ended=True)])
def test_a_fit_that_is_done_again_does_what_is_on_record_and_counts_its_seconds(
    tiny_models: dict[str, Path], past: Past, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of(tiny_models["bert"], {"name": "in-context"}, budget={"seconds": 1000.0})
    read, reads = InContext._read, []
    monkeypatch.setattr(InContext, "_read", lambda *args: reads.append(args) or read(*args))
    steps, end = fitted(InContext(plan, ACCURACY, past))
    assert len(reads) == past.steps  # no order is read in vain
    assert (len(steps), end.reason) == (past.steps, "budget.seconds")
    assert end.cost.seconds >= past.cost.seconds


def test_the_budget_of_seconds_ends_the_search_for_an_order(tiny_models: dict[str, Path]) -> None:
    plan = plan_of(tiny_models["bert"], {"name": "in-context"}, budget={"seconds": 1e-6})
    steps, end = fitted(InContext(plan, ACCURACY))
    assert (len(steps), end.reason, end.cost.examples) == (1, "budget.seconds", len(DEV))
