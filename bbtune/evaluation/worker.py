"""Scores candidates on one frozen model; the same object in this process and in an actor."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from bbtune.backbone.calibration import layer_stds
from bbtune.backbone.encoding import Encoder
from bbtune.backbone.frozen import FrozenModel, load_frozen
from bbtune.backbone.heads import CosineHead, WordHead
from bbtune.backbone.memory import keep_freed_memory
from bbtune.backbone.packing import chunks
from bbtune.backbone.paths import choose_path
from bbtune.backbone.prompted import Prompts
from bbtune.backbone.sources import read_model_card
from bbtune.backbone.stack import Texts
from bbtune.plan import Plan
from bbtune.prompts.space import PromptSpace, prefix_bases
from bbtune.task.task import Example
from bbtune.task.verbalizer import label_token_ids

_ROWS = 16  # of a calibration batch
_SPLITS = ("train", "dev")


class Worker:
    """One frozen model with the plan's data.

    Results depend on the arguments alone: the same rows share a forward whatever else happens, and the number of
    threads is set.
    """

    def __init__(self, plan: Plan) -> None:
        torch.set_num_threads(plan.spec.evaluators.threads)
        keep_freed_memory()
        spec = plan.spec
        card = read_model_card(spec.backbone)
        self._plan = plan
        self._model = load_frozen(card, spec.backbone)
        self._encoder = plan.encoder(card, with_prompt=True)
        self._plain = plan.encoder(card, with_prompt=False)
        self._path = choose_path(self._model, self._encoder)
        self._space = self._prompt_space()
        self._splits: dict[str, tuple[Texts, NDArray[np.int64]]] = {}
        self._head = self._label_head()

    def describe(self) -> str:
        """The path that candidates take through the model, in words."""
        return self._path.name

    def together(self) -> int:
        """How many candidates to score in one call: fixed for a run, so that no pool changes a bit."""
        return 1

    def calibrate(self) -> NDArray[np.float64]:
        """Natural scales (L,) of the tuned layers (BBTv2 section 3.3).

        Layer 0 of offset prompts has the input embeddings' standard deviation, every other layer that of the
        hidden states that enter it on the train examples.
        """
        rows = sorted((self._encoder.row(example) for example in self._plan.train), key=lambda row: len(row.ids))
        batches = [self._encoder.batch(rows[some]) for some in chunks(len(rows), _ROWS)]
        stds = layer_stds(self._model, batches, self._space.bases)
        if not self._space.sets:
            stds[0] = float(self._model.embeddings.double().std(unbiased=False))
        return np.asarray(stds[list(self._plan.layers)])

    def candidates(self, z: NDArray[np.float64], split: str, first: int) -> NDArray[np.float32]:
        """Label logits (P, N, C) of scaled z (P, L, D) on the train or dev split.

        Args:
            first: index of the lowest tuned layer whose numbers differ between calls; the states below it are kept.
        """
        if split not in self._splits:
            self._splits[split] = self._prepared(self._encoder, getattr(self._plan, split))
        prompts = [self._space.prompts(one) for one in z]
        return self._logits(self._splits[split], prompts, self._plan.layers[first])

    def label_logits(self, z: NDArray[np.float64] | None, examples: Sequence[Example]) -> NDArray[np.float32]:
        """Label logits (N, C) of any examples; z None is the untouched model with the prompt text in words, if any."""
        encoder = self._plain if z is None else self._encoder
        prompts = Prompts() if z is None else self._space.prompts(z)
        return self._logits(self._prepared(encoder, examples), [prompts], 0)[0]

    def _prepared(self, encoder: Encoder, examples: Sequence[Example]) -> tuple[Texts, NDArray[np.int64]]:
        """Texts sorted by length, and each one's place before."""
        rows = [encoder.row(example) for example in examples]
        order = sorted(range(len(rows)), key=lambda i: (len(rows[i].ids), i))
        tokens = self._encoder.prompt_length if encoder is self._encoder else 0
        texts = self._path.prepare([rows[i] for i in order], tokens, self._space.sets and tokens > 0)
        return texts, np.array(order, dtype=np.int64)

    def _logits(
        self, prepared: tuple[Texts, NDArray[np.int64]], prompts: Sequence[Prompts], layer: int
    ) -> NDArray[np.float32]:
        texts, places = prepared
        states = self._path.read(texts, prompts, layer)
        logits = self._head(states.flatten(0, 1)).reshape(*states.shape[:2], -1)
        found = np.empty(logits.shape, dtype=np.float32)
        found[:, places] = logits.float().cpu().numpy()
        return found

    def _prompt_space(self) -> PromptSpace:
        spec, model = self._plan.spec, self._model
        bases = prefix_bases(model, self._encoder) if spec.prompt.kind == "prefix" else []
        shape = (self._encoder.prompt_length, model.hidden_size)
        return PromptSpace(spec.seed, self._plan.layers, shape, spec.prompt.intrinsic_dim, bases, model.device)

    def _label_head(self) -> WordHead | CosineHead:
        """Token ids of each label's words, or embeddings of each label's descriptions."""
        plan, tokenizer = self._plan, self._model.card.tokenizer
        if self._model.card.kind != "sentence-encoder":
            ids, _ = label_token_ids(plan.label_words, tokenizer, plan.template.word_follows_space)
            return WordHead(self._model, [torch.tensor(of_label) for of_label in ids])
        labels = [torch.cat([_described(self._model, self._plain, text) for text in texts]) for texts in plan.label_words]
        return CosineHead(labels, plan.spec.backbone.temperature)


def _described(model: FrozenModel, encoder: Encoder, text: str) -> torch.Tensor:
    """The mean state (1, H) of a label's description."""
    batch = encoder.batch([encoder.plain_row(text)])
    return model.readout(batch, model.states(batch), 0)
