"""Derivative-free Gauss-Newton in random subspaces, on the label logits of every example.

Cartis and Roberts 2023, "Scalable subspace methods for derivative-free nonlinear least-squares optimization", with the
task's own convex loss in the place of the squares, and directions that lie in one layer, or a few, each.
"""

from __future__ import annotations

import numpy as np

from bbtune.errors import OptimizerError
from bbtune.objective import Subset
from bbtune.optimizers.base import Array, AskTell, Told, Upcoming
from bbtune.optimizers.logit_model import LogitModel
from bbtune.optimizers.structure import Structure

_PROBE, _LONGEST_PROBE = 0.03, 0.3  # length of a probe, in units of a direction
_RADIUS, _LEAST_RADIUS = 0.5, 1e-3  # of the first steps, and of the last
_SHARES = np.array([2.0, 1.0, 0.5])  # of the radius, that the steps tried are long
_SHRINK = 0.125  # where no step lowers the loss
_RADIUS_ANEW = 0.06  # at least, where longer probes may see what shorter ones did not
_PROBES_OF_A_PART = 5  # at least, on average: fewer would leave workers idle


class GaussNewton(AskTell):
    """Probes random directions around the centre, then tries three steps of the linear model of the logits.

    The centre is scored first, alone. One iteration has a generation of probes for each part of the layers, bottom-up,
    and one of steps. Probes ``centre + 0.03 u``, where u is random in the part and 0 elsewhere, tell how every label
    logit changes along u. They cost less in upper layers; each part gets of the ``population_size`` probes in
    proportion to ``sqrt(slope^2 / cost)``, with the slope of the loss that the last iteration saw there. Then the
    minimisers of the loss of the linearised logits within twice, once and half the trust radius are scored for real.
    The best becomes the centre if it lowers the loss, and its length the radius. Otherwise the radius shrinks to an
    eighth, and is tried once more; failing again, new probes are twice as long, and half as long again after a success:
    rounding hides the slopes from short ones.

    With ``structure.probe_examples`` the probes of an iteration are scored on so many random examples, in proportion to
    the labels, and the model is of their loss; steps are always scored on all. Failing twice, the next probes see twice
    as many.

    Raises:
        OptimizerError: without a structure, or when told scores without label logits.
    """

    uses_logits = True

    def __init__(
        self,
        dim: int,
        population_size: int,
        sigma: float,
        rng: np.random.Generator,
        structure: Structure | None = None,
    ) -> None:
        super().__init__(dim, population_size, sigma, rng, structure)
        if structure is None:
            raise OptimizerError(
                "gauss-newton needs the labels of the train examples, got none; pass structure to make_optimizer()"
            )
        self._objective, self._l2 = structure.objective, structure.l2
        self._origin = np.zeros(dim) if structure.origin is None else structure.origin
        self._examples = structure.probe_examples or len(structure.objective.labels)
        layers = np.arange(len(structure.costs))
        parts = np.array_split(layers, max(1, min(len(layers), population_size // _PROBES_OF_A_PART)))
        width = dim // len(layers)
        self._firsts = [int(part[0]) for part in parts]
        self._spans = [slice(int(part[0]) * width, (int(part[-1]) + 1) * width) for part in parts]
        self._costs = np.array(structure.costs)[self._firsts]
        self._counts = _shared_out(population_size, np.ones(len(parts)))
        self._part = 0  # to be probed next; the number of parts while steps are tried
        self._probe, self._radius = _PROBE, _RADIUS
        self._centre, self._loss = np.zeros(dim), np.inf
        self._logits: Array | None = None  # (N, C) at the centre
        self._directions: list[Array] = []  # (m_g, D) of each part
        self._slopes: list[Array] = []  # (N, C, m_g) of each part
        self._steps, self._lengths = np.empty((0, dim)), np.empty(0)  # (k, D), and in units of a direction (k,)
        self._second_try = False
        self._subset = self._drawn_examples()  # that probes are scored on

    @property
    def upcoming(self) -> Upcoming:
        """What the next generation will be: at first the centre alone; then probes of a part, or steps."""
        if self._logits is None:
            return Upcoming(1)
        if self._trying:
            return Upcoming(len(self._steps))
        return Upcoming(self._counts[self._part], self._firsts[self._part], True, self._subset)

    @property
    def _trying(self) -> bool:
        """Whether all parts are probed, so that steps are to be tried."""
        return self._part == len(self._spans)

    def stop_reasons(self) -> dict[str, object]:
        """The trust radius, once steps so short change nothing, and the longest probes on all examples see no other."""
        done = self._radius < _LEAST_RADIUS and self._probe >= _LONGEST_PROBE and self._subset is None
        return {"radius": self._radius} if done and not self._trying else {}

    def _ask(self) -> Array:
        if self._logits is None:
            return self._centre[None]
        if self._trying:
            return self._centre + self._steps
        span = self._spans[self._part]
        directions = np.zeros((self._counts[self._part], self.dim))
        width = span.stop - span.start
        scale = self.sigma * np.sqrt(self.dim / width)  # directions are equally long in all parts
        directions[:, span] = scale * self._rng.standard_normal((len(directions), width))
        self._directions.append(directions)
        return self._centre + self._probe * directions

    def _tell(self, asked: Array, scores: Told, loss: Array) -> None:
        if scores.logits is None or not np.isfinite(scores.logits).all():
            got = "none" if scores.logits is None else "some that are not finite"
            raise OptimizerError(f"gauss-newton needs label logits (P, N, C), all finite, got {got}; use spsa")
        logits = np.asarray(scores.logits, dtype=np.float64)
        if self._logits is None:
            self._logits, self._loss = logits[0], float(loss[0])
            return
        if self._trying:
            self._move(asked, logits, loss, self._logits)
            return
        seen = self._seen(self._logits)
        self._slopes.append(((logits - seen) / self._probe).transpose(1, 2, 0))
        self._part += 1
        if self._trying:
            self._share_probes(seen)
            self._plan_steps(seen)

    def _seen(self, logits: Array) -> Array:
        """Of the label logits (N, C), those of the examples that probes are scored on."""
        return logits if self._subset is None else logits[list(self._subset)]

    def _drawn_examples(self) -> Subset | None:
        """Examples for the probes of an iteration; None for all."""
        labels = self._objective.labels
        if self._examples >= len(labels):
            return None
        order = self._rng.permutation(len(labels))
        order = order[np.argsort(labels[order], kind="stable")]
        places = (np.arange(self._examples) + self._rng.random()) * len(labels) / self._examples
        return tuple(sorted(int(i) for i in order[places.astype(int)]))

    def _share_probes(self, logits: Array) -> None:
        """Of the next iteration: more for parts where the loss is steep and candidates are cheap."""
        objective = self._objective.of(self._subset)
        steepness = [(objective.expanded(logits, s)[0] ** 2).mean() for s in self._slopes]
        self._counts = _shared_out(sum(self._counts), np.sqrt(np.array(steepness) / self._costs))

    def _plan_steps(self, logits: Array) -> None:
        objective = self._objective.of(self._subset)
        directions = np.concatenate(self._directions)
        slopes = np.ascontiguousarray(np.concatenate(self._slopes, axis=2))
        square = self._l2 / (self.dim * self.sigma**2) * directions
        model = LogitModel(objective, logits, slopes, square @ (self._origin + self._centre), square @ directions.T)
        found = model.minima(_SHARES * self._radius)
        self._lengths = np.linalg.norm(found, axis=1)
        self._steps = found @ directions

    def _move(self, asked: Array, logits: Array, loss: Array, centre: Array) -> None:
        """Take the best step, if it is better than the centre, whose label logits are ``centre``."""
        winner = int(loss.argmin())
        if loss[winner] < self._loss:
            self._radius = float(self._lengths[winner])
            self._probe = max(self._probe / 2, _PROBE)
            self._centre, self._logits, self._loss = asked[winner], logits[winner], float(loss[winner])
        else:
            self._radius *= _SHRINK
            if not self._second_try:
                self._second_try = True
                self._plan_steps(self._seen(centre))
                return
            if self._probe < _LONGEST_PROBE or self._subset is not None:
                self._radius = max(self._radius, _RADIUS_ANEW)
            self._probe = min(2 * self._probe, _LONGEST_PROBE)
            self._examples *= 2
        self._second_try = False
        self._part, self._directions, self._slopes = 0, [], []
        self._subset = self._drawn_examples()


def _shared_out(count: int, weights: Array) -> list[int]:
    """``count`` things in proportion to weights (G,), at least one each; all equal where all weights are 0."""
    weights = weights / weights.sum() if weights.sum() > 0 else np.full(len(weights), 1 / len(weights))
    wanted = 1 + (count - len(weights)) * weights
    shares = np.floor(wanted).astype(int)
    for i in np.argsort(shares - wanted, kind="stable")[: count - shares.sum()]:
        shares[i] += 1
    return [int(share) for share in shares]
