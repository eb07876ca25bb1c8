"""A path of our own through encoders of the BERT kind, which normalise behind each residual sum.

Exact, and cheaper than the stock layers: texts are packed without padding; query, key and value are one product;
those of the layer that is tuned are kept, and since W (h + delta) = W h + W delta a candidate adds T rows to
them; the last layer runs at the position that is read alone, and even its keys and values need no product per
row, because q (W_k h) = (q W_k) h.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bbtune.backbone.encoding import Encoder, Row
from bbtune.backbone.families import PostNorm
from bbtune.backbone.frozen import FrozenModel
from bbtune.backbone.packing import Packing, attention, chunks
from bbtune.backbone.post_norm import PostNormLayer, Weights
from bbtune.backbone.products import Products
from bbtune.backbone.prompted import Prompts
from bbtune.backbone.stack import Stack, Texts, stacked

_ROWS = 32  # texts whose embeddings are padded together


@dataclass(kw_only=True)
class _Packed(Texts):
    packing: Packing
    read: Tensor


class PackedEncoder(Stack):
    """BERT, RoBERTa and their kin. The state is (P, R, H), the rows of all texts one behind the other."""

    def __init__(self, model: FrozenModel, encoder: Encoder, products: Products) -> None:
        super().__init__(model, encoder)
        names = model.card.family.layout
        assert isinstance(names, PostNorm)
        self._pools = model.card.kind == "sentence-encoder"
        self._products = products
        dtype = products.dtype
        self._layers = model.once(("packed", dtype), lambda: [PostNormLayer(of, names, dtype) for of in model.layers])
        self._heads = int(model.model.config.num_attention_heads)
        self.name = f"packed encoder, products by {products.name}"

    def prepare(self, rows: Sequence[Row], tokens: int, sets: bool) -> _Packed:
        """Packed texts; of prefix prompts only the text's own rows, since the prompt is keys and values."""
        hidden = tokens if sets else 0
        packing = Packing([len(row.ids) - hidden for row in rows])
        read = packing.positions([row.read - (hidden if row.read > row.prompt else 0) for row in rows])
        return _Packed(rows=rows, tokens=tokens, sets=sets, packing=packing, read=read.to(self.model.device))

    def begin(self, texts: Texts) -> Tensor:
        """Embeddings (1, R, H)."""
        packing = _packed(texts).packing
        state = torch.empty(packing.rows, self.model.hidden_size, dtype=self._products.dtype, device=self.model.device)
        for some in chunks(len(texts.rows), _ROWS):
            batch = self.encoder.batch(texts.rows[some])
            mask = batch.mask.bool()
            if texts.sets:
                mask[:, texts.rows[0].prompt : texts.rows[0].prompt + texts.tokens] = False
            embedded = self.model.embedded(batch).to(self._products.dtype)
            packing.gather(embedded, mask.to(embedded.device), state, some.start)
        return state[None]

    def project(self, texts: Texts, layer: int, state: Tensor) -> Tensor | None:
        """Queries, keys and values (1, R, 3H); the last layer makes do without."""
        return None if self._is_read(layer) else self._linear(state, self._layers[layer].qkv)

    def run(
        self, texts: Texts, layer: int, state: Tensor, prompts: Sequence[Prompts], projected: Tensor | None
    ) -> Tensor:
        """One layer on all rows; the last one at the position that is read alone, unless states are pooled."""
        of = self._layers[layer]
        prompt = stacked(prompts, layer, state.dtype)
        packed = _packed(texts)
        if self._is_read(layer):
            return self._read_only(packed, of, self._added(packed, state, prompt), prompt if texts.sets else None)
        if projected is None:
            state = self._added(packed, state, prompt)
            qkv = self._linear(state, of.qkv)
        else:
            change = None if prompt is None or texts.sets else self._linear(prompt, (of.qkv[0], None))
            qkv = self._added(packed, projected, change)
            state = self._added(packed, state, prompt)
        mixed = self._mixed(packed, of, qkv, prompt if texts.sets else None)
        return self._behind(of, mixed, state)

    def readout(self, texts: Texts, state: Tensor, count: int) -> Tensor:
        """Means, or the states at the positions read, (P, N, H)."""
        if self._pools:
            state = _packed(texts).packing.means(state)
        return state.expand(count, -1, -1)

    def _is_read(self, layer: int) -> bool:
        return layer == self.depth - 1 and not self._pools

    def _linear(self, x: Tensor, weights: Weights) -> Tensor:
        return self._products.linear(x, *weights)

    def _added(self, packed: _Packed, rows: Tensor, change: Tensor | None) -> Tensor:
        """Rows (1 or P, R, W) with ``change`` (P, T, W) added at the prompt's positions of every text."""
        if change is None or packed.sets:
            return rows
        rows = rows.expand(max(len(rows), len(change)), -1, -1).clone()
        start = packed.rows[0].prompt
        for run in packed.packing.runs:
            run.inside(rows)[:, :, start : start + packed.tokens] += change[:, None]
        return rows

    def _mixed(self, packed: _Packed, of: PostNormLayer, qkv: Tensor, prefix: Tensor | None) -> Tensor:
        """Attention (P, R, H), before its output product."""
        width = self.model.hidden_size
        count = max(len(qkv), 1 if prefix is None else len(prefix))
        qkv = qkv.expand(count, -1, -1).view(count, -1, 3, self._heads, width // self._heads)
        before: Tensor | None = None
        if prefix is not None:
            before = self._linear(prefix, of.keys_values).view(len(prefix), -1, 2, *qkv.shape[3:])
        mixed = qkv.new_empty(count, packed.packing.rows, width)
        for run in packed.packing.runs:
            rows = run.split(qkv)
            seen = rows[:, :, 1:] if before is None else _behind_prefix(run.count, before, rows[:, :, 1:])
            run.put(mixed, attention(rows[:, :, 0], seen[:, :, 0], seen[:, :, 1]))
        return mixed

    def _behind(self, of: PostNormLayer, mixed: Tensor, state: Tensor) -> Tensor:
        """The rest of a layer behind its attention."""
        wide = mixed.shape[:-1]
        rows = state.expand(*wide, -1).flatten(0, 1)
        return of.behind(self._linear, mixed.flatten(0, 1), rows).view(*wide, -1)

    def _read_only(self, packed: _Packed, of: PostNormLayer, state: Tensor, prefix: Tensor | None) -> Tensor:
        """The last layer at the positions read, (P, N, H): no product runs over all rows."""
        count = max(len(state), 1 if prefix is None else len(prefix))
        state = state.expand(count, -1, -1)
        read = state[:, packed.read]
        width, heads = self.model.hidden_size, self._heads
        weight, bias = of.qkv[0].to(state.dtype), of.qkv[1]
        _, to_k, to_v = weight.view(3, heads, width // heads, width)
        # A query's product with the keys' bias is the same for all keys, and falls out of the softmax.
        b_q, _, b_v = (None,) * 3 if bias is None else bias.to(state.dtype).view(3, width)
        q = self._linear(read, (of.qkv[0][:width], b_q)).view(-1, heads, width // heads).transpose(0, 1)
        q = (torch.bmm(q, to_k) * (width // heads) ** -0.5).transpose(0, 1).reshape(*read.shape[:2], heads, width)
        mixed = _weighted(packed.packing, q, state, prefix)
        values = torch.bmm(mixed.flatten(0, 1).transpose(0, 1), to_v.transpose(1, 2)).transpose(0, 1)
        values = values.reshape(*read.shape[:2], width)
        return self._behind(of, values if b_v is None else values + b_v, read)


def _weighted(packing: Packing, q: Tensor, state: Tensor, prefix: Tensor | None) -> Tensor:
    """Each text's rows, and a prefix in front of them, weighted by the softmax of their products with a query.

    Args:
        q: (P, N, heads, H), one query a text.
        state: rows (P, R, H).
        prefix: (P or 1, T, H).

    Returns:
        Weighted rows (P, N, heads, H).
    """
    mixed = torch.empty_like(q)
    on_prefix = None if prefix is None else q.flatten(1, 2) @ prefix.transpose(1, 2)  # (P, N * heads, T)
    shares = None if on_prefix is None else on_prefix.view(*q.shape[:3], -1)
    for run in packing.runs:
        rows = run.split(state)
        scores = torch.bmm(run.of_texts(q), rows.transpose(1, 2))
        if shares is None:
            run.put_texts(mixed, torch.bmm(scores.softmax(dim=-1), rows))
            continue
        weights = torch.cat([run.of_texts(shares), scores], dim=-1).softmax(dim=-1)
        run.put_texts(shares, weights[..., : -run.length])
        run.put_texts(mixed, torch.bmm(weights[..., -run.length :], rows))
    if prefix is not None and shares is not None:
        mixed += (shares.flatten(1, 2) @ prefix).view(mixed.shape)
    return mixed


def _behind_prefix(texts: int, prefix: Tensor, own: Tensor) -> Tensor:
    """A prefix (P or 1, T, ...) in front of each of the rows (P * texts, S, ...)."""
    count = len(own) // texts
    prefix = prefix.expand(count, *prefix.shape[1:])[:, None].expand(-1, texts, *prefix.shape[1:])
    return torch.cat([prefix.reshape(len(own), *prefix.shape[2:]), own], dim=1)


def _packed(texts: Texts) -> _Packed:
    assert isinstance(texts, _Packed)
    return texts
