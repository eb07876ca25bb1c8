"""A path of our own through decoders of the Llama kind: RMS norm before, rotary positions, gated feed-forward.

A causal model sees only what stands before a token. With the prompt before the text, its states are the same for
all texts: they are computed once per candidate, and its keys and values are shared. With the prompt after the
text, keys and values of the text never change: a candidate costs the rows of the prompt and of what follows it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from bbtune.backbone.encoding import Encoder, Row
from bbtune.backbone.families import Rotary
from bbtune.backbone.frozen import FrozenModel
from bbtune.backbone.packing import Packing, Run, attention
from bbtune.backbone.products import Products
from bbtune.backbone.prompted import Prompts
from bbtune.backbone.rotary import KeysValues, RotaryLayer, Turn, causal_mask, heads, rotated, turned_heads
from bbtune.backbone.stack import Stack, Texts, stacked


@dataclass
class _State:
    """Rows that all texts share, (P, C, H), and the texts' own, (P, R, H)."""

    shared: Tensor
    own: Tensor


@dataclass
class _Projected:
    """Queries, keys and values of a text's own rows, each (1, R, heads, head size), turned to their positions."""

    q: Tensor
    k: Tensor
    v: Tensor


@dataclass(kw_only=True)
class _Shared(Texts):
    """Texts, and what stands before their own rows.

    Attributes:
        common: token ids of the rows that all texts share, C.
        packing: the texts' own rows.
        own: token ids of those.
        turn: of the own rows to their positions.
        common_turn: of the common rows, or of a prefix before the text.
        before: by layer, keys and values of rows that no prompt changes: (1, lead, ...) of leading specials before a
            prefix, or those of each text before a prompt that stands behind it.
        unchanged: rows of each text in ``before``, as packed there; None where ``before`` is the same for all.
    """

    common: list[int]
    packing: Packing
    own: list[int]
    turn: Turn
    common_turn: Turn
    before: list[KeysValues] = field(default_factory=list)
    unchanged: Packing | None = None


