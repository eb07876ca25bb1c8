"""Small networks on frozen features, which are computed once for every text."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence

from bbtune.backbone.packing import chunks
from bbtune.baselines.features import pooled_features
from bbtune.baselines.learner import Learner, torch_seeded, width_of
from bbtune.evaluation.scorer import load_model, sorted_rows
from bbtune.plan import Plan
from bbtune.task.task import Example

_ROWS = 16  # texts of like length in one forward


class FeatureLearner(Learner):
    """A network on what the frozen model makes of a text; the text stands as in zero-shot.

    Features come to the network with mean 0 and variance 1 over H, so that one learning rate suits every model.

    Args:
        plan: of the job.
    """

    cached = True

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self._frozen = load_model(plan)  # no module of ours: its weights are no parameters here
        self._encoder = plan.encoder(self._frozen.card, with_prompt=False)
        self._sizes = (self._frozen.hidden_size, width_of(plan), len(plan.label_words))

    @property
    def depth(self) -> int:
        """All layers."""
        return len(self._frozen.layers)


class Mlp(FeatureLearner):
    """One hidden layer on the state that is read, or on a sentence encoder's L2-normalised mean."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        size, width, labels = self._sizes
        with torch_seeded(plan.spec.seed, "mlp"):
            net = nn.Sequential(
                nn.LayerNorm(size, elementwise_affine=False),
                nn.Linear(size, width),
                nn.ReLU(),
                nn.Linear(width, labels),
            )
        self.net = net.to(self._frozen.device)

    def prepare(self, examples: Sequence[Example]) -> list[Tensor]:
        """Features (H,) of each example, on the model's device."""
        return list(torch.from_numpy(pooled_features(self._frozen, self._encoder, examples)).to(self._frozen.device))

    def length(self, item: Tensor) -> int:
        """One: every text is one vector."""
        return 1

    def forward(self, items: Sequence[Tensor]) -> Tensor:
        """Label logits (B, C) of features (H,)."""
        logits: Tensor = self.net(torch.stack(list(items)))
        return logits


class BiLstm(FeatureLearner):
    """An LSTM in each direction over the last hidden states of all tokens, its outputs' maximum over the tokens."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        size, width, labels = self._sizes
        with torch_seeded(plan.spec.seed, "bilstm"):
            lstm, out = nn.LSTM(size, width, batch_first=True, bidirectional=True), nn.Linear(2 * width, labels)
        self.lstm, self.out = lstm.to(self._frozen.device), out.to(self._frozen.device)

    @torch.no_grad()
    def prepare(self, examples: Sequence[Example]) -> list[Tensor]:
        """Token states (S, H) of each example, on the model's device."""
        rows, order = sorted_rows(self._encoder, examples)
        found: list[Tensor] = [torch.empty(0)] * len(rows)
        for some in chunks(len(rows), _ROWS):
            batch = self._encoder.batch(rows[some])
            lengths = batch.mask.sum(dim=1).tolist()
            for place, states, length in zip(order[some], self._frozen.states(batch), lengths, strict=True):
                found[place] = states[:length].float().clone()
        return found

    def length(self, item: Tensor) -> int:
        """Tokens of a text."""
        return len(item)

    def forward(self, items: Sequence[Tensor]) -> Tensor:
        """Label logits (B, C) of token states (S, H)."""
        scaled = [functional.layer_norm(item, item.shape[-1:]) for item in items]
        lengths = torch.tensor([len(item) for item in items])
        packed = pack_padded_sequence(
            pad_sequence(scaled, batch_first=True), lengths, batch_first=True, enforce_sorted=False
        )
        outputs, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True, padding_value=-torch.inf)
        logits: Tensor = self.out(outputs.amax(dim=1))
        return logits
