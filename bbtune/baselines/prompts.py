"""Trained prompts: states at the input or at every layer, products that make them, keys and values of attention."""

from __future__ import annotations

import sys
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bbtune.backbone.encoding import Row
from bbtune.backbone.frozen import FrozenModel
from bbtune.backbone.prompted import Prompts
from bbtune.baselines.learner import TextLearner, import_peft, rank_of, torch_seeded
from bbtune.errors import BackboneError
from bbtune.plan import Plan
from bbtune.prompts.space import prefix_bases
from bbtune.seeds import generator

KeysValues = tuple[Tensor, Tensor]


class PromptLearner(TextLearner):
    """States that take the place of the prompt text's; they start as that text's own, run without any input.

    Args:
        plan: of the job.
        model: the job's, where it is loaded already.
    """

    def __init__(self, plan: Plan, model: FrozenModel | None = None) -> None:
        super().__init__(plan, with_prompt=True, model=model)
        self._bases = [base.detach().clone() for base in prefix_bases(self.frozen, self.encoder)]

    @abstractmethod
    def prompts(self) -> Prompts:
        """The prompt as it is now, with its graph."""

    def forward(self, items: Sequence[Row]) -> Tensor:
        """Label logits (B, C) of rows; the prompt's positions are no outputs."""
        batch = self.encoder.batch(items)
        states = self.frozen.states(batch, self.prompts())
        return self.head(self.frozen.readout(batch, states, self.encoder.prompt_length))


class PromptTuning(PromptLearner):
    """A trained prompt (T, H) at the input (Lester et al. 2021, arXiv 2104.08691).

    peft's ``PromptEmbedding`` does not fit: it puts its tokens before the special ones, and into a mean of the states.
    """

    def __init__(self, plan: Plan, model: FrozenModel | None = None) -> None:
        super().__init__(plan, model)
        self.prompt = nn.Parameter(self._bases[0])

    def prompts(self) -> Prompts:
        """The trained states, at the first layer."""
        return Prompts({0: self.prompt}, sets=True)


class DeepPrompts(PromptLearner):
    """Trained states (T, H) at every layer, as prefix searches have: P-Tuning v2 (Liu et al. 2021, 2110.07602)."""

    def __init__(self, plan: Plan, model: FrozenModel | None = None) -> None:
        super().__init__(plan, model)
        self.layers = nn.ParameterList(self._bases)

    def prompts(self) -> Prompts:
        """The trained states, at all layers."""
        return Prompts(dict(enumerate(self.layers)), sets=True)


class LowRankPrompt(PromptLearner):
    """A prompt at the input that differs from its text by a product of rank r (Xiao et al. 2023, arXiv 2310.10094)."""

    def __init__(self, plan: Plan, model: FrozenModel | None = None) -> None:
        super().__init__(plan, model)
        tokens, size = self._bases[0].shape
        self.change = _Product(plan, (tokens, size), self._bases[0])

    def prompts(self) -> Prompts:
        """The text's states and their change, at the first layer."""
        return Prompts({0: self._bases[0] + self.change()}, sets=True)


class DePT(PromptLearner):
    """A trained prompt at the input, and a change of rank r of the word embeddings, position by position.

    Shi & Lipani 2024, arXiv 2309.05173. There the prompt is shortened by what the change costs; here the job says how
    long it is. Positions are counted from the start of a row.
    """

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self.prompt = nn.Parameter(self._bases[0])
        embeddings = self.frozen.embeddings
        self.change = _Product(plan, (self.encoder.max_tokens, embeddings.shape[1]), embeddings)

    def prompts(self) -> Prompts:
        """The trained states, at the first layer."""
        return Prompts({0: self.prompt}, sets=True)

    def forward(self, items: Sequence[Row]) -> Tensor:
        """Label logits (B, C) of rows."""
        change = self.change()

        def add(_: nn.Module, __: Any, embedded: Tensor) -> Tensor:
            changed: Tensor = embedded + change[: embedded.shape[1]].to(embedded.dtype)
            return changed

        batch = self.encoder.batch(items)
        # An encoder-decoder model's decoder, which runs afterwards, may share the module.
        handle = self.frozen.runner.get_input_embeddings().register_forward_hook(add)
        try:
            states = self.frozen.states(batch, self.prompts())
        finally:
            handle.remove()
        return self.head(self.frozen.readout(batch, states, self.encoder.prompt_length))


