"""Baselines without training: a constant, and the untouched model asked in several ways."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax, logsumexp

from bbtune.baselines.untrained import Learned, Logits, Untrained, in_chunks, known
from bbtune.evaluation.scorer import Head, label_head
from bbtune.loop import Generation
from bbtune.method import Fitted
from bbtune.methods import CalibrationSpec, EnsembleSpec, settings_of
from bbtune.task.task import Example, label_array
from bbtune.task.template import Template


class OneStep(Untrained):
    """What is learned, if anything, is learned in one go, and judged once."""

    def fit(self) -> Iterator[Generation | Fitted]:
        """One step, and the end."""
        self._prepare()
        account = self._open()
        learned = self._learn()
        self.restore(learned)
        dev = self.label_logits(self._plan.dev)
        account.spend(examples=self._price.examples)
        yield account.judge(dev)
        yield Fitted("done", account.cost, learned, 0)

    def restore(self, learned: Learned) -> None:
        """Nothing by default."""

    def _learn(self) -> Learned:
        return {}


class Majority(OneStep):
    """The label that train has most often, of equals the one that dev has, of those the first."""

    _label: int | None = None

    def _prepare(self) -> None:
        """No model is asked."""

    def label_logits(self, examples: Sequence[Example]) -> Logits:
        """Label logits (N, C): 1 for the label, 0 for the others."""
        logits = np.zeros((len(examples), len(self._plan.label_words)), dtype=np.float32)
        logits[:, known(self._label)] = 1.0
        return logits

    def restore(self, learned: Learned) -> None:
        """Take the label."""
        self._label = int(learned["label"][0])

    def _learn(self) -> Learned:
        classes = len(self._plan.label_words)
        train, dev = (
            np.bincount(label_array(split), minlength=classes) for split in (self._plan.train, self._plan.dev)
        )
        return {"label": np.array([max(range(classes), key=lambda i: (train[i], dev[i], -i))], dtype=np.int64)}


class ZeroShot(OneStep):
    """The untouched model with the instruction in words."""

    def label_logits(self, examples: Sequence[Example]) -> Logits:
        """Label logits (N, C)."""
        return self.untouched(examples)


class TemplateEnsemble(OneStep):
    """The mean of the label probabilities under several templates (Voronov et al. 2024, arXiv 2401.06766)."""

    def label_logits(self, examples: Sequence[Example]) -> Logits:
        """Log (N, C) of the mean probabilities."""
        each = [log_softmax(self._under(template, examples), axis=-1) for template in self._templates]
        return np.asarray(logsumexp(each, axis=0) - np.log(len(each)), dtype=np.float32)

    @cached_property
    def _templates(self) -> list[Template]:
        return [Template(text, self._plan.kind) for text in settings_of(self._plan.spec, EnsembleSpec).templates]

    @cached_property
    def _other_head(self) -> Head:
        """Reads label words that stand directly behind other text, if the job's stand behind a space, and vice versa.

        Byte-level vocabularies have other tokens there.
        """
        after = self._plan.template.word_follows_space
        other = next(template for template in self._templates if template.word_follows_space != after)
        return label_head(replace(self._plan, template=other), self._scorer.model)

    def close(self) -> None:
        """Let the model go."""
        super().close()
        self.__dict__.pop("_other_head", None)

    def _under(self, template: Template, examples: Sequence[Example]) -> NDArray[np.float64]:
        """Label logits (N, C) with one template."""
        encoder = replace(self._plan, template=template).encoder(self._card, with_prompt=False)
        same = template.word_follows_space == self._plan.template.word_follows_space
        head = None if same else self._other_head
        return in_chunks(lambda some: self._scorer.untouched(some, encoder, head), examples).astype(np.float64)


class Calibration(OneStep):
    """Label probabilities divided by those of texts without content (Zhao et al. 2021, arXiv 2102.09690)."""

    _bias: NDArray[np.float64] | None = None

    def label_logits(self, examples: Sequence[Example]) -> Logits:
        """Label logits (N, C)."""
        return np.asarray(self.untouched(examples) + known(self._bias), dtype=np.float32)

    def restore(self, learned: Learned) -> None:
        """Take the bias (C,)."""
        self._bias = np.asarray(learned["bias"], dtype=np.float64)

    def _learn(self) -> Learned:
        """Minus the log of the mean probabilities of the neutral texts (Zhao et al., section 5: diag(p_cf)^-1)."""
        texts = settings_of(self._plan.spec, CalibrationSpec).neutral
        pair = self._plan.kind == "pair"
        neutral = [Example(text, text if pair else None, 0) for text in texts]
        logs = log_softmax(self.untouched(neutral).astype(np.float64), axis=-1)
        return {"bias": np.asarray(np.log(len(logs)) - logsumexp(logs, axis=0))}
