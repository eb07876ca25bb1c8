"""Baselines on features of the frozen model: what it says of a text before any label word is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import log_softmax

from bbtune.backbone.encoding import Encoder
from bbtune.backbone.frozen import FrozenModel
from bbtune.backbone.packing import chunks
from bbtune.baselines.untrained import Learned, Logits, Untrained, known
from bbtune.errors import BackboneError
from bbtune.evaluation.scorer import memory_in_words, sorted_rows
from bbtune.loop import Generation
from bbtune.method import Fitted
from bbtune.methods import ProbeSpec, settings_of
from bbtune.task.task import Example, label_array

_ROWS = 16  # of a batch, texts of like length
_NEVER = -1e4  # bias of a label that train has no example of
_STEPS = 10_000  # of L-BFGS at most; features of language models are not normalised

Head = tuple[NDArray[np.float32], NDArray[np.float32]]


@torch.inference_mode()
def pooled_features(model: FrozenModel, encoder: Encoder, examples: Sequence[Example]) -> NDArray[np.float32]:
    """One state (N, H) per text, in the order of the examples.

    Of a sentence encoder the mean state, L2-normalised; of a language model the one at the position that is read,
    behind the last norm.
    """
    rows, order = sorted_rows(encoder, examples)
    found = np.empty((len(rows), model.hidden_size), dtype=np.float32)
    with memory_in_words():
        for some in chunks(len(rows), _ROWS):
            batch = encoder.batch(rows[some])
            states = model.readout(batch, model.states(batch), 0).float()
            if model.card.kind == "sentence-encoder":
                states = torch.nn.functional.normalize(states, dim=-1)
            found[order[some]] = states.cpu().numpy()
    return found


def logistic_regression(features: NDArray[np.float32], labels: NDArray[np.int64], strength: float) -> Any:
    """scikit-learn's, fitted.

    Args:
        features: (N, H).
        labels: (N,), of two or more.
        strength: C, high for weak regularisation.
    """
    return import_sklearn().LogisticRegression(C=strength, max_iter=_STEPS).fit(features, labels)


def import_sklearn() -> Any:
    """scikit-learn's linear models, read where they are needed: an extra.

    Raises:
        BackboneError: if the library is not there.
    """
    try:
        import sklearn.linear_model
    except ImportError as error:
        raise BackboneError("this method needs scikit-learn; pip install bbtune[baselines]") from error
    return sklearn.linear_model


def head_of(fitted: Any, classes: int) -> Head:
    """Weight (C, H) and bias (C,) of a logistic regression of scikit-learn, so that logits are ``x @ weight.T + bias``.

    Two labels get a row each, where scikit-learn has one for their difference; labels without a train example are never
    the answer.
    """
    rows, offsets = np.asarray(fitted.coef_), np.asarray(fitted.intercept_)
    if len(rows) == 1:
        rows, offsets = np.concatenate([-rows, rows]) / 2, np.concatenate([-offsets, offsets]) / 2
    weight = np.zeros((classes, rows.shape[1]), dtype=np.float32)
    bias = np.full(classes, _NEVER, dtype=np.float32)
    weight[fitted.classes_], bias[fitted.classes_] = rows, offsets
    return weight, bias


class LogisticRegression(Untrained):
    """A linear classifier of :func:`pooled_features`, of the strengths the one that dev selects."""

    _head: Head | None = None

    def fit(self) -> Iterator[Generation | Fitted]:
        """One step per strength; texts run once for all.

        Raises:
            BackboneError: if scikit-learn is not there.
        """
        strengths = settings_of(self._plan.spec, ProbeSpec).strengths
        train, dev = self._plan.train, self._plan.dev
        import_sklearn()
        self._prepare()
        account, reason = self._open(), "done"
        labels, classes = label_array(train), len(self._plan.label_words)
        features = self._features((*train, *dev))
        account.spend(examples=self._price.examples)
        for number, strength in enumerate(strengths):
            work = partial(logistic_regression, features[: len(train)], labels, strength)
            if (found := self._unless_cut(account, number, work)) is None:
                reason = "budget.seconds"
                break
            head = head_of(found, classes)
            account.spend(evaluations=1)
            logs = log_softmax(logits_of(features, head).astype(np.float64), axis=-1)
            step = account.judge(logs[len(train) :], logs[: len(train)])
            if step.dev is not None and step.dev.selected:
                self._head = head
            yield step
        weight, bias = known(self._head)
        yield Fitted(reason, account.cost, {"weight": weight, "bias": bias}, weight.size + bias.size)

    def label_logits(self, examples: Sequence[Example]) -> Logits:
        """Label logits (N, C)."""
        return logits_of(self._features(examples), known(self._head))

    def restore(self, learned: Learned) -> None:
        """Take weight (C, H) and bias (C,)."""
        self._head = learned["weight"], learned["bias"]

    def _features(self, examples: Sequence[Example]) -> NDArray[np.float32]:
        """Features (N, H) of texts as zero-shot reads them."""
        return pooled_features(self._scorer.model, self._plan.encoder(self._card, with_prompt=False), examples)


def logits_of(features: NDArray[np.float32], head: Head) -> Logits:
    """Label logits (N, C) of features (N, H)."""
    weight, bias = head
    return np.asarray(features @ weight.T + bias, dtype=np.float32)