class _Product(nn.Module):
    """``U V`` of rank r, zero at the start, in units of the standard deviation of what it is added to.

    Args:
        plan: of the job.
        shape: of the product.
        changed: what it is added to.
    """

    def __init__(self, plan: Plan, shape: tuple[int, int], changed: Tensor) -> None:
        super().__init__()
        rank = rank_of(plan)
        entries = generator(plan.spec.seed, "low-rank").standard_normal((shape[0], rank), dtype=np.float32)
        self.left = nn.Parameter(torch.from_numpy(entries / np.float32(np.sqrt(rank))).to(changed.device))
        self.right = nn.Parameter(torch.zeros(rank, shape[1], device=changed.device))
        self._unit = float(changed.float().std())

    def forward(self) -> Tensor:
        return self._unit * (self.left @ self.right)


class PrefixTuning(TextLearner):
    """Trained keys and values of T virtual positions at every layer (Li & Liang 2021, arXiv 2101.00190), kept by peft.

    They start as those of the prompt text, run without any input: section 7.4 finds real words far better than random
    numbers where examples are few. The tokens of a row keep their positions. Layers with a sliding window see the whole
    prefix from everywhere.
    """

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan, with_prompt=False)
        _reroute_attention(self.frozen)
        start = _keys_values(self.frozen, plan)
        self._shape = tuple(start.shape)
        layers, _, heads, tokens, width = self._shape
        peft = import_peft()
        config = peft.PrefixTuningConfig(
            num_layers=layers,
            token_dim=heads * width,
            num_attention_heads=heads,
            num_virtual_tokens=tokens,
            num_transformer_submodules=1,
        )
        with torch_seeded(plan.spec.seed, "prefix"):
            self.prefix = peft.PrefixEncoder(config).to(self.frozen.device)
        flat = start.permute(3, 0, 1, 2, 4).reshape(tokens, -1)
        self.load({"prefix.embedding.weight": flat})

    def keys_values(self) -> list[KeysValues]:
        """Keys and values (heads, T, width) of each layer, as peft lays them out, with their graph."""
        layers, pair, heads, tokens, width = self._shape
        flat: Tensor = self.prefix(torch.arange(tokens, device=self.device))
        by_layer = flat.reshape(tokens, layers, pair, heads, width).permute(1, 2, 3, 0, 4)
        return [(keys, values) for keys, values in by_layer]

    def forward(self, items: Sequence[Row]) -> Tensor:
        """Label logits (B, C) of rows."""
        batch = self.encoder.batch(items)
        with _attending(self.frozen, _Attended(self.keys_values())):
            states = self.frozen.states(batch)
        return self.head(self.frozen.readout(batch, states, 0))


class _Attended:
    """What the attention of the layers is given, or where nothing is, what it comes to.

    Args:
        prefixes: keys and values (heads, T, width) of each layer; none to look only.
    """

    def __init__(self, prefixes: Sequence[KeysValues] = ()) -> None:
        self.prefixes = prefixes
        self.layer = -1
        self.seen: dict[int, KeysValues] = {}


# Attention functions are registered by name for the whole process; only the learner that runs has anything in here.
_NOW: ContextVar[_Attended | None] = ContextVar("attended", default=None)


@contextmanager
def _attending(frozen: FrozenModel, attended: _Attended) -> Iterator[None]:
    """While the layers run: not a decoder, whose attention is left alone."""

    def about_to(layer: int) -> Callable[..., None]:
        def before(_: nn.Module, __: Any) -> None:
            attended.layer = layer

        return before

    handles = [layer.register_forward_pre_hook(about_to(number)) for number, layer in enumerate(frozen.layers)]
    token = _NOW.set(attended)
    try:
        yield
    finally:
        _NOW.reset(token)
        for handle in handles:
            handle.remove()


