"""One training loop: its curve for any number of workers, taken up anywhere, within its limits."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import small_task
import torch
from small_task import ACCURACY
from torch import Tensor, nn

from bbtune.backbone.sources import read_model_card
from bbtune.baselines import training
from bbtune.baselines.crew import Alone, Crew, Save
from bbtune.baselines.learner import Learner
from bbtune.baselines.learners import LEARNERS, make_learner
from bbtune.baselines.trained import Trained
from bbtune.baselines.training import learned_in, logits_of, train
from bbtune.errors import EvaluationError
from bbtune.evaluation.base import label_metric
from bbtune.loop import Generation
from bbtune.method import Fitted
from bbtune.objective import Objective
from bbtune.plan import Plan
from bbtune.selection import NOTHING_YET, is_better
from bbtune.task.task import Example, label_array

TRAIN = small_task.TRAIN[:7]  # of batches of three the last has one, which leaves a second worker nothing
DEV = small_task.DEV[:5]
EPOCHS = 5
CASES = [(name, family) for name in ("lora", "deep-prompts") for family in ("bert", "gpt2")]

MakePlan = Callable[..., Plan]


@pytest.fixture
def make_plan(tiny_models: dict[str, Path]) -> MakePlan:
    def make(name: str, family: str, method: dict[str, Any] | None = None, **parts: Any) -> Plan:
        settings = {"name": name, "epochs": EPOCHS, "batch_size": 3, "learning_rate": 0.02, **(method or {})}
        parts = {"prompt": {"tokens": 4}, **parts}
        return small_task.plan_of(tiny_models[family], settings, "{text} . it was {mask}", TRAIN, DEV, **parts)

    return make


@pytest.fixture
def every_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint of every step."""
    monkeypatch.setattr(training, "_CHECKPOINT_EVERY_S", -1.0)


class Exchange:
    """What the two workers of a pair lay down for each other, a turn at a time."""

    def __init__(self) -> None:
        self._slots: list[Any] = [None, None]
        self._barrier = threading.Barrier(2, timeout=120)

    def swap(self, rank: int, value: Any) -> list[Any]:
        self._slots[rank] = value
        self._barrier.wait()
        found = list(self._slots)
        self._barrier.wait()
        return found

    def give_up(self) -> None:
        self._barrier.abort()


class Averaged(nn.Module):
    """A learner whose gradients, once all are there, become the mean of both workers', as DDP has it."""

    def __init__(self, learner: Learner, swap: Callable[[Any], list[Any]]) -> None:
        super().__init__()
        self.learner = learner
        self._swap = swap
        self._weights = learner.trainable()
        self._missing = len(self._weights)
        for weight in self._weights.values():
            weight.register_post_accumulate_grad_hook(self._arrived)

    def forward(self, items: Sequence[Any]) -> Tensor:
        logits: Tensor = self.learner(items)
        return logits

    @torch.no_grad()
    def _arrived(self, _: Tensor) -> None:
        self._missing -= 1
        if self._missing:
            return
        self._missing = len(self._weights)
        both = self._swap({name: weight.grad.clone() for name, weight in self._weights.items()})
        for name, weight in self._weights.items():
            weight.grad = torch.stack([grads[name] for grads in both]).mean(dim=0)


class OfTwo(Crew):
    """One of two workers, a thread each."""

    size = 2

    def __init__(self, rank: int, exchange: Exchange, folder: Path) -> None:
        self.rank = rank
        self._exchange = exchange
        self._kept = Alone(folder)

    def wrap(self, learner: Learner) -> nn.Module:
        return Averaged(learner, lambda value: self._exchange.swap(self.rank, value))

    def gathered(self, value: Any) -> list[Any]:
        return self._exchange.swap(self.rank, value)

    def checkpoint(self) -> AbstractContextManager[Path | None]:
        return self._kept.checkpoint()

    def report(self, step: Generation, save: Save | None) -> None:
        if self.rank == 0:
            self._kept.report(step, save)


def alone(plan: Plan, folder: Path) -> tuple[list[Generation], Fitted]:
    return split(train(make_learner(plan), plan, ACCURACY, Alone(folder)))


