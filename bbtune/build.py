"""The search that a job describes, put together, its limits, and what it did by its records."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from bbtune.cost import Sizes
from bbtune.fused import FusedSearch
from bbtune.journal import EndOfRecord, Record, Recorded
from bbtune.loop import Generation, Ledger, Limits, run_search
from bbtune.objective import Objective
from bbtune.optimizers import make_optimizer
from bbtune.optimizers.base import Array, Optimizer
from bbtune.optimizers.restarts import Restarts
from bbtune.optimizers.structure import Structure
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


def make_search(spec: JobSpec, sizes: Sizes, labels: NDArray[np.int64]) -> Search:
    """The search that a job describes.

    Args:
        sizes: of the splits and the model.
        labels: (N,) of the train examples.
    """
    count = spec.method.members
    members = [_member(spec, sizes, labels, member) for member in range(count)]
    return FusedSearch(members) if count > 1 else members[0]


def _member(spec: JobSpec, sizes: Sizes, labels: NDArray[np.int64], member: int) -> BlockSearch:
    """One search of a job; the first has the seeds that a search alone has."""
    method, layers = spec.method, sorted(sizes.layers)
    blocks = [[layer] for layer in layers] if method.blocks == "layerwise" else [layers]
    extra = ("member", member) if member else ()

    def make(block: int, size: int) -> Optimizer:
        costs = tuple(sizes.depth - layer for layer in blocks[block])

        def anew(restart: int, origin: Array | None = None) -> Optimizer:
            structure = Structure(Objective(labels, method.loss), costs, method.l2, method.probe_examples, origin)
            rng = generator(spec.seed, "optimizer", block, *([restart] if restart else []), *extra)
            return make_optimizer(method.optimizer, size, method.population, method.sigma, rng, structure)

        return Restarts(anew, method.restarts) if method.restarts else anew(0)

    accept = Improves(method.scores_start) if method.accept == "improves" else BestEver()
    pull = Pull(method.l2, method.sigma) if method.l2 else None
    dim = spec.prompt.intrinsic_dim
    return BlockSearch(blocks, dim, make, accept, _schedule(spec, len(blocks), accept, extra), pull)


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


def _schedule(spec: JobSpec, blocks: int, accept: Accept, member: tuple[str | int, ...]) -> Schedule:
    """Whose turn it is in the search of a job."""
    method, evaluations = spec.method, spec.budget.evaluations
    visit = method.generations_per_visit
    if method.schedule == "recent-gain":
        return RecentGain(blocks, visit, generator(spec.seed, "schedule", *member))
    if method.schedule == "whole-sweeps" and evaluations is not None:
        sweeps = (evaluations // method.members - int(accept.needs_start)) // (method.population * visit * blocks)
        return WholeSweeps(blocks, visit, sweeps=sweeps)
    return RoundRobin(blocks, visit)
