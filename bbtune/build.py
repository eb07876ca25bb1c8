"""The search that a job describes, put together, its limits, and what it did by its records."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bbtune.cost import Sizes
from bbtune.errors import OptimizerError
from bbtune.fused import FusedSearch
from bbtune.journal import EndOfRecord, Record, Recorded
from bbtune.loop import Generation, Ledger, Limits, run_search
from bbtune.objective import Objective
from bbtune.optimizers import make_optimizer
from bbtune.optimizers.base import Array, Optimizer
from bbtune.optimizers.own import MakeOptimizer, is_own, make_own
from bbtune.optimizers.restarts import Restarts
from bbtune.optimizers.structure import Structure
from bbtune.prompt_spec import MethodSpec
from bbtune.run_spec import MONEY
from bbtune.schedule import RecentGain, RoundRobin, Schedule, WholeSweeps
from bbtune.search import Accept, BestEver, BlockSearch, Improves, Pull, Search
from bbtune.seeds import generator
from bbtune.selection import Selection
from bbtune.spec import BaseJob, JobSpec, TextJob
from bbtune.text_search import make_text_search as search_by_name
from bbtune.text_search.choices import Choices
from bbtune.text_search.minibatch import Minibatches
from bbtune.text_search.writer import Writer


def limits(spec: BaseJob) -> Limits:
    """The limits of a job."""
    return Limits(**spec.budget.model_dump(exclude=MONEY))


@dataclass(frozen=True)
class Terms:
    """What a search of real numbers is built from, whatever it is that scores them.

    Attributes:
        dim: D, numbers per layer.
        seed: of everything random.
        evaluations: that there will be at most, where that is known.
        own: the user's optimizer, where ``method.optimizer`` names one.
    """

    method: MethodSpec
    dim: int
    seed: int
    evaluations: int | None = None
    own: MakeOptimizer | None = None

    def search(self, sizes: Sizes, labels: NDArray[np.int64] | None = None) -> Search:
        """The search.

        Args:
            sizes: of the splits and the model.
            labels: (N,) of the train examples, where label logits are to be had of them.

        Raises:
            OptimizerError: if the optimizer is the user's and not here, or needs the labels.
        """
        count = self.method.members
        members = [self._member(sizes, labels, member) for member in range(count)]
        return FusedSearch(members) if count > 1 else members[0]

    def _member(self, sizes: Sizes, labels: NDArray[np.int64] | None, member: int) -> BlockSearch:
        """One search of several; the first has the seeds that a search alone has."""
        method, layers = self.method, sorted(sizes.layers)
        blocks = [[layer] for layer in layers] if method.blocks == "layerwise" else [layers]
        extra = ("member", member) if member else ()
        objective = None if labels is None else Objective(labels, method.loss)

        def make(block: int, size: int) -> Optimizer:
            costs = tuple(sizes.depth - layer for layer in blocks[block])

            def anew(restart: int, origin: Array | None = None) -> Optimizer:
                rng = generator(self.seed, "optimizer", block, *([restart] if restart else []), *extra)
                if objective is None:
                    return self._optimizer(size, rng, None)
                structure = Structure(objective, costs, method.l2, method.probe_examples, origin)
                return self._optimizer(size, rng, structure)

            return Restarts(anew, method.restarts) if method.restarts else anew(0)

        accept = Improves(method.scores_start) if method.accept == "improves" else BestEver()
        pull = Pull(method.l2, method.sigma) if method.l2 else None
        return BlockSearch(blocks, self.dim, make, accept, self._schedule(len(blocks), accept, extra), pull)

    def _optimizer(self, size: int, rng: np.random.Generator, structure: Structure | None) -> Optimizer:
        """An optimizer of so many numbers."""
        method = self.method
        if self.own is not None:
            return make_own(self.own, size, method.population, method.sigma, rng)
        if is_own(method.optimizer):
            raise OptimizerError(f"{method.optimizer} is an object of a program; give it, in Python, as optimizer=...")
        return make_optimizer(method.optimizer, size, method.population, method.sigma, rng, structure)

    def _schedule(self, blocks: int, accept: Accept, member: tuple[str | int, ...]) -> Schedule:
        """Whose turn it is."""
        method, evaluations = self.method, self.evaluations
        visit = method.generations_per_visit
        if method.schedule == "recent-gain":
            return RecentGain(blocks, visit, generator(self.seed, "schedule", *member))
        if method.schedule == "whole-sweeps" and evaluations is not None:
            sweeps = (evaluations // method.members - int(accept.needs_start)) // (method.population * visit * blocks)
            return WholeSweeps(blocks, visit, sweeps=sweeps)
        return RoundRobin(blocks, visit)


def make_search(spec: JobSpec, sizes: Sizes, labels: NDArray[np.int64], own: MakeOptimizer | None = None) -> Search:
    """The search that a job describes.

    Args:
        sizes: of the splits and the model.
        labels: (N,) of the train examples.
        own: the user's optimizer, where the job names one.
    """
    return Terms(spec.method, spec.prompt.intrinsic_dim, spec.seed, spec.budget.evaluations, own).search(sizes, labels)


def make_text_search(spec: TextJob, choices: Choices, train: int, writer: Writer) -> Search:
    """The search of a prompt in words that a job describes.

    Args:
        choices: that candidates are made of.
        train: examples of the train split.
        writer: of new instructions.
    """
    method = spec.method
    search = search_by_name(method, choices, spec.seed, None if method.writer is None else writer)
    return search if method.minibatch is None else Minibatches(search, train, method.minibatch, spec.seed)


def replayed(spec: BaseJob, search: Search, sizes: Sizes, records: Sequence[Record]) -> list[Generation]:
    """The generations of a run, from its records alone.

    Args:
        search: of the run, as it was before its first generation.
        sizes: that decide what it cost.
        records: of its journal.
    """
    found: list[Generation] = []
    ledger, selection = Ledger(limits(spec), sizes), make_selection(spec, search)
    with suppress(EndOfRecord):
        for event in run_search(search, Recorded(None, list(records)), ledger, selection):
            if isinstance(event, Generation):
                found.append(event)
    return found


def make_selection(spec: BaseJob, search: Search) -> Selection:
    """What a job hands out of its search."""
    chosen = spec.selection
    return Selection(search.incumbent, chosen.by or "metric", chosen.average or 1, chosen.patience)
