"""The run loop on an evaluator that counts what it is asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from label_logits import Problem, make_problem

from bbtune.cost import Sizes
from bbtune.errors import DeadlineReached
from bbtune.evaluation.base import Scores, Split
from bbtune.loop import Cost, Generation, Ledger, Limits, Stopped, run_search
from bbtune.objective import Subset
from bbtune.optimizers import make_optimizer
from bbtune.optimizers.base import Array
from bbtune.optimizers.structure import Structure
from bbtune.schedule import RecentGain, RoundRobin, WholeSweeps
from bbtune.search import Accept, BestEver, BlockSearch, Improves
from bbtune.seeds import generator

TRAIN, DEV, LAYERS, DIM = 4, 3, 2, 3
DEPTH = 5
SIZES = Sizes(TRAIN, DEV, (0, 1), DEPTH)
DevScores = Callable[[Array], tuple[float, float]]


def bowl(z: Array) -> float:
    """The train loss of one z (L, D)."""
    return float(((z - 0.5) ** 2).sum())


def arbitrary(z: Array) -> tuple[float, float]:
    """Dev loss and metric of one z (L, D): few different values, in no relation to the train loss."""
    digest = hashlib.sha256(z.tobytes()).digest()
    return float(digest[0] % 3), float(digest[1] % 3) / 2


def ran(z: Array, texts: int) -> int:
    """Texts times layers that a call on z (P, L, D) cannot do without: a layer runs once per different past."""
    pasts = [[one[: layer + 1].tobytes() for one in z] for layer in range(DEPTH)]
    return texts * sum(len(set(past)) for past in pasts)


@dataclass
class CountingEvaluator:
    """Deterministic scores; every candidate takes a second of its own clock."""

    dev_scores: DevScores = arbitrary
    loss: Callable[[Array], float] = bowl
    problem: Problem | None = None
    now: float = 0.0
    examples: int = 0
    train: list[Array] = field(default_factory=list)
    dev: list[Array] = field(default_factory=list)
    cut: list[Split] = field(default_factory=list)
    calls: list[tuple[Split, int, Array]] = field(default_factory=list)
    forwards: int = 0

    def evaluate(
        self, z: Array, split: Split, deadline: float | None = None, first: int = 0, subset: Subset | None = None
    ) -> Scores:
        if deadline is not None and self.now + len(z) > deadline:
            self.now = max(self.now, deadline)
            self.cut.append(split)
            raise DeadlineReached("the budget of seconds ended inside a generation")
        self.now += len(z)
        self.calls.append((split, first, z.copy()))
        texts = len(subset) if subset else TRAIN if split == "train" else DEV
        examples, forwards = len(z) * texts, ran(z, texts)
        self.examples += examples
        self.forwards += forwards
        if split == "dev":
            self.dev += list(z.copy())
            pairs = [self.dev_scores(one) for one in z]
            loss, metric = np.array([pair[0] for pair in pairs]), np.array([pair[1] for pair in pairs])
        else:
            self.train += list(z.copy())
            loss = np.array([self.loss(one) for one in z])
            metric = -loss
        logits = None
        if self.problem is not None and split == "train":
            told = self.problem.scores(z.reshape(len(z), -1), subset)
            loss, metric, logits = told.loss, -told.loss, told.logits
        return Scores(loss, metric, logits, examples, forwards, elapsed_s=self.now)


@dataclass(frozen=True)
class Played:
    """A run to its end: events, the incumbent at each of them, and the end."""

    events: list[Generation]
    incumbents: list[Array]
    stopped: Stopped


def make_search(
    accept: Accept,
    population: int = 5,
    name: str = "cma-diagonal",
    sweeps: int | None = None,
    seed: int = 0,
    visit: int = 1,
) -> BlockSearch:
    def make(block: int, size: int) -> Any:
        return make_optimizer(name, size, population, 0.3, generator(seed, "optimizer", block))

    schedule = RoundRobin(LAYERS, visit) if sweeps is None else WholeSweeps(LAYERS, visit, sweeps=sweeps)
    return BlockSearch([[layer] for layer in range(LAYERS)], DIM, make, accept, schedule)


def by_gauss_newton(population: int, examples: int | None = None) -> tuple[BlockSearch, CountingEvaluator]:
    """A joint search that models label logits, with probes on all examples or some, and who tells it those."""
    problem = make_problem(LAYERS * DIM, examples=TRAIN)
    structure = Structure(problem.objective, (5, 4), probe_examples=examples)

    def make(block: int, size: int) -> Any:
        return make_optimizer("gauss-newton", size, population, 0.3, generator(0), structure)

    return BlockSearch([list(range(LAYERS))], DIM, make, Improves()), CountingEvaluator(problem=problem)


def play(search: BlockSearch, evaluator: CountingEvaluator, limits: Limits) -> Played:
    events, incumbents = [], []
    stopped = None
    for event in run_search(search, evaluator, Ledger(limits, SIZES)):
        assert stopped is None, "nothing comes after the end"
        if isinstance(event, Stopped):
            stopped = event
        else:
            events.append(event)
            incumbents.append(search.incumbent)
    assert stopped is not None
    return Played(events, incumbents, stopped)


def distinct(incumbents: list[Array]) -> list[Array]:
    """Incumbents without those that equal the one before."""
    return [z for i, z in enumerate(incumbents) if i == 0 or not np.array_equal(z, incumbents[i - 1])]


@settings(max_examples=60, deadline=None)
@given(
    population=st.integers(2, 9),
    name=st.sampled_from(["cma-diagonal", "one-plus-lambda", "random", "spsa"]),
    accept=st.sampled_from([Improves(), BestEver()]),
    evaluations=st.none() | st.integers(1, 60),
    examples=st.none() | st.integers(1, 300),
    forwards=st.integers(1, 1500),
    visit=st.integers(1, 3),
)
def test_budgets_that_count_are_never_exceeded(
    population: int,
    name: str,
    accept: Accept,
    evaluations: int | None,
    examples: int | None,
    forwards: int,
    visit: int,
) -> None:
    search, evaluator = make_search(accept, population, name, visit=visit), CountingEvaluator()
    stopped = play(search, evaluator, Limits(evaluations, examples, forwards)).stopped
    assert evaluations is None or len(evaluator.train) <= evaluations
    assert examples is None or evaluator.examples <= examples
    assert evaluator.forwards <= forwards
    assert stopped.cost == Cost(len(evaluator.train), evaluator.examples, evaluator.forwards, evaluator.now)
    # Nor is a budget left over that one more generation would fit into.
    more = search.upcoming.size if evaluator.dev else 0
    if stopped.reason == "budget.evaluations":
        assert evaluations is not None
        assert len(evaluator.train) + more > evaluations
    elif stopped.reason == "budget.examples":
        assert examples is not None
        assert evaluator.examples + more * TRAIN + DEV > examples
    else:
        assert stopped.reason == "budget.layer_forwards"
        generation = ran(search.ask().z, TRAIN) if more else 0
        assert evaluator.forwards + generation + DEV * DEPTH > forwards


@settings(max_examples=20, deadline=None)
@given(population=st.integers(2, 9), evaluations=st.integers(1, 60), forwards=st.integers(1, 1500))
def test_budgets_hold_where_generations_differ_in_size(population: int, evaluations: int, forwards: int) -> None:
    search, evaluator = by_gauss_newton(population)
    played = play(search, evaluator, Limits(evaluations=evaluations, layer_forwards=forwards))
    assert len(evaluator.train) <= evaluations
    assert evaluator.forwards <= forwards
    assert played.stopped.cost.evaluations == len(evaluator.train)
    if played.stopped.reason == "budget.evaluations":
        assert len(evaluator.train) + search.upcoming.size > evaluations
    np.testing.assert_array_equal(evaluator.dev, distinct(played.incumbents))


def test_generations_that_only_explore_are_not_judged_on_dev() -> None:
    search, evaluator = by_gauss_newton(population=10)
    probing = [False]  # of the first event, before anything is asked
    ask = search.ask

    def noted() -> Any:
        proposal = ask()
        probing.append(proposal.probing)
        return proposal

    search.ask = noted  # type: ignore[method-assign]
    played = play(search, evaluator, Limits(evaluations=60))
    assert sum(probing) > 4
    assert not any(event.dev for event, only in zip(played.events, probing, strict=True) if only)
    assert sum(event.dev is not None for event in played.events) > 3


def test_losses_on_a_part_of_the_examples_are_not_among_those_of_the_run() -> None:
    search, evaluator = by_gauss_newton(population=10, examples=2)
    whole, parts = play(search, evaluator, Limits(examples=60 * TRAIN)), 0
    assert whole.stopped.reason == "budget.examples"
    assert whole.stopped.cost.examples == evaluator.examples
    assert whole.stopped.cost.layer_forwards == evaluator.forwards
    assert evaluator.problem is not None
    for event, z in zip(whole.events[1:], whole.incumbents[1:], strict=True):
        parts += event.loss is None
        assert (event.loss is None) == (event.train_metric is None)
        assert event.best_loss == pytest.approx(evaluator.problem.loss(z.ravel()), rel=1e-5)
    assert parts > 4


def test_a_search_by_recent_gain_holds_its_budget_of_layer_forwards_and_uses_all_layers() -> None:
    def make(block: int, size: int) -> Any:
        return make_optimizer("cma-diagonal", size, 5, 0.3, generator(0, block))

    schedule = RecentGain(LAYERS, 1, generator(0, "schedule"))
    search, evaluator = BlockSearch([[0], [1]], DIM, make, Improves(), schedule), CountingEvaluator()
    stopped = play(search, evaluator, Limits(layer_forwards=3000)).stopped
    assert stopped.reason == "budget.layer_forwards"
    assert stopped.cost.layer_forwards == evaluator.forwards <= 3000
    assert {first for split, first, _ in evaluator.calls if split == "train"} == {0, 1}


@pytest.mark.parametrize(
    ("accept", "evaluations", "blocks"),
    [
        (Improves(), 26, [None, None, 0, 1, 0, 1, 0]),
        (Improves(), 25, [None, None, 0, 1, 0, 1]),
        (Improves(), 1, [None, None]),
        (BestEver(), 25, [None, 0, 1, 0, 1, 0]),
        (BestEver(), 4, [None]),
    ],
)
def test_a_generation_costs_its_population_and_the_starting_point_one(
    accept: Accept, evaluations: int, blocks: list[int | None]
) -> None:
    played = play(make_search(accept, population=5), CountingEvaluator(), Limits(evaluations))
    assert [event.layers[0] if event.layers else None for event in played.events] == blocks
    assert [event.number for event in played.events] == list(range(len(blocks)))
    assert played.stopped.reason == "budget.evaluations"


def test_events_tell_the_losses_and_the_cost_so_far() -> None:
    evaluator = CountingEvaluator()
    played = play(make_search(Improves(), population=5), evaluator, Limits(evaluations=21))
    first, start, *rest = played.events
    assert (first.loss, first.best_loss, first.train_metric) == (None, None, None)
    assert first.cost == Cost(0, DEV, DEV * DEPTH, 1.0)
    assert start.loss == start.best_loss == bowl(np.zeros((LAYERS, DIM)))
    best = start.best_loss
    for number, event in enumerate(rest):
        losses = [bowl(z) for z in evaluator.train[1 + 5 * number : 6 + 5 * number]]
        best = min(best, *losses)
        assert event.loss == min(losses)
        assert event.best_loss == best
        assert event.train_metric == -min(losses)
        assert event.cost.evaluations == 6 + 5 * number
    assert played.stopped.cost == played.events[-1].cost


@pytest.mark.parametrize("accept", [Improves(), BestEver()])
def test_only_incumbents_are_judged_on_dev_and_only_when_they_have_changed(accept: Accept) -> None:
    evaluator = CountingEvaluator()
    played = play(make_search(accept), evaluator, Limits(evaluations=120))
    np.testing.assert_array_equal(evaluator.dev, distinct(played.incumbents))
    assert 3 < len(evaluator.dev) < len(played.events)
    assert [event.dev is not None for event in played.events] == [
        i == 0 or not np.array_equal(z, played.incumbents[i - 1]) for i, z in enumerate(played.incumbents)
    ]


def test_a_candidate_that_would_shine_on_dev_is_not_chosen_unless_it_is_an_incumbent() -> None:
    """The official code of BBTv2 takes the dev score of an arbitrary candidate; this loop does not."""

    def far_is_good(z: Array) -> tuple[float, float]:
        return -float(np.abs(z).sum()), float(np.abs(z).sum())

    evaluator = CountingEvaluator(dev_scores=far_is_good)
    played = play(make_search(Improves()), evaluator, Limits(evaluations=120))
    assert max(far_is_good(z)[1] for z in evaluator.train) > played.stopped.dev.metric
    assert played.stopped.dev.metric == max(far_is_good(z)[1] for z in played.incumbents)
    assert any(np.array_equal(played.stopped.z, z) for z in played.incumbents)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), accept=st.sampled_from([Improves(), BestEver()]))
def test_the_selected_incumbent_has_the_best_dev_metric_then_the_lowest_dev_loss_then_came_first(
    seed: int, accept: Accept
) -> None:
    played = play(make_search(accept, seed=seed), CountingEvaluator(), Limits(evaluations=90))
    judged = distinct(played.incumbents)
    expected = min(judged, key=lambda z: (-arbitrary(z)[1], arbitrary(z)[0]))  # min takes the first of equals
    np.testing.assert_array_equal(played.stopped.z, expected)
    assert (played.stopped.dev.loss, played.stopped.dev.metric) == arbitrary(expected)
    assert played.events[-1].dev_metric == played.stopped.dev.metric
    chosen = [event.dev for event in played.events if event.dev and event.dev.selected]
    assert chosen[-1] == played.stopped.dev


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    accept=st.sampled_from([Improves(), BestEver()]),
    visit=st.integers(1, 3),
)
def test_first_is_the_lowest_layer_that_differs(seed: int, accept: Accept, visit: int) -> None:
    evaluator = CountingEvaluator()
    play(make_search(accept, seed=seed, visit=visit), evaluator, Limits(evaluations=90))
    judged: Array | None = None
    for split, first, z in evaluator.calls:
        if split == "dev":  # against the one judged before
            differs = [0] if judged is None else np.flatnonzero((z[0] != judged).any(axis=1))
            assert first == differs[0]
            judged = z[0]
        elif len(z) == 1:  # the starting point
            assert first == 0
        else:  # among the candidates
            assert first == np.flatnonzero((z != z[0]).any(axis=(0, 2)))[0]
    assert {first for _, first, _ in evaluator.calls} == {0, 1}


def test_a_generation_of_an_upper_layer_fits_where_one_of_a_lower_layer_would_not() -> None:
    lower, upper = 5 * TRAIN * DEPTH, TRAIN * (5 * (DEPTH - 1) + 1)
    once = DEV * DEPTH
    for spare, layers in [(0, [(), (0,), (1,)]), (-1, [(), (0,)])]:
        search, evaluator = make_search(BestEver(), population=5), CountingEvaluator(loss=lambda z: z.sum())
        played = play(search, evaluator, Limits(layer_forwards=once + lower + once + upper + once + spare))
        assert [event.layers for event in played.events] == layers
        assert played.stopped.reason == "budget.layer_forwards"


def test_an_incumbent_that_never_changes_is_judged_once() -> None:
    evaluator = CountingEvaluator(loss=lambda z: 1.0)
    played = play(make_search(Improves(), name="random"), evaluator, Limits(evaluations=61))
    np.testing.assert_array_equal(evaluator.dev, np.zeros((1, LAYERS, DIM)))
    assert len(played.events) == 14
    assert not played.stopped.z.any()


def test_the_last_incumbent_is_judged_before_the_end() -> None:
    played = play(make_search(Improves(), seed=1), CountingEvaluator(), Limits(evaluations=6))
    assert played.incumbents[-1].any()
    assert played.events[-1].dev is not None


def test_the_sweeps_of_a_search_stop_it() -> None:
    played = play(make_search(BestEver(), sweeps=3), CountingEvaluator(), Limits(evaluations=1000))
    assert played.stopped.reason == "sweeps"
    assert played.stopped.cost.evaluations == 3 * LAYERS * 5


@pytest.mark.parametrize("visit", [2, 3])
def test_a_sweep_has_so_many_generations_of_each_block(visit: int) -> None:
    search = make_search(BestEver(), sweeps=3, visit=visit)
    played = play(search, CountingEvaluator(), Limits(evaluations=1000))
    assert played.stopped.reason == "sweeps"
    assert [event.layers[0] for event in played.events if event.layers] == 3 * (visit * [0] + visit * [1])


def test_a_search_that_has_converged_stops() -> None:
    played = play(make_search(BestEver(), name="cma"), CountingEvaluator(), Limits(evaluations=20_000))
    assert played.stopped.reason == "converged"
    assert played.stopped.cost.evaluations < 20_000


@pytest.mark.parametrize(("limit", "value"), [("examples", DEV - 1), ("layer_forwards", DEV * DEPTH - 1)])
def test_a_budget_that_does_not_hold_one_judgement_scores_nothing(limit: str, value: int) -> None:
    evaluator = CountingEvaluator()
    played = play(make_search(Improves()), evaluator, Limits(**{limit: value}))
    assert (played.stopped.reason, played.stopped.cost) == (f"budget.{limit}", Cost())
    assert evaluator.examples == 0
    assert not played.stopped.z.any()


@pytest.mark.parametrize("late", [0.0, 0.75])
@pytest.mark.parametrize(("seconds", "in_hand"), [(0.5, "dev"), (9.0, "train"), (13.5, "dev"), (20.5, "train")])
def test_the_budget_of_seconds_ends_inside_a_generation(
    seconds: float, in_hand: Split, late: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``late`` is what others take between two calls; it is part of the budget, too."""
    evaluator = CountingEvaluator(loss=lambda z: -float(np.abs(z).sum()))
    monkeypatch.setattr("bbtune.loop.time", SimpleNamespace(monotonic=lambda: evaluator.now))
    search, stopped = make_search(Improves()), None
    for event in run_search(search, evaluator, Ledger(Limits(seconds=seconds), SIZES)):
        if isinstance(event, Stopped):
            stopped = event
        else:
            evaluator.now += late
    assert stopped is not None
    assert stopped.reason == "budget.seconds"
    assert evaluator.now <= max(seconds, stopped.cost.seconds + late)
    assert stopped.cost.seconds <= seconds
    assert stopped.cost.evaluations == len(evaluator.train)
    if not late:
        assert evaluator.cut == [in_hand]
    assert not stopped.z.any() or any(np.array_equal(stopped.z, z) for z in evaluator.dev)


def test_seconds_that_are_used_up_exactly_stop_before_the_next_call(monkeypatch: pytest.MonkeyPatch) -> None:
    evaluator = CountingEvaluator(loss=lambda z: 1.0)
    monkeypatch.setattr("bbtune.loop.time", SimpleNamespace(monotonic=lambda: evaluator.now))
    played = play(make_search(Improves()), evaluator, Limits(seconds=7.0))  # judgement, start, five candidates
    assert played.stopped.reason == "budget.seconds"
    assert played.stopped.cost == Cost(6, 6 * TRAIN + DEV, (6 * TRAIN + DEV) * DEPTH, 7.0)
    assert evaluator.cut == []


def test_without_a_limit_of_seconds_there_is_no_deadline() -> None:
    assert Ledger(Limits(evaluations=5), SIZES).deadline() is None
