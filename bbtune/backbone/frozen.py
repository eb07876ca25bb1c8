"""A frozen transformers model that scores labels, with prompts put into its hidden states.

The forward here is the plain one: the stock model, with a hook before each layer. Faster ones are measured
against it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from bbtune.backbone.encoding import Batch
from bbtune.backbone.families import FAMILIES
from bbtune.backbone.quiet import quiet_transformers
from bbtune.backbone.sources import ModelCard
from bbtune.errors import BackboneError
from bbtune.spec import BackboneSpec

Edit = Callable[[Tensor], Tensor]  # hidden states (B, S, H) entering a layer -> the same, changed

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class FrozenModel:
    """A model in inference mode.

    Args:
        card: what :func:`read_model_card` found.
        model: with its language-modelling head, or the bare encoder of a sentence encoder.
        temperature: divides the cosines of sentence encoders.
    """

    def __init__(self, card: ModelCard, model: Any, temperature: float) -> None:
        family = FAMILIES[card.config.model_type]
        self.card = card
        self.model = model.eval().requires_grad_(False)
        self.body = model.base_model
        self.layers: list[Any] = list(self.body.get_submodule(family.layers))
        self._head = None if card.kind == "sentence-encoder" else model.get_submodule(family.head)
        self._temperature = temperature

    @property
    def hidden_size(self) -> int:
        """Width H of the hidden states."""
        return int(self.embeddings.shape[1])

    @property
    def embeddings(self) -> Tensor:
        """Input embedding weights (vocabulary, H)."""
        return self.model.get_input_embeddings().weight  # type: ignore[no-any-return]

    @torch.inference_mode()
    def states(self, batch: Batch, edits: Mapping[int, Edit]) -> Tensor:
        """Last hidden states (B, S, H), each layer's input changed by its edit."""
        device = self.embeddings.device
        with self._hooked(edits):
            out = self.body(input_ids=batch.ids.to(device), attention_mask=batch.mask.to(device), **self._plain())
        return out.last_hidden_state  # type: ignore[no-any-return]

    @torch.inference_mode()
    def entering(self, batch: Batch, edits: Mapping[int, Edit]) -> list[Tensor]:
        """Hidden states (B, S, H) that enter each layer, after the edits."""
        seen: dict[int, Tensor] = {}

        def recorder(layer: int) -> Edit:
            def record(hidden: Tensor) -> Tensor:
                seen[layer] = edits[layer](hidden) if layer in edits else hidden
                return seen[layer]

            return record

        self.states(batch, {layer: recorder(layer) for layer in range(len(self.layers))})
        return [seen[layer] for layer in range(len(self.layers))]

    @torch.inference_mode()
    def word_logits(self, states: Tensor, batch: Batch, words: Sequence[Tensor]) -> Tensor:
        """Label logits (B, C) of a language model: log of the summed exponentials of each label's words.

        Args:
            states: last hidden states (B, S, H).
            words: token ids of each label's words.
        """
        if self._head is None:
            raise BackboneError("a sentence encoder has no head that could score label words")
        rows = torch.arange(len(batch.read), device=states.device)
        logits = self._head(states[rows, batch.read.to(states.device)]).float()
        return torch.stack([logits[:, ids].logsumexp(dim=-1) for ids in words], dim=-1)

    @torch.inference_mode()
    def similarities(self, states: Tensor, mask: Tensor, labels: Sequence[Tensor]) -> Tensor:
        """Label logits (B, C) of a sentence encoder: cosine over the temperature, exponentials summed per label.

        Args:
            states: last hidden states (B, S, H).
            mask: (B, S), 1 for positions that are pooled.
            labels: normalised embeddings (descriptions, H) of each label.
        """
        pooled = self.pooled(states, mask)
        return torch.stack([(pooled @ of.T / self._temperature).logsumexp(dim=-1) for of in labels], dim=-1)

    @torch.inference_mode()
    def pooled(self, states: Tensor, mask: Tensor) -> Tensor:
        """Normalised mean (B, H) of the states where ``mask`` (B, S) is 1."""
        weight = mask.to(states.device).unsqueeze(-1).float()
        mean = (states.float() * weight).sum(dim=1) / weight.sum(dim=1)
        return torch.nn.functional.normalize(mean, dim=-1)

    def _plain(self) -> dict[str, Any]:
        return {"use_cache": False} if self.card.kind == "causal-lm" else {}

    @contextmanager
    def _hooked(self, edits: Mapping[int, Edit]) -> Iterator[None]:
        handles = [
            self.layers[layer].register_forward_pre_hook(_hook(edit), with_kwargs=True) for layer, edit in edits.items()
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def _hook(edit: Edit) -> Callable[..., Any]:
    def before_layer(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if args:
            return (edit(args[0]), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": edit(kwargs["hidden_states"])}

    return before_layer


def load_frozen(card: ModelCard, spec: BackboneSpec) -> FrozenModel:
    """Read the weights of a model that :func:`read_model_card` found.

    Raises:
        BackboneError: if the weights cannot be read, or the device is not there.
    """
    quiet_transformers()
    from transformers import AutoModel, AutoModelForCausalLM, AutoModelForMaskedLM

    if spec.device.startswith("cuda") and not torch.cuda.is_available():
        raise BackboneError(f"backbone.device: {spec.device} was asked for, but no CUDA device is to be seen; use cpu")
    kinds = {"masked-lm": AutoModelForMaskedLM, "causal-lm": AutoModelForCausalLM, "sentence-encoder": AutoModel}
    try:
        model = kinds[card.kind].from_pretrained(
            card.files.name,
            dtype=_DTYPES[spec.dtype],
            use_safetensors=None if card.files.gguf or spec.allow_pickle else True,
            **card.files.arguments(spec),
        )
        model = model.to(spec.device)
    except Exception as error:  # transformers, the hub and CUDA raise many kinds
        reason = " ".join(str(error).split())[:300]
        raise BackboneError(f"backbone.model: the weights of {spec.model} cannot be read ({reason})") from error
    return FrozenModel(card, model, spec.temperature)
