"""A frozen transformers model, with prompts put into its hidden states.

The forward here is the plain one: the stock model, with a hook before each layer. Faster ones are measured
against it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import AbstractContextManager, contextmanager
from operator import attrgetter
from typing import Any, TypeVar

import torch
from torch import Tensor

from bbtune.backbone.encoding import Batch
from bbtune.backbone.prompted import Prompts, put
from bbtune.backbone.quiet import quiet_transformers
from bbtune.backbone.sources import ModelCard
from bbtune.backbone_spec import BackboneSpec
from bbtune.errors import BackboneError

T = TypeVar("T")
Call = tuple[tuple[Any, ...], dict[str, Any]]  # how a layer was called: args behind the hidden states, kwargs

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_PLAIN = Prompts()


class FrozenModel:
    """A model whose weights ask for no gradient; a baseline that trains some of them says so itself.

    Callers that want none of autograd's bookkeeping run it in inference mode.

    Args:
        card: what :func:`read_model_card` found.
        model: with its language-modelling head, or the bare encoder of a sentence encoder.
    """

    def __init__(self, card: ModelCard, model: Any) -> None:
        family = card.family
        self.card = card
        self.model = model.eval().requires_grad_(False)
        self.body = model.base_model
        self.runner = attrgetter(family.runs)(self.body) if family.runs else self.body
        self.layers: list[Any] = list(attrgetter(family.layers)(self.body))
        steps = [attrgetter(name)(self.body) for name in family.norms]
        self._norms = [step for step in steps if step is not None]
        self._derived: dict[Hashable, Any] = {}

    @property
    def hidden_size(self) -> int:
        """Width H of the hidden states."""
        return int(self.model.config.hidden_size)

    @property
    def embeddings(self) -> Tensor:
        """Input embedding weights (vocabulary, their width)."""
        return self.model.get_input_embeddings().weight  # type: ignore[no-any-return]

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return self.embeddings.device

    def once(self, name: Hashable, make: Callable[[], T]) -> T:
        """What is derived from the weights, made when it is first asked for: all users of the model share it."""
        if name not in self._derived:
            self._derived[name] = make()
        return self._derived[name]  # type: ignore[no-any-return]

    def states(self, batch: Batch, prompts: Prompts = _PLAIN) -> Tensor:
        """Last hidden states (B, S, H) of the tuned stack, each layer's input changed by its prompt."""
        with self._prompted(batch, prompts):
            return self._run(batch)

    def changed(self, batch: Batch, change: Callable[[int, Tensor], Tensor]) -> Tensor:
        """Last hidden states (B, S, H) of the tuned stack.

        Args:
            change: from a layer's number and the hidden states (B, S, H) that enter it to those that it shall see.
        """
        with self._hooked(lambda layer, hidden, call: change(layer, hidden)):
            return self._run(batch)

    def cache(self, batch: Batch, prompts: Prompts) -> Any:
        """What a causal model keeps of a batch for the tokens behind it: transformers' cache of keys and values."""
        ids, mask = batch.ids.to(self.device), batch.mask.to(self.device)
        with self._prompted(batch, prompts):
            return self.runner(input_ids=ids, attention_mask=mask, use_cache=True).past_key_values

    def entering(self, batch: Batch, prompts: Prompts = _PLAIN) -> list[Tensor]:
        """Hidden states (B, S, H) that enter each layer, with their prompts in them."""
        return [hidden for hidden, _ in self.calls(batch, prompts)]

    def calls(self, batch: Batch, prompts: Prompts = _PLAIN) -> list[tuple[Tensor, Call]]:
        """The hidden states (B, S, H) that enter each layer, and what else it was called with."""
        seen: list[tuple[Tensor, Call]] = []

        def record(layer: int, hidden: Tensor, call: Call) -> Tensor:
            if layer in prompts.layers:
                hidden = put(hidden, batch.prompt, prompts.layers[layer], prompts.sets)
            seen.append((hidden, call))
            return hidden

        with self._hooked(record):
            self._run(batch)
        return seen

    def embedded(self, batch: Batch) -> Tensor:
        """Hidden states (B, S, H) that enter the first layer; no layer runs."""

        def stop(layer: int, hidden: Tensor, call: Call) -> Tensor:
            raise _Reached(hidden)

        try:
            with self._hooked(stop):
                self._run(batch)
        except _Reached as reached:
            return reached.hidden
        raise BackboneError("the model ran without its layers; please report this")

    def finish(self, hidden: Tensor) -> Tensor:
        """What follows the last layer, on hidden states (..., H)."""
        for step in self._norms:
            hidden = step(hidden)
        return hidden

    def readout(self, batch: Batch, states: Tensor, hidden_prompt: int | Tensor) -> Tensor:
        """The state (B, H) that is scored: at the position read, the mean, or the decoder's.

        Args:
            states: last hidden states (B, S, H) of the tuned stack.
            hidden_prompt: T where the prompt's positions are no outputs (prefix), else 0; of all rows or of each (B,).
        """
        rows = torch.arange(len(batch.ids), device=states.device)
        if self.card.kind in ("masked-lm", "causal-lm"):
            return states[rows, batch.read.to(states.device)]
        place = torch.arange(batch.mask.shape[1]) - batch.prompt[:, None]
        length = torch.as_tensor(hidden_prompt).expand(len(place))[:, None]
        mask = batch.mask.masked_fill((place >= 0) & (place < length), 0).to(states.device)
        if self.card.kind == "sentence-encoder":
            weight = mask.unsqueeze(-1).float()
            return (states.float() * weight).sum(dim=1) / weight.sum(dim=1)
        return self._decoded(batch, states, mask)[rows, batch.read.to(states.device)]

    def _decoded(self, batch: Batch, states: Tensor, mask: Tensor) -> Tensor:
        assert batch.decoder_ids is not None  # for mypy: an encoder-decoder model's batch has them
        out = self.body.decoder(
            input_ids=batch.decoder_ids.to(states.device),
            encoder_hidden_states=states,
            encoder_attention_mask=mask,
            use_cache=False,
        ).last_hidden_state
        scaled = getattr(self.model.config, "scale_decoder_outputs", False)
        return out * self.model.config.d_model**-0.5 if scaled else out  # type: ignore[no-any-return]

    def _run(self, batch: Batch) -> Tensor:
        plain = {"use_cache": False} if self.card.kind == "causal-lm" else {}
        ids, mask = batch.ids.to(self.device), batch.mask.to(self.device)
        return self.runner(input_ids=ids, attention_mask=mask, **plain).last_hidden_state  # type: ignore[no-any-return]

    def _prompted(self, batch: Batch, prompts: Prompts) -> AbstractContextManager[None]:
        def change(layer: int, hidden: Tensor, _: Call) -> Tensor:
            if layer not in prompts.layers:
                return hidden
            return put(hidden, batch.prompt, prompts.layers[layer], prompts.sets)

        return self._hooked(change)

    @contextmanager
    def _hooked(self, change: Callable[[int, Tensor, Call], Tensor]) -> Iterator[None]:
        def hook(layer: int) -> Callable[..., Any]:
            def before_layer(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
                if args:
                    return (change(layer, args[0], (args[1:], kwargs)), *args[1:]), kwargs
                rest = {key: value for key, value in kwargs.items() if key != "hidden_states"}
                return args, {**rest, "hidden_states": change(layer, kwargs["hidden_states"], ((), rest))}

            return before_layer

        handles = [
            layer.register_forward_pre_hook(hook(number), with_kwargs=True) for number, layer in enumerate(self.layers)
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


class _Reached(Exception):
    """The first layer was reached."""

    def __init__(self, hidden: Tensor) -> None:
        super().__init__()
        self.hidden = hidden


def check_device(spec: BackboneSpec) -> None:
    """Refuse a device that this process does not see.

    Raises:
        BackboneError: if it is not there.
    """
    if spec.device.startswith("cuda") and not torch.cuda.is_available():
        raise BackboneError(f"backbone.device: {spec.device} was asked for, but no CUDA device is to be seen; use cpu")


def load_frozen(card: ModelCard, spec: BackboneSpec) -> FrozenModel:
    """Read the weights of a model that :func:`read_model_card` found.

    Raises:
        BackboneError: if the weights cannot be read, or the device is not there.
    """
    quiet_transformers()
    import transformers

    check_device(spec)
    classes = {
        "masked-lm": "AutoModelForMaskedLM",
        "causal-lm": "AutoModelForCausalLM",
        "seq2seq-lm": "AutoModelForSeq2SeqLM",
        "sentence-encoder": card.family.encoder_class or "AutoModel",
    }
    try:
        model = getattr(transformers, classes[card.kind]).from_pretrained(
            card.files.name,
            dtype=DTYPES[spec.dtype],
            use_safetensors=None if card.files.gguf or spec.allow_pickle else True,
            **card.files.arguments(spec),
        )
        model = model.to(spec.device)
    except Exception as error:  # transformers, the hub and CUDA raise many kinds
        reason = " ".join(str(error).split())[:300]
        raise BackboneError(f"backbone.model: the weights of {spec.model} cannot be read ({reason})") from error
    return FrozenModel(card, model)
