"""Any family's own layers, called again as one full forward called them.

Masks, rotary tables and position biases are those of that forward; nothing of the library is rebuilt.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from bbtune.backbone.encoding import Batch, Encoder, Row
from bbtune.backbone.frozen import Call, FrozenModel
from bbtune.backbone.packing import chunks
from bbtune.backbone.prompted import Prompts
from bbtune.backbone.stack import Stack, Texts, stacked

_ROWS = 16  # of a batch of neighbours in length: few enough that a long text pads few others


@dataclass
class _Recorded:
    """A batch, and how each layer was called on it; ``wide`` says which tensors have the batch in dimension 0."""

    batch: Batch
    hidden: Tensor
    calls: list[Call]
    wide: set[int]


@dataclass(kw_only=True)
class _Batches(Texts):
    batches: list[_Recorded] = field(default_factory=list)


class ReplayStack(Stack):
    """The generic path: the stock layers on recorded arguments. The state is one (P * B, S, H) per batch."""

    def __init__(self, model: FrozenModel, encoder: Encoder, why: str) -> None:
        super().__init__(model, encoder)
        self.name = f"the model's own layers, recorded and replayed ({why})"

    @torch.inference_mode()
    def prepare(self, rows: Sequence[Row], tokens: int, sets: bool) -> _Batches:
        """Batches of neighbours."""
        batches = [self._record(rows[some]) for some in chunks(len(rows), _ROWS)]
        return _Batches(rows=rows, tokens=tokens, sets=sets, batches=batches)

    def begin(self, texts: Texts) -> list[Tensor]:
        """Embeddings of each batch."""
        return [recorded.hidden for recorded in _batches(texts)]

    def project(self, texts: Texts, layer: int, state: Any) -> None:
        """Nothing: the stock layers take hidden states alone."""

    def run(
        self, texts: Texts, layer: int, state: list[Tensor], prompts: Sequence[Prompts], projected: None
    ) -> list[Tensor]:
        """One stock layer on every batch, all candidates in one call."""
        return [
            self._run_batch(recorded, layer, hidden, prompts, texts.sets)
            for recorded, hidden in zip(_batches(texts), state, strict=True)
        ]

    def readout(self, texts: Texts, state: list[Tensor], count: int) -> Tensor:
        """The states (P, N, H) that are scored."""
        found = []
        hidden_prompt = texts.tokens if texts.sets else 0
        for recorded, hidden in zip(_batches(texts), state, strict=True):
            batch = _repeated(recorded.batch, count)
            read = self.model.readout(batch, self.model.finish(hidden), hidden_prompt)
            found.append(read.reshape(count, len(recorded.batch.ids), -1))
        return torch.cat(found, dim=1)

    def read_once(self, rows: Sequence[Row], tokens: int, sets: bool, prompts: Prompts) -> Tensor:
        """The states (1, N, H) that are scored, by the plain forward: recording would run it twice more."""
        found = []
        for some in chunks(len(rows), _ROWS):
            batch = self.encoder.batch(rows[some])
            found.append(self.model.readout(batch, self.model.states(batch, prompts), tokens if sets else 0))
        return torch.cat(found)[None]

    def _record(self, rows: Sequence[Row]) -> _Recorded:
        batch = self.encoder.batch(rows)
        seen = self.model.calls(batch)
        calls = [call for _, call in seen]
        alone = [call for _, call in self.model.calls(_shortest(batch))]
        wide: set[int] = set()
        for call, single in zip(calls, alone, strict=True):
            _compare(call, single, wide)
        return _Recorded(batch, seen[0][0], calls, wide)

    def _run_batch(
        self, recorded: _Recorded, layer: int, hidden: Tensor, prompts: Sequence[Prompts], sets: bool
    ) -> Tensor:
        rows, count = len(recorded.batch.ids), len(prompts)
        if len(hidden) < rows * count:  # one state that stands for all candidates
            hidden = hidden.repeat(count, 1, 1)
        values = stacked(prompts, layer, hidden.dtype)
        if values is not None:
            hidden = hidden.clone()
            places = recorded.batch.prompt[:, None] + torch.arange(values.shape[1])
            inside = hidden.view(count, rows, *hidden.shape[1:])
            each = torch.arange(rows)[:, None]
            before = 0 if sets else inside[:, each, places]
            inside[:, each, places] = before + values[:, None].expand(count, rows, -1, -1)
        args, kwargs = recorded.calls[layer]
        if count > 1:
            args, kwargs = _map((args, kwargs), lambda t: _widened(t, count, id(t) in recorded.wide))
        out = self.model.layers[layer](hidden, *args, **kwargs)
        return out[0] if isinstance(out, tuple) else out  # type: ignore[no-any-return]


def _batches(texts: Texts) -> list[_Recorded]:
    assert isinstance(texts, _Batches)
    return texts.batches


def _shortest(batch: Batch) -> Batch:
    """One row of the batch, padded as it is there: a mask is only made where something is padded."""
    row = slice(shortest := int(batch.mask.sum(dim=1).argmin()), shortest + 1)
    decoder = None if batch.decoder_ids is None else batch.decoder_ids[row]
    return Batch(batch.ids[row], batch.mask[row], batch.prompt[row], batch.read[row], decoder)


def _repeated(batch: Batch, count: int) -> Batch:
    decoder = None if batch.decoder_ids is None else batch.decoder_ids.repeat(count, 1)
    wide = (batch.ids.repeat(count, 1), batch.mask.repeat(count, 1))
    return Batch(*wide, batch.prompt.repeat(count), batch.read.repeat(count), decoder)


def _compare(one: Any, single: Any, wide: set[int]) -> None:
    """Note the tensors whose first dimension was the batch: in a forward of one row it is 1, whatever it equals."""
    if isinstance(one, Tensor) and isinstance(single, Tensor):
        if one.dim() and len(one) != len(single):
            wide.add(id(one))
    elif isinstance(one, dict):
        for key, value in one.items():
            _compare(value, single[key], wide)
    elif isinstance(one, (tuple, list)):
        for a, b in zip(one, single, strict=True):
            _compare(a, b, wide)


def _map(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, dict):
        return {key: _map(item, change) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return type(value)(_map(item, change) for item in value)
    return value


def _widened(tensor: Tensor, count: int, wide: bool) -> Tensor:
    return tensor.repeat(count, *[1] * (tensor.dim() - 1)) if wide else tensor
