"""Tiny random models with real tokenizers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

CORPUS = [
    "the parcel is late and the box was bad",
    "a great film , truly good and warm",
    "it was a dull story with no end",
    "my kettle makes a noise and the bill is wrong",
    "is this good or bad ? it was great .",
    "terrible sound , wonderful picture , late delivery",
] * 20


def _wordpiece() -> PreTrainedTokenizerFast:
    """Whole words and single letters: the trainer would find other pieces every time."""
    words = {word for line in CORPUS for word in line.split()}
    letters = {letter for word in words for letter in word}
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = [*specials, *sorted(words | letters | {f"##{letter}" for letter in letters})]
    tokenizer = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
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
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=specials, initial_alphabet=alphabet, show_progress=False
    )
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


def _sentinel() -> PreTrainedTokenizerFast:
    """Like T5's: words with a space before them, an end token, and ``<extra_id_0>`` for what is missing."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    specials = ["<pad>", "</s>", "<unk>", "<extra_id_0>"]
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=specials, show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=["<extra_id_0>"],
    )


def _causal() -> PreTrainedTokenizerFast:
    return _byte_level(mask=False)


def _with_start() -> PreTrainedTokenizerFast:
    """A causal model's tokenizer that puts a special token in front, as Llama's does."""
    tokenizer = _byte_level(mask=False)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)]
    )
    return tokenizer


def _masked() -> PreTrainedTokenizerFast:
    return _byte_level(mask=True)


SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 96,
    "initializer_range": 0.3,
}
GROUPED = {**SMALL, "num_key_value_heads": 2}
GEMMA = {**GROUPED, "head_dim": 8}
ENDS = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
ROBERTA = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
T5 = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 3, "num_heads": 4, "initializer_factor": 1.0}
BART = {"d_model": 32, "encoder_layers": 3, "decoder_layers": 2, "encoder_attention_heads": 4, "init_std": 0.3}
BART |= {"decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "max_position_embeddings": 96}
MODERN = {"global_attn_every_n_layers": 3, "local_attention": 8, **ROBERTA, "cls_token_id": 0, "sep_token_id": 2}

# name -> tokenizer, model class of transformers, settings
MAKERS: dict[str, tuple[Callable[[], Any], str, dict[str, Any]]] = {
    "bert": (_wordpiece, "BertForMaskedLM", SMALL),
    "roberta": (_masked, "RobertaForMaskedLM", {**SMALL, **ROBERTA}),
    "xlm-roberta": (_masked, "XLMRobertaForMaskedLM", {**SMALL, **ROBERTA}),
    "distilbert": (
        _wordpiece,
        "DistilBertForMaskedLM",
        {"dim": 32, "n_layers": 3, "n_heads": 4, "hidden_dim": 64, "initializer_range": 0.3},
    ),
    "electra": (_wordpiece, "ElectraForMaskedLM", {**SMALL, "embedding_size": 24}),
    "modernbert": (_masked, "ModernBertForMaskedLM", {**SMALL, **MODERN}),
    "gpt2": (_causal, "GPT2LMHeadModel", {"n_embd": 32, "n_layer": 3, "n_head": 4, "initializer_range": 0.3, **ENDS}),
    "opt": (
        _with_start,
        "OPTForCausalLM",
        {**ENDS, "hidden_size": 32, "word_embed_proj_dim": 24, "num_hidden_layers": 3, "num_attention_heads": 4}
        | {"ffn_dim": 64, "max_position_embeddings": 96, "init_std": 0.3, "pad_token_id": 1},
    ),
    "gpt_neox": (_causal, "GPTNeoXForCausalLM", {**SMALL, **ENDS}),
    "llama": (_causal, "LlamaForCausalLM", {**GROUPED, **ENDS}),
    "mistral": (_with_start, "MistralForCausalLM", {**GROUPED, **ENDS, "sliding_window": None}),
    "qwen2": (_causal, "Qwen2ForCausalLM", {**GROUPED, **ENDS}),
    "qwen3": (_with_start, "Qwen3ForCausalLM", {**GROUPED, **ENDS, "head_dim": 16}),
    "gemma": (_with_start, "GemmaForCausalLM", {**GEMMA, **ENDS}),
    "gemma2": (_with_start, "Gemma2ForCausalLM", {**GEMMA, **ENDS, "sliding_window": 8}),
    "gemma3_text": (_with_start, "Gemma3ForCausalLM", {**GEMMA, **ENDS, "sliding_window": 8}),
    "windowed": (_with_start, "MistralForCausalLM", {**GROUPED, **ENDS, "sliding_window": 8}),
    "t5": (_sentinel, "T5ForConditionalGeneration", {**T5, "pad_token_id": 0, "decoder_start_token_id": 0}),
    "flan-t5": (
        _sentinel,
        "T5ForConditionalGeneration",
        {**T5, "feed_forward_proj": "gated-gelu", "pad_token_id": 0, "decoder_start_token_id": 0}
        | {"tie_word_embeddings": False},
    ),
    "bart": (_masked, "BartForConditionalGeneration", {**BART, **ROBERTA, "decoder_start_token_id": 2}),
    "encoder": (_wordpiece, "BertModel", SMALL),
    "roberta-encoder": (_masked, "RobertaModel", {**SMALL, **ROBERTA}),
    "modernbert-encoder": (_masked, "ModernBertModel", {**SMALL, **MODERN}),
    "t5-encoder": (_sentinel, "T5EncoderModel", {**T5, "pad_token_id": 0}),
}


def save_model(name: str, folder: Path, **changes: Any) -> Path:
    """A random model and its tokenizer; every weight differs from what its initialisation would make neutral."""
    make_tokenizer, class_name, settings = MAKERS[name]
    tokenizer, cls = make_tokenizer(), getattr(hf, class_name)
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = cls(cls.config_class(vocab_size=len(tokenizer), **{**settings, **changes}))
        biases = [buffer for key, buffer in model.named_buffers() if key == "final_logits_bias"]  # BART's
        for weight in [*(weight for weight in model.parameters() if weight.dim() == 1), *biases]:
            weight.data += 0.1 * torch.randn_like(weight)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
