"""The frozen model and the prompts that are on it: texts of any of them in, label shares out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from bbtune.backbone.encoding import Row
from bbtune.backbone.mixed import Asked, Held
from bbtune.backbone.paths import choose_mixed
from bbtune.backbone.products import Products, fastest_product
from bbtune.errors import BackboneError, BbtuneError
from bbtune.evaluation.scorer import load_model
from bbtune.serving.offered import Offered
from bbtune.serving.runs import check_files, check_same
from bbtune.task.task import Example
from bbtune.tuned import Tuned

Shares = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Served:
    """A prompt on the model.

    Attributes:
        kind: ``"single"`` or ``"pair"``.
        task: name of the task that it was tuned on.
        metric, score: of the tuned prompt on the test split.
    """

    tuned: Tuned
    held: Held
    kind: str
    task: str
    metric: str
    score: float

    @property
    def labels(self) -> tuple[str, ...]:
        """C names."""
        return self.tuned.labels

    def row(self, example: Example) -> Row:
        """A text as the model reads it.

        Raises:
            BackboneError: if prompt and template leave no room for a text.
        """
        return self.tuned.encoder.row(example)


class Engine:
    """One model; not to be used by two threads at once.

    Args:
        first: a prompt of the model.
        threads: of a forward.

    Raises:
        BbtuneError: if the model cannot be read, or its files have changed since the run.
    """

    def __init__(self, first: Offered, threads: int) -> None:
        self.identity = first.model
        self._model = load_model(first.plan)
        torch.set_num_threads(threads)
        check_files(self._model.card, self.identity)
        weights = self._model.embeddings.dtype
        product = fastest_product(weights, self._model.device.type, threads)
        room = min(first.plan.spec.backbone.max_tokens, self._model.card.positions)
        self._path = choose_mixed(self._model, room, Products(product, weights))

    @property
    def path(self) -> str:
        """How texts go through the model, in words."""
        return self._path.name

    def check(self, offer: Offered, run: str) -> None:
        """Refuse a prompt that cannot be served here.

        Args:
            run: as it was named, for messages.

        Raises:
            BbtuneError: if it is of another model.
        """
        check_same(self.identity, offer.model, run)

    def serve(self, offer: Offered) -> Served:
        """Put a prompt that was checked on the model.

        Raises:
            BbtuneError: if what was learned does not fit it.
        """
        try:
            prompt = offer.on(self._model)
        except (ArithmeticError, LookupError, TypeError, ValueError, RuntimeError) as error:
            raise _damaged(offer.name, f"got arrays that do not fit ({type(error).__name__})") from error
        if not all(bool(layer.isfinite().all()) for layer in prompt.prompts.layers.values()):
            raise _damaged(offer.name, "got some that are not finite")
        held = self._path.hold(prompt.prompts, prompt.encoder)
        return Served(prompt, held, offer.plan.kind, offer.task, offer.metric, offer.score)

    @torch.inference_mode()
    def shares(self, asked: Sequence[tuple[Served, Example]]) -> list[Shares | BbtuneError]:
        """Each text's probabilities (C,) of its prompt's labels, in one forward; what is wrong where it has none."""
        found: list[Shares | BbtuneError] = [BbtuneError("")] * len(asked)
        rows: dict[int, Asked] = {}
        for i, (served, example) in enumerate(asked):
            try:
                rows[i] = Asked(served.held, served.row(example))
            except BackboneError as error:
                found[i] = error
        if rows:
            for i, share in zip(rows, self._read(list(rows.values()), [asked[i][0] for i in rows]), strict=True):
                found[i] = share
        return found

    def _read(self, rows: Sequence[Asked], under: Sequence[Served]) -> list[Shares]:
        """Probabilities by row; each prompt's head sees all of its texts at once."""
        states = self._path.states(rows)
        found: dict[int, Shares] = {}
        for served in dict.fromkeys(under):
            mine = [i for i, one in enumerate(under) if one is served]
            logits = served.tuned.head(states[mine]).double()
            found |= zip(mine, logits.softmax(dim=-1).cpu().numpy(), strict=True)
        return [found[i] for i in range(len(rows))]


def _damaged(name: str, got: str) -> BbtuneError:
    return BbtuneError(f"{name}: expected numbers that make a prompt of its model, {got}; restore the run's files")
