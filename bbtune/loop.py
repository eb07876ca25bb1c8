"""The run loop. It exists once, and yields what happened; saving, showing and tracking consume it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bbtune.cost import Sizes, Spent
from bbtune.errors import BudgetReached, DeadlineReached
from bbtune.evaluation.base import Evaluator, Scores
from bbtune.optimizers.base import Upcoming
from bbtune.search import Search
from bbtune.selection import Judged, Selection

_NOTHING = Upcoming(0)


@dataclass(frozen=True)
class Limits:
    """Hard limits of a search; None is no limit."""

    evaluations: int | None = None
    examples: int | None = None
    layer_forwards: int | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class Cost:
    """What a method has used before the test split.

    Attributes:
        evaluations: candidates scored on the train split; of gradient descent, passes over it.
        examples: texts run through the model, train and dev.
        layer_forwards: texts times layers that ran.
        seconds: of the clock.
        backward_examples: texts that a gradient was taken of.
        requests, cached, input_tokens, output_tokens, dollars: as in :class:`bbtune.cost.Spent`.
    """

    evaluations: int = 0
    examples: int = 0
    layer_forwards: int = 0
    seconds: float = 0.0
    backward_examples: int = 0
    requests: int = 0
    cached: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    dollars: float = 0.0


@dataclass(frozen=True)
class Generation:
    """What one turn of the loop did.

    Attributes:
        number: of calls on the train split so far; the first may be of the starting point alone.
        layers: that were searched, none before the first and at the starting point.
        loss: lowest train loss of this generation, None where not all examples were scored; best_loss of all so far,
            None before the first.
        dev: of the incumbent, None where it is the same as before.
        dev_metric: of the selected incumbent.
    """

    number: int
    layers: tuple[int, ...]
    cost: Cost
    unix_ms: int
    loss: float | None
    best_loss: float | None
    train_metric: float | None
    dev: Judged | None
    dev_metric: float


@dataclass(frozen=True)
class Stopped:
    """The end: the reason, and the selected z (L, D) with its dev scores."""

    reason: str
    cost: Cost
    z: NDArray[np.float64]
    dev: Judged


class Ledger:
    """The one place where cost is counted and limits are held.

    Args:
        limits: of the search.
        sizes: of the splits and the model.
        began: reading of :func:`time.monotonic` from which the seconds count; None is now.
    """

    def __init__(self, limits: Limits, sizes: Sizes, began: float | None = None) -> None:
        self._limits = limits
        self._sizes = sizes
        self._began = time.monotonic() if began is None else began
        self._spent = Spent()
        self.cost = Cost()

    def spend(self, scores: Scores, evaluations: int) -> None:
        """Add what a call cost."""
        cost = self.cost
        self._spent += scores.spent
        self.cost = Cost(
            evaluations=cost.evaluations + evaluations,
            examples=cost.examples + scores.examples,
            layer_forwards=cost.layer_forwards + scores.layer_forwards,
            seconds=scores.elapsed_s,
            **asdict(self._spent),
        )

    def spend_all_seconds(self) -> None:
        """Count the generation that the deadline cut off: it used up the seconds, though nothing came of it."""
        self.cost = replace(self.cost, seconds=self._limits.seconds or self.cost.seconds)

    def refusal(self, generation: Upcoming = _NOTHING) -> str | None:
        """The limit that a generation, and a judgement after it, would break; without one, the judgement alone."""
        cost, limits, sizes = self.cost, self._limits, self._sizes
        texts = sizes.train if generation.subset is None else len(generation.subset)
        if limits.evaluations is not None and cost.evaluations + generation.size > limits.evaluations:
            return "budget.evaluations"
        examples = generation.size * texts + sizes.dev
        if limits.examples is not None and cost.examples + examples > limits.examples:
            return "budget.examples"
        forwards = sizes.layer_forwards(texts, generation.size, generation.first) + sizes.layer_forwards(sizes.dev, 1)
        if limits.layer_forwards is not None and cost.layer_forwards + forwards > limits.layer_forwards:
            return "budget.layer_forwards"
        if limits.seconds is not None and cost.seconds >= limits.seconds:
            return "budget.seconds"
        return None

    def deadline(self) -> float | None:
        """When the seconds end, on the clock of :func:`time.monotonic`."""
        return None if self._limits.seconds is None else self._began + self._limits.seconds


def run_search(
    search: Search, evaluator: Evaluator, ledger: Ledger, selection: Selection | None = None
) -> Iterator[Generation | Stopped]:
    """Ask, score, tell; judge every new incumbent on dev; until a limit, the search or the selection says stop."""
    selection = selection or Selection(search.incumbent)
    best_loss: float | None = None
    number, best, metric = 0, None, None
    layers: tuple[int, ...] = ()
    reason = ledger.refusal()  # the starting point must be judged, too
    try:
        while reason is None:
            judged = None
            if (found := selection.next(search.incumbent)) is not None:
                z, first = found
                scores = evaluator.evaluate(z[None], "dev", ledger.deadline(), first)
                ledger.spend(scores, evaluations=0)
                judged = selection.judge(z, scores)
            yield Generation(
                number, layers, ledger.cost, scores.unix_ms, best, best_loss, metric, judged, selection.best.metric
            )
            reason = next(iter(search.stop_reasons()), None) or selection.stop_reason()
            reason = reason or ledger.refusal(search.upcoming)
            if reason is not None:
                break
            proposal = search.ask()
            scores = evaluator.evaluate(proposal.z, "train", ledger.deadline(), proposal.first, proposal.subset)
            search.tell(proposal, scores)
            ledger.spend(scores, evaluations=len(proposal.z))
            number, layers = number + 1, proposal.layers
            best, metric = None, None
            if proposal.subset is None:
                best, metric = float(scores.loss.min()), float(scores.metric[scores.loss.argmin()])
                best_loss = best if best_loss is None else min(best, best_loss)
    except DeadlineReached:
        reason = "budget.seconds"
        ledger.spend_all_seconds()
    except BudgetReached as error:
        reason = error.reason
    yield Stopped(reason, ledger.cost, selection.z, selection.best)