def by_two(plan: Plan, folder: Path) -> list[tuple[list[Generation], Fitted]]:
    """What each of two workers yields."""
    exchange = Exchange()

    def work(rank: int, learner: Learner) -> tuple[list[Generation], Fitted]:
        try:
            return split(train(learner, plan, ACCURACY, OfTwo(rank, exchange, folder)))
        except BaseException:
            exchange.give_up()
            raise

    learners = [make_learner(plan) for _ in range(2)]
    with ThreadPoolExecutor(2) as threads:
        return [future.result() for future in [threads.submit(work, *pair) for pair in enumerate(learners)]]


def split(events: Iterator[Generation | Fitted]) -> tuple[list[Generation], Fitted]:
    *steps, end = events
    assert isinstance(end, Fitted)
    return [step for step in steps if isinstance(step, Generation)], end


def cut_after(plan: Plan, folder: Path, count: int) -> None:
    """A training that is dropped behind so many steps."""
    events = train(make_learner(plan), plan, ACCURACY, Alone(folder))
    for _ in range(count):
        next(events)


def curve(steps: Sequence[Generation]) -> list[Generation]:
    """Steps without the clock."""
    return [replace(step, unix_ms=0, cost=replace(step.cost, seconds=0.0)) for step in steps]


def assert_alike(got: tuple[list[Generation], Fitted], expected: tuple[list[Generation], Fitted]) -> None:
    """The same training, but for the rounding of sums."""
    for one, other in zip(curve(got[0]), curve(expected[0]), strict=True):
        assert one.dev is not None
        assert other.dev is not None
        assert (one.number, one.cost, one.dev.selected) == (other.number, other.cost, other.dev.selected)
        numbers = [
            [np.nan if value is None else value for value in (s.loss, s.best_loss, s.train_metric, s.dev_metric)]
            + [s.dev.loss, s.dev.metric]
            for s in (one, other)
            if s.dev
        ]
        np.testing.assert_allclose(*numbers, rtol=1e-4)
    assert (got[1].reason, got[1].parameters) == (expected[1].reason, expected[1].parameters)
    assert got[1].learned.keys() == expected[1].learned.keys()
    for name, weights in got[1].learned.items():
        np.testing.assert_allclose(weights, expected[1].learned[name], rtol=1e-3, atol=1e-4)


def assert_same(got: tuple[list[Generation], Fitted], expected: tuple[list[Generation], Fitted]) -> None:
    """The same training, bit for bit."""
    assert curve(got[0]) == curve(expected[0])
    assert got[1].reason == expected[1].reason
    assert all((weights == expected[1].learned[name]).all() for name, weights in got[1].learned.items())


@pytest.mark.parametrize(("name", "family"), CASES)
def test_two_workers_train_as_one_does(make_plan: MakePlan, tmp_path: Path, name: str, family: str) -> None:
    plan = make_plan(name, family)
    first, second = by_two(plan, tmp_path / "two")
    expected = alone(plan, tmp_path / "one")
    assert len(first[0]) == EPOCHS + 1
    assert len({step.loss for step in first[0]}) == EPOCHS + 1
    assert_alike(first, expected)
    assert_same(second, first)


@pytest.mark.parametrize("batch_size", [1, 2, 7, 100])
def test_two_workers_train_as_one_does_with_any_batch(make_plan: MakePlan, tmp_path: Path, batch_size: int) -> None:
    plan = make_plan("lora", "bert", {"batch_size": batch_size, "epochs": 2})
    assert_alike(by_two(plan, tmp_path / "two")[0], alone(plan, tmp_path / "one"))


@pytest.mark.usefixtures("every_epoch")
@pytest.mark.parametrize("count", range(1, EPOCHS + 2))
def test_a_training_that_was_cut_off_goes_on_as_if_it_were_not(make_plan: MakePlan, tmp_path: Path, count: int) -> None:
    plan = make_plan("lora", "bert")
    cut_after(plan, tmp_path / "cut", count)
    assert_same(alone(plan, tmp_path / "cut"), alone(plan, tmp_path / "whole"))


