"""Our searches on any function of numbers: no model, no job, no folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from bbtune.build import Terms
from bbtune.cost import Sizes
from bbtune.errors import OptimizerError, did_you_mean
from bbtune.evaluation.base import Scores, Split
from bbtune.jobfile import faults_in
from bbtune.journal import array_digest
from bbtune.loop import Generation, Ledger, Limits, run_search
from bbtune.objective import Subset
from bbtune.optimizers import check_optimizer_name
from bbtune.optimizers.base import Array, read_only
from bbtune.optimizers.own import MakeOptimizer, own_name
from bbtune.prompt_spec import MethodSpec
from bbtune.selection import Selection

Function = Callable[[Array], NDArray[Any]]
_SETTINGS = ("population", "sigma", "blocks", "schedule", "generations_per_visit", "restarts")
_NEEDS_MORE = ("auto", "gauss-newton")  # than losses
_LOSSES_ALONE = "expected an optimizer that needs losses alone, such as cma-diagonal"


@dataclass(frozen=True, eq=False)
class Minimum:
    """The end of a search on a function.

    Attributes:
        z: (L, D), the best point that was scored.
        loss: there.
        evaluations: points that were scored.
        stop_reason: ``budget.evaluations``, or why the search ended before.
        history: of every generation, (evaluations so far, lowest loss so far).
    """

    z: Array
    loss: float
    evaluations: int
    stop_reason: str
    history: tuple[tuple[int, float], ...]


def minimize(
    function: Function,
    *,
    dim: int,
    evaluations: int,
    layers: int = 1,
    optimizer: str | MakeOptimizer = "cma-diagonal",
    seed: int = 0,
    **settings: Any,
) -> Minimum:
    """Minimise a function by a search as jobs have it: the starting point 0 first, then generations around it.

    Args:
        function: from points (P, L, D), read-only, to their losses (P,); the same point should have the same loss.
        dim: D, numbers of a layer.
        evaluations: points that are scored at the most, the starting point among them.
        layers: L; each is searched in turn by an optimizer of its own, or with ``blocks="joint"`` all by one.
        optimizer: as ``method.optimizer`` of a job (``auto`` and ``gauss-newton`` need more than losses), or a class
            of yours, of (dim, population, sigma, rng), such as one derived from :class:`bbtune.AskTell`.
        seed: of everything random.
        settings: ``population``, ``sigma``, ``blocks``, ``schedule``, ``generations_per_visit`` and ``restarts``, as
            in the ``method`` of a job.

    Raises:
        OptimizerError: for an unknown optimizer or setting, a number out of its range, a function that gives anything
            but P finite losses, or an optimizer that stops before it has begun.
    """
    method, own = _method(optimizer, settings)
    _check(1, dim=dim, layers=layers, evaluations=evaluations)
    _check(0, seed=seed)
    if not callable(function):
        raise OptimizerError(f"expected a function of points (P, L, D), got {function!r:.80}")
    sizes = Sizes(1, 1, tuple(range(layers)), layers)
    search = Terms(method, dim, seed, evaluations, own).search(sizes)
    if search.uses_logits:
        raise OptimizerError(f"{method.optimizer}: {_LOSSES_ALONE}, got one that uses label logits")
    selection = Selection(search.incumbent, "loss")
    ledger = Ledger(Limits(evaluations=evaluations), sizes)
    history = []
    for event in run_search(search, _Scored(function), ledger, selection):
        if isinstance(event, Generation):
            if event.best_loss is not None:
                history.append((event.cost.evaluations, event.best_loss))
            continue
        if len(history) < 2:
            need = f"evaluations: expected at least a start and a generation, {1 + search.upcoming.size}"
            stopped = f"{method.optimizer}: expected a generation, got a reason to stop before the first"
            enough = event.reason != "budget.evaluations"
            raise OptimizerError(stopped if enough else f"{need}, got {evaluations}")
        return Minimum(read_only(event.z), event.dev.loss, event.cost.evaluations, event.reason, tuple(history))
    raise OptimizerError("the search ended without a reason; please report this")


class _Scored:
    """The function as an evaluator; a point that was scored is not scored again."""

    def __init__(self, function: Function) -> None:
        self._function = function
        self._known: dict[str, float] = {}

    def evaluate(
        self, z: Array, split: Split, deadline: float | None = None, first: int = 0, subset: Subset | None = None
    ) -> Scores:
        """Losses of z (P, L, D); there is one split."""
        names = [array_digest(point) for point in z]
        if unknown := [i for i, name in enumerate(names) if name not in self._known]:
            losses = self._losses(z[unknown])
            self._known.update(zip([names[i] for i in unknown], losses, strict=True))
        loss = np.array([self._known[name] for name in names])
        return Scores(loss, -loss, None, len(z), len(z))

    def _losses(self, z: Array) -> list[float]:
        """Losses of points that are not known yet."""
        given = self._function(read_only(z))
        expected = f"losses (P,) = ({len(z)},) of points (P, L, D) = {z.shape}, all finite numbers"
        try:
            losses = np.asarray(given)
        except ValueError as error:  # of rows that differ in length
            raise OptimizerError(f"the function: expected {expected}, got {given!r:.80}") from error
        if losses.shape != (len(z),) or losses.dtype.kind not in "iuf" or not np.isfinite(losses).all():
            raise OptimizerError(f"the function: expected {expected}, got {losses!r:.80} of shape {losses.shape}")
        return [float(loss) for loss in losses]


def _method(optimizer: str | MakeOptimizer, settings: Mapping[str, Any]) -> tuple[MethodSpec, MakeOptimizer | None]:
    """How the search works, and the user's optimizer where it is one."""
    for name in settings:
        if name not in _SETTINGS:
            raise OptimizerError(
                f"expected settings among {', '.join(_SETTINGS)}, got {name!r}{did_you_mean(name, _SETTINGS)}"
            )
    own = None if isinstance(optimizer, str) else optimizer
    named = optimizer if isinstance(optimizer, str) else own_name(optimizer)
    if named in _NEEDS_MORE:
        raise OptimizerError(f"{_LOSSES_ALONE}, got {named}")
    if own is None:
        check_optimizer_name(named)
    try:
        return MethodSpec.model_validate({**settings, "optimizer": named}), own
    except ValidationError as error:
        raise OptimizerError("; ".join(str(fault) for fault in faults_in(error, MethodSpec))) from error


def _check(least: int, **numbers: object) -> None:
    """Refuse anything but whole numbers that are large enough."""
    for name, number in numbers.items():
        if isinstance(number, bool) or not isinstance(number, int | np.integer) or number < least:
            raise OptimizerError(f"{name}: expected a whole number, at least {least}, got {number!r:.80}")