def _reroute_attention(frozen: FrozenModel) -> None:
    """Let the model's attention pass through :func:`_prefixed`."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

    plain = frozen.runner.config._attn_implementation
    if plain not in ("sdpa", "eager"):
        raise _unfit(frozen, f"attention {plain}")
    name = f"bbtune_prefix_{plain}"
    AttentionInterface.register(name, _prefixed(plain))
    AttentionMaskInterface.register(name, ALL_MASK_ATTENTION_FUNCTIONS[plain])
    frozen.model.set_attn_implementation(name)


def _prefixed(plain: str) -> Callable[..., Any]:
    """The attention function of that name, with the layer's prefix in front of its keys and values."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    def attention(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
    ) -> Any:
        attended = _NOW.get()
        if attended is not None and attended.prefixes:
            causal = kwargs.get("is_causal")
            causal = getattr(module, "is_causal", True) if causal is None else causal
            first = [of.to(key.dtype).expand(len(key), -1, -1, -1) for of in attended.prefixes[attended.layer]]
            attention_mask = _widened(attention_mask, query, first[0].shape[2], causal)
            key, value = torch.cat([first[0], key], dim=2), torch.cat([first[1], value], dim=2)
            if kwargs.get("position_bias") is not None:  # T5's; none towards a prefix, which stands nowhere
                kwargs["position_bias"] = _in_front(kwargs["position_bias"], first[0].shape[2], 0)
        elif attended is not None:
            attended.seen[attended.layer] = (key, value)
        eager = getattr(sys.modules[type(module).__module__], "eager_attention_forward", None)
        function = ALL_ATTENTION_FUNCTIONS.get_interface(plain, eager)
        return function(module, query, key, value, attention_mask, **kwargs)

    return attention


def _widened(mask: Tensor | None, query: Tensor, tokens: int, causal: bool) -> Tensor | None:
    """A mask (B, 1, S, S) with the prefix in front, which all see: (B, 1, S, T + S)."""
    if mask is None and not causal:
        return None
    if mask is None:
        size = query.shape[2]
        lowest = torch.finfo(query.dtype).min
        mask = torch.full((1, 1, size, size), lowest, dtype=query.dtype, device=query.device).triu(1)
    return _in_front(mask, tokens, mask.dtype == torch.bool)


def _in_front(wide: Tensor, tokens: int, value: float) -> Tensor:
    """(..., S) with T columns of one value in front."""
    return torch.cat([wide.new_full((*wide.shape[:-1], tokens), value), wide], dim=-1)


@torch.no_grad()
def _keys_values(frozen: FrozenModel, plan: Plan) -> Tensor:
    """Keys and values (L, 2, heads, T, width) of the prompt text, run without any input."""
    encoder, attended = plan.encoder(frozen.card, with_prompt=True), _Attended()
    alone = encoder.prompt_alone()
    with _attending(frozen, attended):
        frozen.states(encoder.batch([alone]))
    if missing := [layer for layer in range(len(frozen.layers)) if layer not in attended.seen]:
        raise _unfit(frozen, f"attention of its own in layers {missing}")
    span = slice(alone.prompt, alone.prompt + encoder.prompt_length)
    found = [[of[0, :, span].float() for of in attended.seen[layer]] for layer in range(len(frozen.layers))]
    if len({of.shape for pair in found for of in pair}) > 1:
        raise _unfit(frozen, "heads of different sizes")
    return torch.stack([torch.stack(pair) for pair in found])


def _unfit(frozen: FrozenModel, got: str) -> BackboneError:
    expected = "a model whose layers attend alike through transformers' AttentionInterface, as BERT, GPT-2 and Llama do"
    kind = frozen.card.config.model_type
    return BackboneError(f"method: prefix-tuning expected {expected}, got {kind} with {got}; use deep-prompts")
