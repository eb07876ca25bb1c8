"""The input embeddings of a causal model, read alone: what a server of the same weights takes in place of text."""

from __future__ import annotations

import json
from math import sqrt
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from bbtune.backbone.frozen import DTYPES
from bbtune.backbone.sources import ModelCard
from bbtune.backbone_spec import BackboneSpec
from bbtune.errors import BackboneError, Fault
from bbtune.spec import JobSpec

_WEIGHTS = "model.safetensors"
_NAMES = {"embed_tokens.weight", "wte.weight", "embed_in.weight"}  # ends of the names that tensors have in files

# Families whose layers take the embeddings as they are, or with positions that the model adds by itself.
_PLAIN = {"llama", "mistral", "qwen2", "qwen3", "gpt2", "gpt_neox", "opt"}
_SCALED = {"gemma", "gemma2", "gemma3_text"}  # times sqrt(H), as part of the embedding


class InputEmbeddings:
    """What enters a model for given tokens.

    Args:
        weight: (V, H), as it is stored, in the job's dtype.
        scale: factor of what is looked up.

    Attributes:
        weight: as given.
    """

    def __init__(self, weight: Tensor, scale: float = 1.0) -> None:
        self.weight = weight
        self._scale = torch.tensor(scale).to(weight.dtype)  # rounded as the models do

    @property
    def hidden_size(self) -> int:
        """H."""
        return int(self.weight.shape[1])

    @property
    def std(self) -> float:
        """Standard deviation of the weight, the natural scale of prompts that are added at the input."""
        return float(self.weight.double().std(unbiased=False))

    def of(self, ids: list[int]) -> Tensor:
        """Embeddings (S, H) of token ids."""
        return self.weight[ids] * self._scale


def read_embeddings(card: ModelCard, spec: BackboneSpec) -> InputEmbeddings:
    """Read one tensor of the model's safetensors files; of a model of the hub, only the file that holds it is fetched.

    Raises:
        BackboneError: if the family is not known to take embeddings, or the tensor cannot be found.
    """
    if problem := _problem(card):
        raise BackboneError(f"backbone.model: {problem}")
    try:
        weight = _read(card, spec)
    except (OSError, ValueError, SafetensorError) as error:  # of the hub, of a file that is cut short
        reason = " ".join(str(error).split())[:300]
        raise BackboneError(f"backbone.model: the embeddings of {spec.model} cannot be read ({reason})") from error
    config = card.config
    return InputEmbeddings(weight, sqrt(config.hidden_size) if config.model_type in _SCALED else 1.0)


def wire_faults(spec: JobSpec, card: ModelCard | None) -> list[Fault]:
    """What keeps a continuous prompt from being tuned behind an API, which takes it as input embeddings.

    Args:
        card: of ``backbone.model``, the copy that is here; None where it could not be read.
    """
    prompt, api, found = spec.prompt, spec.backbone.api, []
    takes = "a server takes a continuous prompt as input embeddings alone"
    if prompt.kind != "offset":
        found.append(Fault("prompt.kind", f"expected offset with backbone.api, {takes}, got {prompt.kind}"))
    if prompt.layers not in ("input", [0]):
        found.append(Fault("prompt.layers", f"expected input with backbone.api, {takes}, got {prompt.layers}"))
    if spec.evaluators.count:
        why = "the API is asked from this process"
        found.append(Fault("evaluators.count", f"expected 0 with backbone.api, {why}, got {spec.evaluators.count}"))
    if api is not None and api.serve is not None:
        why = "the server that is started here does not take prompt_embeds"
        found.append(Fault("backbone.api.serve", f"expected base_url, such as that of vLLM; {why}"))
    if api is not None and api.style == "chat":
        why = "embeddings stand in the place of a whole text"
        found.append(Fault("backbone.api.style", f"expected completion or auto, {why}, got chat"))
    if api is not None and api.read not in ("auto", "label-logprobs"):
        why = "the log-probabilities of the label words are read"
        found.append(Fault("backbone.api.read", f"expected auto or label-logprobs, {why}, got {api.read}"))
    if card is not None and (problem := _problem(card)):
        found.append(Fault("backbone.model", problem))
    return found


def _problem(card: ModelCard) -> str | None:
    """Why a model's input embeddings cannot stand for its texts; None where they can."""
    family, config = card.config.model_type, card.config
    if card.kind != "causal-lm":
        return f"expected a causal language model, the kind that servers take embeddings for, got a {card.kind}"
    if family not in _PLAIN | _SCALED:
        return f"expected a family that is known to take embeddings, one of {sorted(_PLAIN | _SCALED)}, got {family}"
    if getattr(config, "word_embed_proj_dim", config.hidden_size) != config.hidden_size:
        width = f"{config.word_embed_proj_dim} wide, its layers {config.hidden_size}"
        return f"expected embeddings as wide as the layers, where the prompt is added, got a model whose are {width}"
    if card.files.gguf:
        return f"expected a folder with safetensors, of which the embeddings are read alone, got {card.files.gguf}"
    return None


def _read(card: ModelCard, spec: BackboneSpec) -> Tensor:
    file, name = _place(card)
    with safe_open(file, "pt") as tensors:
        names = [name] if name else [key for key in tensors.keys() if _is_embedding(key)]  # noqa: SIM118, no dict
        if len(names) != 1:
            raise ValueError(f"expected one tensor named like {sorted(_NAMES)} in {file.name}, found {names}")
        weight: Tensor = tensors.get_tensor(names[0])
    if weight.shape[1:] != (card.config.hidden_size,):
        raise ValueError(f"expected {names[0]} of width {card.config.hidden_size}, got {tuple(weight.shape)}")
    return weight.to(DTYPES[spec.dtype])


def _place(card: ModelCard) -> tuple[Path, str | None]:
    """The file that holds the embeddings, and their name in it, where an index of several files tells."""
    if (index := _file(card, f"{_WEIGHTS}.index.json")) is not None:
        files: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        for name in filter(_is_embedding, files):
            if (file := _file(card, files[name])) is not None:
                return file, name
    elif (file := _file(card, _WEIGHTS)) is not None:
        return file, None
    raise ValueError(f"expected {_WEIGHTS}, or its index and the file that the index names for the embeddings")


def _file(card: ModelCard, name: str) -> Path | None:
    if (folder := card.files.folder) is not None:
        return folder / name if (folder / name).is_file() else None
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    try:
        return Path(hf_hub_download(card.files.name, name, revision=card.files.revision))
    except EntryNotFoundError:  # nor kept from an earlier time, where there is no network
        return None


def _is_embedding(name: str) -> bool:
    return ".".join(name.split(".")[-2:]) in _NAMES
