"""Derivative-free Gauss-Newton in random subspaces, on the label logits of every example.

Cartis and Roberts 2023, "Scalable subspace methods for derivative-free nonlinear least-squares optimization", with the
task's own convex loss in the place of the squares.
"""

from __future__ import annotations

import numpy as np

from bbtune.errors import OptimizerError
from bbtune.objective import Objective
from bbtune.optimizers.base import Array, AskTell, Told
from bbtune.optimizers.logit_model import LogitModel

_PROBE = 0.03  # length of a probe, in units of a direction
_RADIUS = 0.5  # of the first steps
_SHARES = np.array([2.0, 1.0, 0.5])  # of the radius, that the steps tried are long
_SHRINK = 0.125  # where no step lowers the loss
_LEAST_RADIUS = 1e-3


class GaussNewton(AskTell):
    """Probes fresh random directions around the centre, then tries three steps of the linear model of the logits.

    Generations alternate. First ``population_size`` probes ``centre + 0.03 u``, u from N(0, sigma^2 I), tell how every
    label logit changes along each u (the first generation spends one on the centre itself). Then the minimisers of the
    loss of the linearised logits within twice, once and half the trust radius are scored for real; the best becomes
    the centre if it lowers the loss, and its length the radius; otherwise the radius shrinks to an eighth.

    Raises:
        OptimizerError: without an objective, or when told scores without label logits.
    """

    uses_logits = True

    def __init__(
        self,
        dim: int,
        population_size: int,
        sigma: float,
        rng: np.random.Generator,
        objective: Objective | None = None,
    ) -> None:
        super().__init__(dim, population_size, sigma, rng, objective)
        if objective is None:
            raise OptimizerError(
                "gauss-newton needs the labels of the train examples, got none; pass objective to make_optimizer()"
            )
        self._objective = objective  # not None, which the base class's may be
        self._probes = population_size
        self._radius = _RADIUS
        self._centre = np.zeros(dim)
        self._loss = np.inf
        self._logits: Array | None = None  # (N, C) at the centre
        self._directions = np.empty((0, dim))  # (m, D) of the last probes
        self._steps: Array | None = None  # (k, D) to be tried next
        self._lengths = np.empty(0)  # (k,) of them, in units of a direction

    @property
    def probing(self) -> bool:
        """Whether the candidates asked next are probes, which are not meant to be taken up."""
        return self._steps is None

    @property
    def population_size(self) -> int:
        """Candidates of the next generation: probes, or steps."""
        return self._probes if self._steps is None else len(self._steps)

    def stop_reasons(self) -> dict[str, object]:
        """The trust radius, once it is so small that no step changes anything."""
        return {"radius": self._radius} if self._radius < _LEAST_RADIUS else {}

    def _ask(self) -> Array:
        if self._steps is not None:
            return self._centre + self._steps
        known = self._logits is not None
        self._directions = self.sigma * self._rng.standard_normal((self._probes - (not known), self.dim))
        probes = self._centre + _PROBE * self._directions
        return probes if known else np.concatenate([self._centre[None], probes])

    def _tell(self, asked: Array, scores: Told, loss: Array) -> None:
        if scores.logits is None:
            raise OptimizerError("gauss-newton needs label logits (P, N, C), got scores without them; use another")
        logits = np.asarray(scores.logits, dtype=np.float64)
        if self._steps is not None:
            self._move(asked, logits, loss)
            return
        if self._logits is None:
            self._logits, self._loss, logits = logits[0], float(loss[0]), logits[1:]
        slopes = ((logits - self._logits) / _PROBE).transpose(1, 2, 0)
        found = LogitModel(self._objective, self._logits, slopes).minima(_SHARES * self._radius)
        self._lengths, self._steps = np.linalg.norm(found, axis=1), found @ self._directions

    def _move(self, asked: Array, logits: Array, loss: Array) -> None:
        """Take the best step, if it is better than the centre."""
        winner, self._steps = int(loss.argmin()), None
        if loss[winner] < self._loss:
            self._radius = float(self._lengths[winner])
            self._centre, self._logits, self._loss = asked[winner], logits[winner], float(loss[winner])
        else:
            self._radius *= _SHRINK
