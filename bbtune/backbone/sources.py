"""Find a model's files and read what can be read without its weights: configuration, tokenizer, kind."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from bbtune.backbone.families import FAMILIES, Family
from bbtune.backbone.fetch import cached_model
from bbtune.backbone.quiet import quiet_transformers
from bbtune.backbone_spec import BackboneSpec
from bbtune.errors import BackboneError

_OF_THIS_MACHINE = {"_name_or_path", "transformers_version"}  # in a configuration that was read


@dataclass(frozen=True)
class ModelFiles:
    """Where a model lies: a folder or hub name for transformers, and the GGUF file in it if it is one."""

    name: str
    gguf: str | None = None
    revision: str | None = None

    @property
    def folder(self) -> Path | None:
        """The local folder, None for a model of the hub."""
        path = Path(self.name)
        return path if path.is_dir() else None

    def arguments(self, spec: BackboneSpec) -> dict[str, Any]:
        """Keyword arguments common to all of transformers' ``from_pretrained``."""
        found: dict[str, Any] = {"trust_remote_code": spec.trust_remote_code}
        if self.gguf:
            found["gguf_file"] = self.gguf
        if self.revision:
            found["revision"] = self.revision
        return found


def find_model(spec: BackboneSpec) -> ModelFiles:
    """The files behind ``backbone.model``.

    Raises:
        BackboneError: if they are not there, or only as a pickle that the job does not allow.
    """
    if spec.model is None:
        raise BackboneError("backbone.model: expected a model to load here, the job names none; name one")
    scheme, _, name = spec.model.partition(":")
    if scheme == "hf":
        return ModelFiles(name, revision=spec.revision)
    if scheme == "cache":
        return _in_folder(cached_model(name), spec)
    path = _package_folder(name) if scheme == "package" else Path(name)
    if path.is_file() and path.suffix == ".gguf":
        return ModelFiles(str(path.parent), gguf=path.name)
    return _in_folder(path, spec)


def _in_folder(path: Path, spec: BackboneSpec) -> ModelFiles:
    if not path.is_dir():
        raise BackboneError(f"backbone.model: expected a model folder or a .gguf file, found nothing at {path}")
    if (path / "config.json").is_file():
        if not list(path.glob("*.safetensors")):
            pickles = sorted(p.name for p in path.glob("*.bin")) + sorted(p.name for p in path.glob("*.pt"))
            if not pickles:
                raise BackboneError(f"backbone.model: {path} has config.json but no weights, expected *.safetensors")
            if not spec.allow_pickle:
                raise BackboneError(
                    f"backbone.model: {path} has its weights only as a pickle ({pickles[0]}), which can run code when "
                    "read; convert them to safetensors, or set backbone.allow_pickle: true if you trust the source"
                )
        return ModelFiles(str(path))
    ggufs = sorted(path.glob("*.gguf"))
    if len(ggufs) == 1:
        return ModelFiles(str(path), gguf=ggufs[0].name)
    raise BackboneError(
        f"backbone.model: expected config.json with *.safetensors, or one .gguf file, in {path}; "
        f"found {sorted(p.name for p in path.iterdir())[:8]}"
    )


def _package_folder(name: str) -> Path:
    try:
        files = metadata.files(name) or []
    except metadata.PackageNotFoundError as error:
        raise BackboneError(f"backbone.model: the package {name} is not installed; pip install {name}") from error
    for file in files:
        if file.name == "config.json" and any(f.parent == file.parent and f.suffix == ".safetensors" for f in files):
            return Path(str(file.locate())).parent
    raise BackboneError(f"backbone.model: the package {name} holds no model folder (config.json with *.safetensors)")


