"""A prompt of a left-to-right model as what stock models take: keys and values, or input embeddings.

A causal model's prompt positions see nothing of the text behind them, so their keys and values at every layer are
numbers that no text changes: a prefix of keys and values (P-Tuning v2, arXiv 2110.07602) is the same model, whatever
was added to or put into the hidden states there. Special tokens that stand before the prompt are part of it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bbtune.backbone.prompted import put
from bbtune.errors import ExportError
from bbtune.tuned import Tuned


def check_exportable(found: Tuned) -> None:
    """Refuse prompts that a stock model cannot be given.

    Raises:
        ExportError: with the reason, and what to do instead.
    """
    kind, place, family = found.model.card.kind, found.encoder.prompt.place, found.model.card.config.model_type
    instead = "; use --format safetensors, or --format mlflow"
    if kind in ("masked-lm", "sentence-encoder"):
        why = "peft puts its tokens before the special ones, where the positions of all others change"
        raise ExportError(
            f"expected a causal or encoder-decoder language model, got a {kind} ({family}): {why}{instead}"
        )
    if place == "after":
        why = "peft puts its tokens before the text"
        raise ExportError(
            f"expected a prompt before the text (prompt.place: before), got one behind it: {why}{instead}"
        )
    if kind == "seq2seq-lm" and (found.prompts.sets or not is_input_only(found)):
        why = "in an encoder the prompt's states depend on the text, and peft's prompts are at the input alone"
        raise ExportError(f"expected an offset prompt at the input of a {kind}, got another: {why}{instead}")
    if kind == "seq2seq-lm" and found.encoder.prompt_alone().prompt:
        why = "peft puts its tokens before it"
        raise ExportError(f"expected a {kind} without a special token before the text, got {family}: {why}{instead}")


def is_input_only(found: Tuned) -> bool:
    """Whether nothing but what enters the first layer is changed."""
    return set(found.prompts.layers) == {0}


@torch.inference_mode()
def keys_and_values(found: Tuned) -> Tensor:
    """Keys and values (L, 2, heads, T', head size) of the T' positions before a text of a causal model."""
    alone, model = found.encoder.prompt_alone(), found.model
    batch = found.encoder.batch([alone])
    seen = model.cache(batch, found.prompts)
    shapes = {tuple(of.shape) for layer in seen.layers for of in (layer.keys, layer.values)}
    if len(shapes) > 1 or next(iter(shapes))[2] != batch.ids.shape[1]:
        family = model.card.config.model_type
        raise ExportError(f"expected layers that keep keys and values alike, got {family} with {sorted(shapes)}")
    return torch.stack([torch.stack([layer.keys[0], layer.values[0]]) for layer in seen.layers]).float().cpu()


@torch.inference_mode()
def input_embeddings(found: Tuned) -> Tensor:
    """Input embeddings (T', H) that enter the first layer as the prompt does.

    Raises:
        ExportError: if the model's embeddings are not as wide as its layers.
    """
    alone, model = found.encoder.prompt_alone(), found.model
    batch = found.encoder.batch([alone])
    words = model.model.get_input_embeddings()(batch.ids.to(model.device))
    if words.shape[-1] != model.hidden_size:
        width = f"{words.shape[-1]} wide, its layers {model.hidden_size}"
        raise ExportError(f"expected embeddings as wide as the layers, got a model whose are {width}; use peft-prefix")
    before = model.embedded(batch)
    after = put(before, batch.prompt, found.prompts.layers[0], found.prompts.sets)
    # Some models multiply what they look up before the first layer; positions are added behind that.
    scale = float(model.model.config.hidden_size**0.5) if _scales(before, words) else 1.0
    virtual: Tensor = words + (after - before) / scale
    return virtual[0, : alone.prompt + found.encoder.prompt_length].float().cpu()


def _scales(entering: Tensor, words: Tensor) -> bool:
    scaled = words * words.shape[-1] ** 0.5
    return bool((entering - scaled).abs().max() < 1e-3 * (entering - words).abs().max())