class SharedDecoder(Stack):
    """Llama, Mistral, Qwen, SmolLM, Gemma."""

    def __init__(self, model: FrozenModel, encoder: Encoder, products: Products) -> None:
        super().__init__(model, encoder)
        layout = model.card.family.layout
        assert isinstance(layout, Rotary)
        self._products = products
        offset, dtype = layout.norm_offset, products.dtype
        self._layers = model.once(("rotary", dtype), lambda: [RotaryLayer(of, offset, dtype) for of in model.layers])
        self._scale = float(model.layers[0].self_attn.scaling)
        self.name = f"shared-prompt decoder, products by {products.name}"

    # -- what is kept of the texts

    @torch.inference_mode()
    def prepare(self, rows: Sequence[Row], tokens: int, sets: bool) -> _Shared:
        """Rows that depend on a candidate, and keys and values of those that do not."""
        kept = tokens if sets else 0  # rows that are keys and values alone
        if not tokens:
            return self._texts(rows, 0, False, [0] * len(rows))
        if self.encoder.prompt.place == "before":
            lead = rows[0].prompt
            texts = self._texts(rows, tokens, sets, [lead + tokens] * len(rows))
            texts.common = [] if sets else rows[0].ids[: lead + tokens]
            texts.common_turn = self._turn(range(lead, lead + tokens) if sets else range(lead + tokens))
            if sets and lead:
                texts.before = self._alone(rows[:1], [lead])
            return texts
        starts = [row.prompt for row in rows]
        texts = self._texts(rows, tokens, sets, [start + kept for start in starts])
        texts.before, texts.unchanged = self._alone(rows, starts), Packing(starts)
        return texts

    def _texts(self, rows: Sequence[Row], tokens: int, sets: bool, starts: Sequence[int]) -> _Shared:
        """Texts whose own rows begin at ``starts``."""
        lengths = [len(row.ids) - start for row, start in zip(rows, starts, strict=True)]
        return _Shared(
            rows=rows,
            tokens=tokens,
            sets=sets,
            common=[],
            packing=Packing(lengths, behind=starts),
            own=[token for row, start in zip(rows, starts, strict=True) for token in row.ids[start:]],
            turn=self._turn([i for row, start in zip(rows, starts, strict=True) for i in range(start, len(row.ids))]),
            common_turn=self._turn([]),
        )

    def _alone(self, rows: Sequence[Row], stops: Sequence[int]) -> list[KeysValues]:
        """Keys and values (1, rows, ...) by layer of the rows' beginnings, up to ``stops``."""
        cut = [Row(row.ids[:stop], 0, 0) for row, stop in zip(rows, stops, strict=True)]
        texts = self._texts(cut, 0, False, [0] * len(cut))
        own, found = self.begin(texts).own, []
        for of in self._layers:
            q, k, v = self._turned(of, own, texts.turn)
            found.append((k, v))
            own = self._behind(of, self._mixed(texts, (q, k, v), None, None), own)
        return found

    def begin(self, texts: Texts) -> _State:
        """Embeddings."""
        shared = _shared(texts)
        table, dtype = self.model.model.get_input_embeddings(), self._products.dtype
        ids = torch.tensor([[*shared.common, *shared.own]], device=self.model.device)
        rows = table(ids).to(dtype)
        return _State(rows[:, : len(shared.common)], rows[:, len(shared.common) :])

    def project(self, texts: Texts, layer: int, state: _State) -> _Projected | None:
        """Queries, keys and values of the texts' own rows, where no prompt stands among them."""
        shared = _shared(texts)
        if layer == self.depth - 1 or (shared.unchanged is not None and not texts.sets):
            return None
        return _Projected(*self._turned(self._layers[layer], state.own, shared.turn))

    # -- one layer

    def run(
        self, texts: Texts, layer: int, state: _State, prompts: Sequence[Prompts], projected: _Projected | None
    ) -> _State:
        """One layer; the last one at the last row of each text alone."""
        of, shared = self._layers[layer], _shared(texts)
        prompt = stacked(prompts, layer, self._products.dtype)
        if prompt is not None and not texts.sets:
            state = self._added(shared, state, prompt)
        last = layer == self.depth - 1
        common, before = state.shared, self._before(shared, layer, prompt)
        if common.shape[1]:
            q, k, v = self._turned(of, common, shared.common_turn)
            before = (k, v)
            if not last:
                common = self._behind(of, self._causal(q, k, v), common)
        if last:
            return _State(common, self._read_only(shared, of, state.own, before, layer))
        if projected is None:
            projected = _Projected(*self._turned(of, state.own, shared.turn))
        mixed = self._mixed(shared, (projected.q, projected.k, projected.v), before, layer)
        return _State(common, self._behind(of, mixed, state.own))

    def readout(self, texts: Texts, state: _State, count: int) -> Tensor:
        """The states (P, N, H) of each text's last row."""
        return self.model.finish(state.own).expand(count, -1, -1)

    def _added(self, shared: _Shared, state: _State, prompt: Tensor) -> _State:
        """The state with prompts (P or 1, T, H) added at their rows."""
        if shared.unchanged is None:
            common = state.shared.expand(max(len(state.shared), len(prompt)), -1, -1).clone()
            common[:, -shared.tokens :] += prompt
            return _State(common, state.own)
        own = state.own.expand(max(len(state.own), len(prompt)), -1, -1).clone()
        for run in shared.packing.runs:
            run.inside(own)[:, :, : shared.tokens] += prompt[:, None]
        return _State(state.shared, own)

    def _before(self, shared: _Shared, layer: int, prompt: Tensor | None) -> KeysValues | None:
        """Keys and values, the same for all texts, of leading specials and of a prefix (P or 1, T, H)."""
        if not shared.sets or prompt is None:
            return None
        # Behind texts of different lengths a prefix is turned run by run.
        turn = shared.common_turn if shared.unchanged is None else None
        k, v = self._keys_values(self._layers[layer], prompt, turn)
        if shared.unchanged is None and shared.before:
            special_k, special_v = (of_specials.expand(len(k), -1, -1, -1) for of_specials in shared.before[layer])
            return torch.cat([special_k, k], dim=1), torch.cat([special_v, v], dim=1)
        return k, v

    def _turned(self, of: RotaryLayer, rows: Tensor, turn: Turn) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys, values (P, R, heads, head size) of rows (P, R, H), turned to their positions: one product."""
        out = self._products.linear(of.norm(rows), *of.qkv)
        q, kv = out[..., : of.q_width], out[..., of.q_width :]
        return turned_heads(q, of.q_norm, of.head_size, turn), *self._split(of, kv, turn)

    def _queries(self, of: RotaryLayer, rows: Tensor, turn: Turn) -> Tensor:
        weight, bias = of.qkv
        q = self._products.linear(of.norm(rows), weight[: of.q_width], None if bias is None else bias[: of.q_width])
        return turned_heads(q, of.q_norm, of.head_size, turn)

    def _keys_values(self, of: RotaryLayer, rows: Tensor, turn: Turn | None) -> KeysValues:
        weight, bias = of.qkv
        kv = self._products.linear(of.norm(rows), weight[of.q_width :], None if bias is None else bias[of.q_width :])
        return self._split(of, kv, turn)

    def _split(self, of: RotaryLayer, kv: Tensor, turn: Turn | None) -> KeysValues:
        k, v = kv.chunk(2, dim=-1)
        return turned_heads(k, of.k_norm, of.head_size, turn), heads(v, of.head_size)

    def _turn(self, places: Sequence[int]) -> Turn:
        """Cosines and sines of positions, from the model's own rotary embedding."""
        positions = torch.tensor(list(places), device=self.model.device, dtype=torch.int64)
        cos, sin = self.model.body.rotary_emb(torch.zeros((), device=positions.device), positions[None])
        return cos[0][:, None].to(self._products.dtype), sin[0][:, None].to(self._products.dtype)

    def _behind(self, of: RotaryLayer, mixed: Tensor, state: Tensor) -> Tensor:
        """The rest of a layer behind its attention."""
        state = self._products.linear(mixed, *of.out).add_(state)
        gate, up = self._products.linear(of.last_norm(state), *of.gate_up).chunk(2, dim=-1)
        return self._products.linear(of.act(gate).mul_(up), *of.down).add_(state)

    def _read_only(
        self, shared: _Shared, of: RotaryLayer, own: Tensor, before: KeysValues | None, layer: int
    ) -> Tensor:
        """The last layer at the last row of each text, (P, N, H): keys and values of all rows, one query a text."""
        ends = shared.packing.positions([length - 1 for length in shared.packing.lengths]).to(own.device)
        read = own[:, ends]
        k, v = self._keys_values(of, own, shared.turn)
        q = self._queries(of, read, (shared.turn[0][ends], shared.turn[1][ends]))
        count = max(len(own), 1 if before is None else len(before[0]))
        mixed = own.new_empty(count, len(ends), of.q_width)
        for run in shared.packing.runs:
            keys, values = self._keys(shared, run, (k, v), before, layer)
            asked = run.of_texts(q.expand(count, -1, -1, -1))[:, None]
            run.put_texts(mixed, self._attend(asked, keys, values, None))
        return self._behind(of, mixed, read)

    # -- attention

    def _mixed(
        self, shared: _Shared, own: tuple[Tensor, Tensor, Tensor], before: KeysValues | None, layer: int | None
    ) -> Tensor:
        """Attention (P, R, q width) of the texts' own rows on themselves and on what stands before them."""
        q, k, v = own
        count = max(len(q), 1 if before is None else len(before[0]))
        mixed = q.new_empty(count, shared.packing.rows, q.shape[-2] * q.shape[-1])
        q = q.expand(count, -1, -1, -1)
        for run in shared.packing.runs:
            keys, values = self._keys(shared, run, (k, v), before, layer)
            mask = causal_mask(run.length, keys.shape[1], q.device)
            run.put(mixed, self._attend(run.split(q), keys, values, mask))
        return mixed

    def _keys(
        self, shared: _Shared, run: Run, own: KeysValues, before: KeysValues | None, layer: int | None
    ) -> KeysValues:
        """All that the rows of a run see, (P * texts, K, ...): unchanged text, prompt, their own rows."""
        count = max(len(own[0]), 1 if before is None else len(before[0]))
        k, v = (run.split(part.expand(count, -1, -1, -1)) for part in own)
        if before is not None:
            more_k, more_v = before
            if shared.unchanged is not None:
                start = shared.unchanged.lengths[run.first]
                more_k = rotated(more_k, self._turn(range(start, start + shared.tokens)))
            k, v = (
                torch.cat([_for_texts(more, run.count, count), part], dim=1)
                for more, part in ((more_k, k), (more_v, v))
            )
        if shared.unchanged is not None and layer is not None:
            length, start = shared.unchanged.lengths[run.first], shared.unchanged.starts[run.first]
            at = Run(run.first, start, run.count, length)
            texts = (at.split(part).repeat(count, 1, 1, 1) for part in shared.before[layer])
            k, v = (torch.cat([text, part], dim=1) for text, part in zip(texts, (k, v), strict=True))
        return k, v

    def _causal(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return self._attend(q, k, v, causal_mask(q.shape[1], q.shape[1], q.device))

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        groups = q.shape[2] // k.shape[2]
        if groups > 1:
            k, v = k.repeat_interleave(groups, dim=2), v.repeat_interleave(groups, dim=2)
        return attention(q, k, v, mask, self._scale)


def _for_texts(part: Tensor, texts: int, count: int) -> Tensor:
    """(P or 1, T, ...) as (P * texts, T, ...)."""
    wide = part.expand(count, *part.shape[1:])[:, None].expand(-1, texts, *part.shape[1:])
    return wide.reshape(count * texts, *part.shape[1:])


def _shared(texts: Texts) -> _Shared:
    assert isinstance(texts, _Shared)
    return texts