@dataclass(frozen=True)
class ModelCard:
    """What a model says of itself before its weights are read."""

    files: ModelFiles
    config: Any
    tokenizer: Any
    kind: str

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of what a model is: of samples of its files, wherever they lie, or of its name on the hub."""
        folder = self.files.folder
        if folder is not None:
            what: list[Any] = [self.files.gguf, {p.name: _sample(p) for p in sorted(folder.iterdir()) if p.is_file()}]
        else:
            kept = {key: value for key, value in self.config.to_dict().items() if key not in _OF_THIS_MACHINE}
            what = [self.files.name, self.files.revision, self._commit(), kept]
        return hashlib.sha256(json.dumps(what, sort_keys=True, default=str).encode()).hexdigest()

    def _commit(self) -> str | None:
        """Of a model of the hub; it follows the branch that was asked for."""
        return getattr(self.config, "_commit_hash", None) if self.files.folder is None else None

    @property
    def family(self) -> Family:
        """Where the parts of the model are."""
        return FAMILIES[self.config.model_type]

    @property
    def mask_token(self) -> str | None:
        """What stands for ``{mask}``, None for models that have nothing of the kind."""
        return self.tokenizer.mask_token or self.family.mask

    @property
    def positions(self) -> int:
        """Most tokens of a text; RoBERTa spends two positions on padding, some models know no end."""
        known = getattr(self.config, "max_position_embeddings", None) or 1 << 30
        return int(known) - (2 if "roberta" in self.config.model_type else 0)

    @property
    def layer_count(self) -> int:
        """Number of layers L of the model."""
        return int(self.config.num_hidden_layers)


def _sample(path: Path) -> str:
    """SHA-256 (hex) of a file's size and of 64 blocks of it: whole large models would take minutes to read."""
    size, block = path.stat().st_size, 1 << 16
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        for i in range(64):
            file.seek(max(0, (size - block) * i // 63))
            digest.update(file.read(block))
    return digest.hexdigest()


def read_model_card(spec: BackboneSpec) -> ModelCard:
    """Configuration and tokenizer of the job's model, checked against what the job asks for.

    Raises:
        BackboneError: if the model is of an unknown family, or not of the kind that the job names.
    """
    quiet_transformers()
    from transformers import AutoConfig, AutoTokenizer

    files = find_model(spec)
    try:
        config = AutoConfig.from_pretrained(files.name, **files.arguments(spec))
        tokenizer = AutoTokenizer.from_pretrained(files.name, **files.arguments(spec))
    except Exception as error:  # transformers raises OSError, ValueError, ImportError and the hub's own
        raise BackboneError(_load_fault(str(spec.model), error)) from error
    if config.model_type not in FAMILIES:
        raise BackboneError(
            f"backbone.model: {spec.model} is of the family {config.model_type!r}, "
            f"expected one of {sorted(FAMILIES)}; a family is added in bbtune/backbone/families.py"
        )
    card = ModelCard(files, config, tokenizer, _kind_of(files, config))
    if spec.kind not in ("auto", card.kind):
        raise BackboneError(_kind_fault(spec, card))
    if card.kind in ("masked-lm", "seq2seq-lm") and card.mask_token not in tokenizer.get_vocab():
        raise BackboneError(f"backbone.model: {spec.model} has no mask token ({card.mask_token}), which it is read at")
    return card


def _kind_of(files: ModelFiles, config: Any) -> str:
    names = config.architectures or []
    if any(name.endswith("ForMaskedLM") for name in names):
        return "masked-lm"
    if files.gguf or any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in names):
        return "causal-lm"
    if FAMILIES[config.model_type].runs and any(name.endswith("ForConditionalGeneration") for name in names):
        return "seq2seq-lm"
    if names and not any(name.endswith("Model") for name in names):
        raise BackboneError(
            f"backbone.model: {files.name} is a {names[0]}, expected a masked or causal language model or an encoder"
        )
    if FAMILIES[config.model_type].runs and names and not names[0].endswith("EncoderModel"):
        raise BackboneError(
            f"backbone.model: {files.name} is a {names[0]}, expected its language model (...ForConditionalGeneration) "
            "or its encoder alone (...EncoderModel)"
        )
    folder = files.folder
    if folder and (folder / "modules.json").is_file() and not _pools_by_mean(folder):
        raise BackboneError(f"backbone.model: {files.name} does not pool by the plain mean, the only way supported")
    return "sentence-encoder"


def _pools_by_mean(folder: Path) -> bool:
    modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
    pooling = folder / "1_Pooling" / "config.json"
    if any(str(module.get("type", "")).endswith(".Dense") for module in modules) or not pooling.is_file():
        return False
    return bool(json.loads(pooling.read_text(encoding="utf-8")).get("pooling_mode_mean_tokens"))


def _kind_fault(spec: BackboneSpec, card: ModelCard) -> str:
    what = {
        "masked-lm": "a masked language model",
        "causal-lm": "a causal language model",
        "seq2seq-lm": "an encoder-decoder language model",
        "sentence-encoder": "an encoder without a language-modelling head, which cannot score label words",
    }
    return (
        f"backbone.kind: expected {spec.kind}, but {spec.model} is {what[card.kind]} "
        f"(architectures {card.config.architectures}); set backbone.kind: {card.kind} or choose another model"
    )


def _load_fault(model: str, error: Exception) -> str:
    reason = " ".join(str(error).split())[:300]
    if isinstance(error, ImportError) or ("gguf" in reason and "install" in reason):
        return (
            f"backbone.model: reading {model} needs another package ({reason}); for GGUF: pip install gguf accelerate"
        )
    advice = "check the name and the network" if model.startswith("hf:") else "check the files in that folder"
    return f"backbone.model: {model} cannot be read ({type(error).__name__}: {reason}); {advice}"


def check_memory(card: ModelCard, spec: BackboneSpec, copies: int) -> None:
    """Refuse what cannot fit, before loading.

    Raises:
        BackboneError: if ``copies`` of the weights need more memory than the machine has free.
    """
    folder = card.files.folder
    if folder is None or spec.device != "cpu" or os.environ.get("RAY_ADDRESS"):
        return  # of the hub, of a GPU, or of other machines: not known here
    on_disk = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    if card.files.gguf:  # a quantised weight takes 4 to 8 bits on disk
        on_disk = (folder / card.files.gguf).stat().st_size * 4
    stored = str(getattr(card.config, "dtype", None) or "float32")
    bytes_per_weight = 2 if "16" in stored else 4
    need = copies * on_disk * (2 if spec.dtype == "bfloat16" else 4) / bytes_per_weight
    free = psutil.virtual_memory().available
    if need > free:
        raise BackboneError(
            f"backbone.model: {copies} copies of {spec.model} need about {need / 2**30:.1f} GiB, "
            f"{free / 2**30:.1f} GiB are free; lower evaluators.count, use bfloat16, or a smaller model"
        )
