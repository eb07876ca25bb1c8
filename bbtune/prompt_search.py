"""A search of a prompt as a method: candidates are scored on a pool, what was scored before comes from the journal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace

import numpy as np
from numpy.typing import NDArray

from bbtune.backbone.frozen import DTYPES
from bbtune.backbone.products import fastest_product
from bbtune.build import limits, make_search, make_selection, replayed
from bbtune.cost import Sizes, Spent
from bbtune.evaluation.account import Account
from bbtune.evaluation.base import Pool
from bbtune.evaluation.evaluator import PromptEvaluator
from bbtune.evaluation.local import LocalPool
from bbtune.evaluation.ray_pool import RayPool
from bbtune.evaluation.shared_pool import SharedPool
from bbtune.evaluation.wire import WirePool
from bbtune.forecast import Volume
from bbtune.forecast_embeddings import held_back_for_embeddings
from bbtune.journal import Journal, Record, Recorded
from bbtune.loop import Generation, Ledger, Stopped, run_search
from bbtune.method import Fitted, LabelMethod
from bbtune.optimizers.own import MakeOptimizer
from bbtune.prompts.space import layer_scales
from bbtune.search import Search
from bbtune.search_plan import SearchPlan
from bbtune.spec import JobSpec
from bbtune.task.metrics import Metric
from bbtune.task.task import Example, label_array


class PromptSearch(LabelMethod):
    """The search of a plan.

    Args:
        plan: of the search.
        metric: of the task.
        journal: with its start record; what is measured and scored goes there.
        say: told of the path that the evaluators take.
        test: gives the size of the split for which the search leaves enough; asked where an API is paid.
        own: the user's optimizer, where the job names one.
    """

    def __init__(
        self,
        plan: SearchPlan,
        metric: Metric,
        journal: Journal,
        say: Callable[[str], None],
        test: Callable[[], Volume],
        own: MakeOptimizer | None = None,
    ) -> None:
        self._account = None if plan.spec.backbone.api is None else Account(plan.spec, journal.path.parent)
        if self._account is None:
            plan = replace(plan, product=_product(plan, journal))
        self._plan = plan
        self._metric = metric
        self._journal = journal
        self._say = say
        self._test = test
        self._own = own
        self._pool: Pool = make_pool(plan, self._account, say)
        self._tuned: tuple[PromptEvaluator, NDArray[np.float64]] | None = None

    def fit(self) -> Iterator[Generation | Fitted]:
        """The generations of the search."""
        plan, spec = self._plan, self._plan.spec
        # Before the clock runs, because it imports the optimizer's library.
        search = make_search(spec, plan.sizes, label_array(plan.train), self._own)
        measured = self._calibration()
        self._describe()
        scales = layer_scales(np.array(measured["stds"]), spec.method.alpha, spec.method.sigma)
        evaluator = PromptEvaluator(self._pool, plan, self._metric, scales, measured["together"], self.paid)
        if self._account is not None:
            self._account.purse.hold_back(held_back_for_embeddings(plan, self._test()))
        for event in self._events(search, evaluator):
            if isinstance(event, Generation):
                yield event
                continue
            self._tuned = evaluator, event.z
            cost = event.cost
            if self._account is not None:
                self._account.purse.release_hold()
                cost = replace(cost, **asdict(self.paid()))  # what was lost on the way, too
            yield Fitted(event.reason, cost, {"z": event.z, "scales": scales}, event.z.size)

    def label_logits(self, examples: Sequence[Example]) -> NDArray[np.float32]:
        """Label logits (N, C) under the prompt that was handed out."""
        evaluator, z = self._found()
        return evaluator.label_logits(z, examples)

    def untouched(self, examples: Sequence[Example]) -> NDArray[np.float32]:
        """Label logits (N, C) of the model with the instruction in words."""
        return self._found()[0].label_logits(None, examples)

    def peak_memory_mib(self) -> float:
        """Of the worker that has used most."""
        return float(max(self._pool.each("peak_memory_mib"), default=0.0))

    def paid(self) -> Spent:
        """What an API was paid so far, in all sessions of the run."""
        return Spent() if self._account is None else self._account.purse.spent()

    def close(self) -> None:
        """End the pool."""
        self._tuned = None  # it knows this search, and the two would hold the model until garbage is collected
        self._pool.close()
        if self._account is not None:
            self._account.close()

    def _found(self) -> tuple[PromptEvaluator, NDArray[np.float64]]:
        if self._tuned is None:
            raise ValueError("expected a search that was run first; call fit()")
        return self._tuned

    def _describe(self) -> None:
        """Say which path the evaluators take, and what memory; one answers for all."""
        if self._journal.find("stop") is None:
            if chosen := self._journal.records[0]["chosen"]:
                self._say(f"method auto: {chosen}")
            self._say(f"each evaluator: {self._pool.run('describe', [()])[0]}")

    def _calibration(self) -> Record:
        """Natural scales of the tuned layers and candidates per call, measured once in the life of a run."""
        if (record := self._journal.find("calibration")) is None:
            record = {
                "event": "calibration",
                "stds": self._pool.run("calibrate", [()])[0].tolist(),
                "together": int(self._pool.run("together", [()])[0]),
            }
            self._journal.append(record)
        return record

    def _events(self, search: Search, evaluator: PromptEvaluator) -> Iterator[Generation | Stopped]:
        plan = self._plan
        recorded = Recorded(evaluator, list(self._journal.records), self._journal, search.uses_logits)
        ledger = Ledger(limits(plan.spec), plan.sizes, recorded.began)
        return run_search(search, recorded, ledger, make_selection(plan.spec, search))


def make_pool(plan: SearchPlan, account: Account | None, say: Callable[[str], None]) -> Pool:
    """Where candidates are scored: behind an API, on Ray actors, or in this process.

    Args:
        account: that pays, where the job names an API.
        say: told what becomes of the actors.
    """
    spec = plan.spec
    if spec.backbone.api is not None and account is not None:
        return WirePool(plan, account.endpoint(spec.backbone.api, spec.evaluators.threads))
    if not spec.evaluators.count:
        return LocalPool(plan)
    return SharedPool(plan, say) if spec.evaluators.pool == "shared" else RayPool(plan, say)


def _product(plan: SearchPlan, journal: Journal) -> str:
    """The matrix product of all evaluators, measured once in the life of a run: others may round differently."""
    if (record := journal.find("product")) is None:
        spec = plan.spec
        device = "cpu" if spec.backbone.device == "cpu" else "cuda"
        name = fastest_product(DTYPES[spec.backbone.dtype], device, spec.evaluators.threads)
        record = {"event": "product", "name": name}
        journal.append(record)
    return str(record["name"])


def replayed_generations(
    spec: JobSpec, records: Sequence[Record], own: MakeOptimizer | None = None
) -> list[Generation]:
    """The generations of a search, from its records alone; of a job with everything chosen.

    Args:
        own: the user's optimizer, where the job names one.
    """
    start = records[0]
    labels = np.array(start["train_labels"], dtype=np.int64)
    sizes = Sizes(len(labels), start["dev_size"], tuple(start["layers"]), start["depth"])
    return replayed(spec, make_search(spec, sizes, labels, own), sizes, records)
