"""Which path a model takes through its layers, and why."""

from __future__ import annotations

from bbtune.backbone.encoding import Encoder
from bbtune.backbone.families import PostNorm, Rotary
from bbtune.backbone.frozen import FrozenModel
from bbtune.backbone.mixed import MixedPath, StockMixed
from bbtune.backbone.mixed_encoder import PackedMixed
from bbtune.backbone.packed_encoder import PackedEncoder
from bbtune.backbone.products import Products
from bbtune.backbone.replay import ReplayStack
from bbtune.backbone.shared_decoder import SharedDecoder
from bbtune.backbone.sources import ModelCard
from bbtune.backbone.stack import Stack

_ROTATIONS = {"default", "linear", "llama3", "yarn"}  # that turn a position the same way whatever the text's length


def choose_path(model: FrozenModel, encoder: Encoder, products: Products) -> Stack:
    """The fastest exact path for a model; its ``name`` says which, and why it is not a path of our own."""
    layout = model.card.family.layout
    reason = why_not(model.card, encoder.max_tokens)
    if reason is None and isinstance(layout, PostNorm):
        return PackedEncoder(model, encoder, products)
    if reason is None and isinstance(layout, Rotary):
        return SharedDecoder(model, encoder, products)
    return ReplayStack(model, encoder, reason or "")


def choose_mixed(model: FrozenModel, max_tokens: int, products: Products) -> MixedPath:
    """The fastest exact path for texts of different prompts.

    Args:
        max_tokens: of a row.
    """
    if isinstance(model.card.family.layout, PostNorm) and why_not(model.card, max_tokens) is None:
        return PackedMixed(model, products)
    return StockMixed(model)


def why_not(card: ModelCard, max_tokens: int) -> str | None:
    """Why no path of our own is exact for a model; None where one is."""
    config, layout = card.config, card.family.layout
    if layout is None:
        return f"no path is written for the layers of {config.model_type}"
    if getattr(config, "is_decoder", False) and isinstance(layout, PostNorm):
        return "the encoder is set up as a decoder"
    if getattr(config, "position_embedding_type", "absolute") != "absolute":
        return f"its positions are {config.position_embedding_type}"
    if isinstance(layout, PostNorm):
        return None
    rope = getattr(config, "rope_parameters", None) or {}
    rotation = rope.get("rope_type", "default")
    if rotation not in _ROTATIONS:
        return f"its rotary positions ({rotation}) depend on the length of the text"
    if rope.get("partial_rotary_factor", getattr(config, "partial_rotary_factor", None)) not in (None, 1.0):
        return "only part of each head is turned"
    window = getattr(config, "sliding_window", None)
    if window is not None and window < max_tokens:
        return f"its attention window of {window} tokens is shorter than backbone.max_tokens, {max_tokens}"
    return None