@pytest.mark.parametrize("name", ["deep-prompts", "mlp"])
def test_a_training_goes_on_from_an_older_checkpoint_too(
    make_plan: MakePlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    plan = make_plan(name, "gpt2")
    events = train(make_learner(plan), plan, ACCURACY, Alone(tmp_path / "cut"))
    monkeypatch.setattr(training, "_CHECKPOINT_EVERY_S", -1.0)
    kept = [next(events) for _ in range(3)]
    monkeypatch.setattr(training, "_CHECKPOINT_EVERY_S", 1e9)
    lost = [next(events) for _ in range(2)]
    again = alone(plan, tmp_path / "cut")
    assert_same(again, alone(plan, tmp_path / "whole"))
    assert again[0][:3] == kept  # with their seconds and time of day
    assert curve(again[0][3:5]) == curve(lost)  # type: ignore[arg-type]


@pytest.mark.usefixtures("every_epoch")
def test_two_workers_go_on_where_one_was_cut_off_and_the_other_way_round(make_plan: MakePlan, tmp_path: Path) -> None:
    plan = make_plan("lora", "gpt2")
    cut_after(plan, tmp_path / "one", 3)
    first, second = by_two(plan, tmp_path / "one")
    expected = alone(plan, tmp_path / "whole")
    assert_alike(first, expected)
    assert_same(second, first)
    short = make_plan("lora", "gpt2", {"epochs": 2})
    by_two(short, tmp_path / "two")
    record = next((tmp_path / "two").glob("*/steps.json"))
    record.write_text(record.read_text().replace('"ended": "method.epochs"', '"ended": null'))
    assert_alike(alone(plan, tmp_path / "two"), expected)


@pytest.mark.usefixtures("every_epoch")
def test_a_checkpoint_that_was_not_finished_does_not_count(make_plan: MakePlan, tmp_path: Path) -> None:
    plan = make_plan("lora", "bert")
    cut_after(plan, tmp_path, 3)
    crew = Alone(tmp_path)
    with crew.checkpoint() as whole:
        assert whole is not None

    def torn(folder: Path) -> None:
        (folder / "weights.safetensors").write_bytes(b"half of")
        raise KeyboardInterrupt

    steps = alone(plan, tmp_path / "whole")[0]
    with pytest.raises(KeyboardInterrupt):
        crew.report(steps[3], torn)
    with crew.checkpoint() as kept:
        assert kept == whole
    assert_same(alone(plan, tmp_path), alone(plan, tmp_path / "other"))
    assert len([path for path in tmp_path.iterdir() if path.name.startswith("checkpoint")]) == 1


def test_a_training_that_has_ended_is_not_trained_on(make_plan: MakePlan, tmp_path: Path) -> None:
    plan = make_plan("lora", "bert", {"epochs": 2})
    expected = alone(plan, tmp_path)
    longer = make_plan("lora", "bert", {"epochs": 4})  # as a clock that allows more would have it
    again = alone(longer, tmp_path)
    assert again[0] == expected[0]
    assert_same(again, expected)
    assert again[1].cost == expected[1].cost


def test_a_checkpoint_holds_what_is_handed_out(make_plan: MakePlan, tmp_path: Path) -> None:
    _, end = alone(make_plan("lora", "bert"), tmp_path)
    with Alone(tmp_path).checkpoint() as folder:
        assert folder is not None
        found = learned_in(folder)
    assert found.keys() == end.learned.keys()
    assert all((found[name] == weights).all() for name, weights in end.learned.items())
    assert end.parameters == sum(weights.size for weights in end.learned.values())


def test_the_seed_decides_the_curve(make_plan: MakePlan, tmp_path: Path) -> None:
    one, again, other = (alone(make_plan("lora", "bert", seed=s), tmp_path / f"{i}") for i, s in enumerate((3, 3, 4)))
    assert_same(again, one)
    assert curve(other[0]) != curve(one[0])


@pytest.mark.parametrize("by", ["metric", "loss", "last"])
@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_the_step_that_dev_selects_is_handed_out(make_plan: MakePlan, tmp_path: Path, family: str, by: str) -> None:
    plan = make_plan("lora", family, {"learning_rate": 0.2, "epochs": 6}, selection={"by": by})
    steps, end = alone(plan, tmp_path)
    best = NOTHING_YET
    for step in steps:
        assert step.dev is not None
        assert step.dev.selected == is_better(by, step.dev.loss, step.dev.metric, best)
        best = step.dev if step.dev.selected else best
        assert step.dev_metric == best.metric
    if by != "last":
        assert min(s.dev.loss for s in steps if s.dev) == best.loss or by == "metric"
        assert max(s.dev.metric for s in steps if s.dev) == best.metric or by == "loss"
        assert not all(step.dev.selected for step in steps if step.dev)  # so that it matters
    fresh = Trained(plan, ACCURACY, tmp_path)
    fresh.restore(end.learned)
    logits, labels = fresh.label_logits(DEV), label_array(DEV)
    assert float(Objective(labels, "cross-entropy")(logits)) == pytest.approx(best.loss, rel=1e-6)
    assert float(label_metric(ACCURACY, logits, labels)) == best.metric


@pytest.mark.parametrize(("selection", "steps"), [({"patience": 2}, 3), ({}, 11), ({"by": "loss", "patience": 4}, 5)])
def test_a_training_that_dev_finds_no_better_is_stopped(
    make_plan: MakePlan, tmp_path: Path, selection: dict[str, Any], steps: int
) -> None:
    standing = {"learning_rate": 1e-30, "epochs": 50}
    found, end = alone(make_plan("lora", "bert", standing, selection=selection), tmp_path)
    assert (len(found), end.reason) == (steps, "selection.patience")


def test_patience_counts_on_behind_a_cut(make_plan: MakePlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "_CHECKPOINT_EVERY_S", -1.0)
    plan = make_plan("lora", "bert", {"learning_rate": 1e-30, "epochs": 50}, selection={"patience": 4})
    cut_after(plan, tmp_path, 3)
    found, end = alone(plan, tmp_path)
    assert (len(found), end.reason) == (5, "selection.patience")


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama"])
def test_every_pass_is_counted(make_plan: MakePlan, tmp_path: Path, family: str) -> None:
    plan = make_plan("lora", family)
    steps, end = alone(plan, tmp_path)
    depth = read_model_card(plan.spec.backbone).layer_count
    for step in steps:
        cost, epochs = step.cost, step.number
        assert cost.evaluations == epochs
        assert cost.examples == epochs * (len(TRAIN) + len(DEV)) + len(DEV)
        assert cost.backward_examples == epochs * len(TRAIN)
        assert cost.layer_forwards == depth * cost.examples
    assert end.cost == steps[-1].cost
    assert end.reason == "method.epochs"
    assert all(one.cost.seconds <= other.cost.seconds for one, other in pairwise(steps))


@pytest.mark.parametrize("name", ["mlp", "bilstm"])
def test_texts_whose_features_are_kept_are_counted_once(make_plan: MakePlan, tmp_path: Path, name: str) -> None:
    steps, end = alone(make_plan(name, "bert"), tmp_path)
    texts = len(TRAIN) + len(DEV)
    assert [step.cost.evaluations for step in steps] == list(range(EPOCHS + 1))
    assert {(s.cost.examples, s.cost.layer_forwards, s.cost.backward_examples) for s in steps} == {
        (texts, 3 * texts, 0)
    }
    assert end.cost == steps[-1].cost


EPOCH, START = len(TRAIN) + len(DEV), len(DEV)


@pytest.mark.parametrize(
    ("budget", "epochs"),
    [
        ({"evaluations": 1}, 1),
        ({"evaluations": 3}, 3),
        ({"examples": START + EPOCH}, 1),
        ({"examples": START + 3 * EPOCH - 1}, 2),
        ({"examples": START + 3 * EPOCH}, 3),
        ({"layer_forwards": 3 * (START + 2 * EPOCH)}, 2),
        ({"layer_forwards": 3 * (START + 3 * EPOCH) - 1}, 2),
    ],
)
def test_a_budget_is_used_and_not_exceeded(
    make_plan: MakePlan, tmp_path: Path, budget: dict[str, int], epochs: int
) -> None:
    plan = make_plan("lora", "bert", budget=budget)
    steps, end = split(Trained(plan, ACCURACY, tmp_path).fit())
    ((limit, value),) = budget.items()
    assert (len(steps), end.reason) == (epochs + 1, f"budget.{limit}")
    assert getattr(end.cost, limit) <= value


class Clock:
    """Seconds that pass only where a test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


class Timed(Learner):
    """A bag of two numbers for each text; every forward takes a second of the clock."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock
        self.weight = nn.Parameter(torch.zeros(2, 2))

    @property
    def depth(self) -> int:
        return 1

    def prepare(self, examples: Sequence[Example]) -> list[Tensor]:
        return [torch.tensor([float(len(example.text)), 1.0 + example.label]) for example in examples]

    def length(self, item: Tensor) -> int:
        return 1

    def forward(self, items: Sequence[Tensor]) -> Tensor:
        self._clock.now += 1.0
        logits: Tensor = torch.stack(list(items)) @ self.weight
        return logits


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("bbtune.baselines.account.time", SimpleNamespace(monotonic=clock.monotonic))
    return clock


# The start takes one second, an epoch three for its batches and one for dev.
@pytest.mark.parametrize(("seconds", "epochs"), [(0.5, 0), (1.0, 0), (4.5, 0), (5.0, 1), (8.9, 1), (9.0, 2), (11.0, 2)])
def test_the_budget_of_seconds_is_not_exceeded(
    make_plan: MakePlan, tmp_path: Path, clock: Clock, seconds: float, epochs: int
) -> None:
    plan = make_plan("lora", "bert", budget={"seconds": seconds})
    steps, end = split(train(Timed(clock), plan, ACCURACY, Alone(tmp_path)))
    assert (len(steps), end.reason) == (epochs + 1, "budget.seconds")
    assert [step.cost.seconds for step in steps] == [1.0 + 4.0 * epoch for epoch in range(epochs + 1)]
    assert end.cost.seconds == max(seconds, 1.0)  # nothing is handed out without the start
    assert end.cost.examples == START + epochs * EPOCH
    assert clock.now <= 100.0 + max(seconds, 1.0) + 1.0  # no batch begins behind the end
    again = split(train(Timed(clock), plan, ACCURACY, Alone(tmp_path)))
    assert (again[0], again[1].cost, again[1].reason) == (steps, end.cost, "budget.seconds")


def test_seconds_count_on_behind_a_cut(
    make_plan: MakePlan, tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "_CHECKPOINT_EVERY_S", -1.0)
    plan = make_plan("lora", "bert", budget={"seconds": 9.5})
    events = train(Timed(clock), plan, ACCURACY, Alone(tmp_path))
    kept = [next(events), next(events)]
    clock.now += 1000.0  # nobody trains
    steps, end = split(train(Timed(clock), plan, ACCURACY, Alone(tmp_path)))
    assert steps[:2] == kept
    assert [step.cost.seconds for step in steps] == [1.0, 5.0, 9.0]
    assert end.reason == "budget.seconds"


def test_features_are_made_on_the_budgets_time(make_plan: MakePlan, tmp_path: Path, clock: Clock) -> None:
    class Slow(Timed):
        cached = True

        def prepare(self, examples: Sequence[Example]) -> list[Tensor]:
            clock.now += 10.0
            return super().prepare(examples)

    steps, _ = split(train(Slow(clock), make_plan("mlp", "bert"), ACCURACY, Alone(tmp_path)))
    assert steps[0].cost.seconds == 21.0


def test_a_training_that_diverges_ends_in_words(make_plan: MakePlan, tmp_path: Path) -> None:
    plan = make_plan("deep-prompts", "bert", {"learning_rate": 1e30})
    with pytest.raises(EvaluationError, match=r"finite losses, got others in epoch 1 .* lower method\.learning_rate"):
        alone(plan, tmp_path)


@pytest.mark.parametrize("name", LEARNERS)
def test_every_learner_is_trained_and_taken_up_again(
    make_plan: MakePlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(training, "_CHECKPOINT_EVERY_S", -1.0)
    plan = make_plan(name, "bert", {"epochs": 3, "learning_rate": 0.001})
    cut_after(plan, tmp_path / "cut", 3)
    whole = alone(plan, tmp_path / "whole")
    assert_same(alone(plan, tmp_path / "cut"), whole)
    fresh = make_learner(plan)
    fresh.load({name: torch.from_numpy(weights) for name, weights in whole[1].learned.items()})
    best = [step.dev for step in whole[0] if step.dev and step.dev.selected][-1]
    loss = float(Objective(label_array(DEV), "cross-entropy")(logits_of(fresh, fresh.prepare(DEV))))
    assert loss == pytest.approx(best.loss, rel=1e-5)
