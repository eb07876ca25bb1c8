"""Tiny random models with real tokenizers, and jobs on them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("TQDM_DISABLE", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForMaskedLM,
)

from bbtune.jobfile import parse_job
from bbtune.spec import JobSpec

CORPUS = [
    "the parcel is late and the box was bad",
    "a great film , truly good and warm",
    "it was a dull story with no end",
    "my kettle makes a noise and the bill is wrong",
    "is this good or bad ? it was great .",
    "terrible sound , wonderful picture , late delivery",
] * 20
TEXTS = [
    ("a warm and great film", 1),
    ("dull story , bad end", 0),
    ("the box was late", 0),
    ("good picture and truly wonderful sound with a warm end", 1),
    ("terrible noise", 0),
    ("wonderful", 1),
    ("it was a bad parcel and a wrong bill", 0),
    ("great story", 1),
]


def _wordpiece() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(CORPUS, trainers.WordPieceTrainer(vocab_size=300, special_tokens=specials))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[("[CLS]", tokenizer.token_to_id("[CLS]")), ("[SEP]", tokenizer.token_to_id("[SEP]"))],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )


def _byte_level(mask: bool) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    specials = ["<s>", "<pad>", "</s>", "<mask>"] if mask else ["<|endoftext|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=500, special_tokens=specials, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(CORPUS, trainer)
    if not mask:
        return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        mask_token="<mask>",
        cls_token="<s>",
        sep_token="</s>",
    )


def _small(vocabulary: int) -> dict[str, Any]:
    return {
        "vocab_size": vocabulary,
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 96,
        "initializer_range": 0.3,
    }


def _bert(tokenizer: Any) -> Any:
    return BertForMaskedLM(BertConfig(**_small(len(tokenizer))))


def _roberta(tokenizer: Any) -> Any:
    return RobertaForMaskedLM(RobertaConfig(**_small(len(tokenizer)), pad_token_id=1, bos_token_id=0, eos_token_id=2))


def _gpt2(tokenizer: Any) -> Any:
    size = {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 96, "initializer_range": 0.3}
    return GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), bos_token_id=0, eos_token_id=0, **size))


def _llama(tokenizer: Any) -> Any:
    return LlamaForCausalLM(LlamaConfig(**_small(len(tokenizer)), num_key_value_heads=2))


def _encoder(tokenizer: Any) -> Any:
    return BertModel(BertConfig(**_small(len(tokenizer))))


MAKERS: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "bert": (_wordpiece, _bert),
    "roberta": (lambda: _byte_level(mask=True), _roberta),
    "gpt2": (lambda: _byte_level(mask=False), _gpt2),
    "llama": (lambda: _byte_level(mask=False), _llama),
    "encoder": (_wordpiece, _encoder),
}


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of tiny random models by family."""
    root = tmp_path_factory.mktemp("models")
    for name, (make_tokenizer, make_model) in MAKERS.items():
        tokenizer = make_tokenizer()
        with torch.random.fork_rng():
            torch.manual_seed(7)
            model = make_model(tokenizer)
        model.save_pretrained(root / name)
        tokenizer.save_pretrained(root / name)
    return {name: root / name for name in MAKERS}


@pytest.fixture(scope="session")
def tiny_task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A task folder with eight short texts in every split."""
    import json

    folder = tmp_path_factory.mktemp("task")
    card = {
        "name": "tiny",
        "kind": "single",
        "labels": ["negative", "positive"],
        "template": "{text} . it was {mask}",
        "label_words": ["bad", "great"],
        "metric": "accuracy",
    }
    (folder / "task.json").write_text(json.dumps(card))
    for shift, split in enumerate(("train", "dev", "test")):
        rows = [{"text": f"{text} {'and ' * shift}late", "label": label} for text, label in TEXTS]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


MakeJob = Callable[..., JobSpec]


@pytest.fixture(scope="session")
def make_job(tiny_models: dict[str, Path], tiny_task: Path) -> MakeJob:
    """Jobs on the tiny models: ``make_job("bert", prompt={"kind": "offset"})``."""

    def make(family: str, **parts: Any) -> JobSpec:
        raw: dict[str, Any] = {
            "name": f"tiny-{family}",
            "task": {"source": f"folder:{tiny_task}"},
            "backbone": {"model": f"path:{tiny_models[family]}"},
            "prompt": {"tokens": 4, "intrinsic_dim": 6},
            "method": {"population": 4},
            "budget": {"evaluations": 40},
            "tracking": {"enabled": False},
            "seed": 3,
        }
        for part, values in parts.items():
            raw[part] = {**raw.get(part, {}), **values} if isinstance(values, dict) else values
        spec, faults, _ = parse_job(raw)
        assert not faults, faults
        assert spec is not None
        return spec

    return make


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[Any]:
    """One local Ray cluster of three logical CPUs for the whole session."""
    import shutil

    import ray

    folder = f"/tmp/bbt{os.getpid()}"
    ray.init(
        address="local",
        num_cpus=3,
        object_store_memory=200 * 2**20,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        _temp_dir=folder,
    )
    yield ray
    ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)
