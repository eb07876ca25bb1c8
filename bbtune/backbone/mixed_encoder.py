"""Texts of different prompts through encoders of the BERT kind: packed, and without the rows of prefixes.

Exact, and cheaper than the stock layers: rows of all texts are one matrix; a prefix is set at every layer, so that
its keys and values are constants, computed once when the prompt is added; the last layer asks at the position that
is read alone, unless states are pooled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from bbtune.backbone.encoding import Encoder
from bbtune.backbone.families import PostNorm
from bbtune.backbone.frozen import FrozenModel
from bbtune.backbone.mixed import Asked, Change, Held, MixedPath, alike, change_of
from bbtune.backbone.packing import attention
from bbtune.backbone.post_norm import PostNormLayer, Weights
from bbtune.backbone.products import Products
from bbtune.backbone.prompted import Prompts


def rounded(rows: int) -> int:
    """A number of rows that is one of few, above by seven or an eighth at the most.

    oneDNN makes and keeps a program for every shape of a product: milliseconds and half a MiB each.
    """
    step = max(8, 1 << max(0, (rows - 1).bit_length() - 4))
    return -(-rows // step) * step


@dataclass(frozen=True, eq=False)
class _Group:
    """Texts of about one length, whose attention is one call.

    Attributes:
        texts: their indices.
        queries: rows (n, S) that ask; of a text that is shorter the first ones again.
        real: (n, S), which of them are a text's own.
        keys: rows (n, K) of the prefixes' and the texts' keys.
        mask: (n, 1, 1, K), what may be seen; None for all.
    """

    texts: list[int]
    queries: Tensor
    real: Tensor
    keys: Tensor
    mask: Tensor | None


class _Layout:
    """Where everything stands.

    Attributes:
        lengths: own rows of each text, those of a prefix that is kept left out.
        starts: first row of each text.
        held: the prompts whose keys and values stand before the rows', in order.
    """

    def __init__(self, asked: Sequence[Asked], device: torch.device) -> None:
        self.asked = asked
        self.device = device
        self.lengths = [len(one.row.ids) - (one.held.tokens if one.held.kept else 0) for one in asked]
        self.starts = [0, *accumulate(self.lengths)][:-1]
        self.held = list({id(one.held): one.held for one in asked if one.held.kept}.values())
        tokens = [held.tokens for held in self.held]
        self._before = sum(tokens)
        begins = dict(zip(map(id, self.held), [0, *accumulate(tokens)], strict=False))
        self._prefix = [
            range(begins[id(one.held)], begins[id(one.held)] + one.held.tokens) if one.held.kept else range(0)
            for one in asked
        ]
        self.alike = alike([len(one.row.ids) for one in asked])

    def groups(self, read: bool) -> list[_Group]:
        """Groups of texts; ``read`` for the rows that are read alone."""
        return [self._group(texts, read) for texts in self.alike]

    def read(self, i: int) -> int:
        """The row at which a text is read."""
        row, held = self.asked[i].row, self.asked[i].held
        return self.starts[i] + row.read - (held.tokens if held.kept and row.read > row.prompt else 0)

    def outputs(self, i: int) -> list[int]:
        """The rows of a text that are pooled: all but those of a prefix."""
        one, start = self.asked[i], self.starts[i]
        hidden = range(0) if one.held.kept else range(one.row.prompt, one.row.prompt + one.held.hidden)
        return [start + place for place in range(self.lengths[i]) if place not in hidden]

    def change(self, layer: int) -> Change | None:
        """What prompts whose rows run put into a layer's input."""
        putting = [
            (torch.arange(one.held.tokens) + start + one.row.prompt, one.held.prompts)
            for one, start in zip(self.asked, self.starts, strict=True)
            if not one.held.kept and layer in one.held.prompts.layers
        ]
        return change_of([(place,) for place, _ in putting], [prompts for _, prompts in putting], layer, self.device)

    def _group(self, texts: list[int], read: bool) -> _Group:
        asking = [[self.read(i)] if read else list(self._own(i)) for i in texts]
        seen = [[*self._prefix[i], *(self._before + row for row in self._own(i))] for i in texts]
        queries, real = self._ragged(asking)
        keys, mask = self._ragged(seen)
        return _Group(texts, queries, real, keys, None if bool(mask.all()) else mask[:, None, None])

    def _own(self, i: int) -> range:
        return range(self.starts[i], self.starts[i] + self.lengths[i])

    def _ragged(self, rows: list[list[int]]) -> tuple[Tensor, Tensor]:
        """Indices padded by the first of each, and which are no padding."""
        width = max(map(len, rows))
        filled = torch.tensor([row + row[:1] * (width - len(row)) for row in rows], device=self.device)
        real = torch.tensor([[True] * len(row) + [False] * (width - len(row)) for row in rows], device=self.device)
        return filled, real


