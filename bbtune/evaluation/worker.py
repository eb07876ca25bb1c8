"""Scores candidates on one frozen model; the same object in this process and in an actor."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from bbtune.backbone.calibration import layer_stds
from bbtune.backbone.encoding import Batch, Encoder
from bbtune.backbone.frozen import Edit, load_frozen
from bbtune.backbone.sources import read_model_card
from bbtune.plan import Plan
from bbtune.prompts.edits import offset_edits, prefix_bases, prefix_edits
from bbtune.prompts.space import PromptSpace
from bbtune.task.task import Example
from bbtune.task.verbalizer import label_token_ids

_BATCH_ROWS = 16  # few enough that a long text pads few others: 1.7 times as fast as 64 rows on AG News
Rows = tuple[list[Batch], NDArray[np.int64]]  # batches of rows sorted by length, and each row's place before sorting


class Worker:
    """One frozen model with the plan's data.

    Results depend on the arguments alone: rows are batched the same way whatever else happens, and the number of
    threads is set.
    """

    def __init__(self, plan: Plan) -> None:
        torch.set_num_threads(plan.spec.evaluators.threads)
        spec = plan.spec
        card = read_model_card(spec.backbone)
        self._plan = plan
        self._model = load_frozen(card, spec.backbone)
        self._encoder = plan.encoder(card, with_prompt=True)
        self._plain = plan.encoder(card, with_prompt=False)
        self._positions = self._encoder.prompt_positions
        self._space = PromptSpace(
            spec.seed,
            plan.layers,
            len(self._positions),
            self._model.hidden_size,
            spec.prompt.intrinsic_dim,
            spec.backbone.device,
        )
        self._bases: list[torch.Tensor] = []
        if spec.prompt.kind == "prefix":
            self._bases = prefix_bases(self._model, self._encoder.prompt_alone(), self._positions)
        self._splits = {split: _rows(self._encoder, getattr(plan, split)) for split in ("train", "dev")}
        self._labels = self._label_tensors()

    def calibrate(self) -> NDArray[np.float64]:
        """Natural scales (L,) of the tuned layers (BBTv2 section 3.3).

        Layer 0 of offset prompts has the input embeddings' standard deviation, every other layer that of the
        hidden states that enter it on the train examples.
        """
        batches, _ = self._splits["train"]
        stds = layer_stds(self._model, batches, self._edits(None))
        if self._plan.spec.prompt.kind == "offset":
            stds[0] = float(self._model.embeddings.double().std(unbiased=False))
        return np.array([stds[layer] for layer in self._plan.layers])

    def candidate(self, z: NDArray[np.float64], split: str) -> NDArray[np.float32]:
        """Label logits (N, C) of one candidate, scaled z (L, D), on the train or dev split."""
        return self._logits(self._splits[split], self._edits(z), self._encoder)

    def label_logits(self, z: NDArray[np.float64] | None, examples: Sequence[Example]) -> NDArray[np.float32]:
        """Label logits (N, C) of any examples; z None is the untouched model with the prompt text in words, if any."""
        if z is None:
            return self._logits(_rows(self._plain, examples), {}, self._plain)
        return self._logits(_rows(self._encoder, examples), self._edits(z), self._encoder)

    def _edits(self, z: NDArray[np.float64] | None) -> dict[int, Edit]:
        prompts = {} if z is None else self._space.prompts(z)
        if self._plan.spec.prompt.kind == "offset":
            return offset_edits(prompts, self._positions)
        return prefix_edits(prompts, self._bases, self._positions)

    def _logits(self, rows: Rows, edits: dict[int, Edit], encoder: Encoder) -> NDArray[np.float32]:
        batches, places = rows
        found = np.empty((len(places), len(self._labels)), dtype=np.float32)
        start = 0
        for batch in batches:
            stop = start + len(batch.read)
            found[places[start:stop]] = self._batch_logits(batch, edits, encoder).float().cpu().numpy()
            start = stop
        return found

    def _batch_logits(self, batch: Batch, edits: dict[int, Edit], encoder: Encoder) -> torch.Tensor:
        states = self._model.states(batch, edits)
        if self._model.card.kind != "sentence-encoder":
            return self._model.word_logits(states, batch, self._labels)
        mask = batch.mask.clone()
        if edits and self._plan.spec.prompt.kind == "prefix":  # prefix states are no outputs of the model
            mask[:, encoder.prompt_positions.start : encoder.prompt_positions.stop] = 0
        return self._model.similarities(states, mask, self._labels)

    def _label_tensors(self) -> list[torch.Tensor]:
        """Token ids of each label's words, or embeddings of each label's descriptions."""
        plan, tokenizer = self._plan, self._model.card.tokenizer
        if self._model.card.kind != "sentence-encoder":
            ids, _ = label_token_ids(plan.label_words, tokenizer, plan.template.word_follows_space)
            return [torch.tensor(of_label) for of_label in ids]
        return [torch.cat([self._description(text) for text in texts]) for texts in plan.label_words]

    def _description(self, text: str) -> torch.Tensor:
        batch = self._plain.batch([list(self._model.card.tokenizer(text)["input_ids"])])
        return self._model.pooled(self._model.states(batch, {}), batch.mask)


def _rows(encoder: Encoder, examples: Sequence[Example]) -> Rows:
    rows = [encoder.row(example) for example in examples]
    order = sorted(range(len(rows)), key=lambda i: (len(rows[i]), i))
    batches = [
        encoder.batch([rows[i] for i in order[start : start + _BATCH_ROWS]])
        for start in range(0, len(rows), _BATCH_ROWS)
    ]
    return batches, np.array(order, dtype=np.int64)