class PackedMixed(MixedPath):
    """BERT, RoBERTa and their kin."""

    def __init__(self, model: FrozenModel, products: Products) -> None:
        super().__init__(model)
        names = model.card.family.layout
        assert isinstance(names, PostNorm)
        dtype = products.dtype
        self._products = products
        self._pools = model.card.kind == "sentence-encoder"
        self._layers = model.once(("packed", dtype), lambda: [PostNormLayer(of, names, dtype) for of in model.layers])
        self._heads = int(model.model.config.num_attention_heads)
        self.name = f"packed encoder with kept prefixes, products by {products.name}"

    @torch.inference_mode()
    def hold(self, prompts: Prompts, encoder: Encoder) -> Held:
        """Keys and values of a prefix that is set at every layer."""
        depth = len(self._layers)
        if not prompts.sets or set(prompts.layers) != set(range(depth)):
            return super().hold(prompts, encoder)
        dtype, kept = self._products.dtype, []
        for layer, of in enumerate(self._layers):
            kept.append(self._linear(prompts.layers[layer].to(dtype), of.keys_values))
        return Held(prompts, encoder, tuple(kept))

    @torch.inference_mode()
    def states(self, asked: Sequence[Asked]) -> Tensor:
        """The states (N, H) that are scored."""
        layout = _Layout(asked, self.model.device)
        state, groups = self._embedded(layout), layout.groups(read=False)
        for layer in range(len(self._layers) - (0 if self._pools else 1)):
            state = self._layer(layout, groups, layer, state)
        if not self._pools:
            return self._last(layout, state)
        return torch.stack([state[layout.outputs(i)].float().mean(dim=0) for i in range(len(asked))])

    def _embedded(self, layout: _Layout) -> Tensor:
        """Embeddings (R, H) of the texts' own rows, and rows of zeros behind them that nobody looks at."""
        state = torch.zeros(
            rounded(sum(layout.lengths)), self.model.hidden_size, dtype=self._products.dtype, device=self.model.device
        )
        for texts in layout.alike:
            asked = [layout.asked[i] for i in texts]
            embedded = self.model.embedded(asked[0].held.encoder.batch([one.row for one in asked]))
            for i, one, rows in zip(texts, asked, embedded, strict=True):
                own, start = rows[: len(one.row.ids)], layout.starts[i]
                cut, skipped = one.row.prompt, one.held.tokens if one.held.kept else 0
                state[start : start + cut] = own[:cut]
                state[start + cut : start + layout.lengths[i]] = own[cut + skipped :]
        return state

    def _layer(self, layout: _Layout, groups: Sequence[_Group], layer: int, state: Tensor) -> Tensor:
        """One layer on all rows."""
        of, width = self._layers[layer], self.model.hidden_size
        if (change := layout.change(layer)) is not None:
            state = change.put(state)
        qkv = self._linear(state, of.qkv)
        seen = torch.cat([*(held.kept[layer] for held in layout.held), qkv[:, width:]])
        mixed = torch.zeros_like(state)
        for group in groups:
            found = self._attended(group, qkv[:, :width][group.queries], seen)
            mixed[group.queries[group.real]] = found[group.real]
        return of.behind(self._linear, mixed, state)

    def _last(self, layout: _Layout, state: Tensor) -> Tensor:
        """The last layer at the positions read, (N, H)."""
        layer = len(self._layers) - 1
        of = self._layers[layer]
        if (change := layout.change(layer)) is not None:
            state = change.put(state)
        own = self._linear(state, of.keys_values)
        seen = torch.cat([*(held.kept[layer] for held in layout.held), own])
        read = state[[layout.read(i) for i in range(len(layout.asked))]]
        q = self._linear(read, of.queries)
        mixed = torch.empty_like(q)
        for group in layout.groups(read=True):
            mixed[group.texts] = self._attended(group, q[group.texts][:, None], seen)[:, 0]
        return of.behind(self._linear, mixed, read)

    def _attended(self, group: _Group, q: Tensor, seen: Tensor) -> Tensor:
        """Attention (n, S, H) of q (n, S, H) on a group's keys and values."""
        size = q.shape[-1] // self._heads
        k, v = seen[group.keys].view(*group.keys.shape, 2, self._heads, size).unbind(2)
        return attention(q.reshape(*q.shape[:2], self._heads, size), k, v, group.mask)

    def _linear(self, x: Tensor, weights: Weights) -> Tensor:
        return self._products.linear(x, *weights)
