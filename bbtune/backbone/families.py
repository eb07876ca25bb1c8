"""Which model families are known, and where their parts are. Add a family by adding a row."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PostNorm:
    """Names inside a layer that normalises behind each residual sum (BERT and its kin)."""

    query: str = "attention.self.query"
    key: str = "attention.self.key"
    value: str = "attention.self.value"
    out: str = "attention.output.dense"
    norm: str = "attention.output.LayerNorm"
    up: str = "intermediate.dense"
    act: str = "intermediate.intermediate_act_fn"
    down: str = "output.dense"
    last_norm: str = "output.LayerNorm"


@dataclass(frozen=True)
class Rotary:
    """Layers of the Llama kind: RMS norm before, rotary positions, a gated feed-forward part.

    Attributes:
        norm_offset: added to the weights of every RMS norm (Gemma keeps them as w - 1).
    """

    norm_offset: float = 0.0


@dataclass(frozen=True)
class Family:
    """Paths inside a transformers model.

    Attributes:
        layers: the list of tuned layers, from the body (``model.base_model``).
        vocabulary: the last linear map of the head, from the model with its head.
        runs: what runs the layers, from the body; empty for the body itself.
        norms: what follows the last layer, from the body.
        transform: steps of the head before ``vocabulary``, from the model; ``gelu`` is the function.
        layout: of the layers, where a path of our own is written for it.
        encoder_class: reads an encoder without a head, where transformers' AutoModel would add a decoder.
        mask: what stands for ``{mask}``, where the tokenizer has no mask token.
    """

    layers: str
    vocabulary: str
    runs: str = ""
    norms: tuple[str, ...] = ()
    transform: tuple[str, ...] = ()
    layout: PostNorm | Rotary | None = None
    encoder_class: str | None = None
    mask: str | None = None


_DISTILBERT_LAYER = PostNorm(
    query="attention.q_lin",
    key="attention.k_lin",
    value="attention.v_lin",
    out="attention.out_lin",
    norm="sa_layer_norm",
    up="ffn.lin1",
    act="ffn.activation",
    down="ffn.lin2",
    last_norm="output_layer_norm",
)
_BERT_HEAD = ("cls.predictions.transform",)
_ROBERTA_HEAD = ("lm_head.dense", "gelu", "lm_head.layer_norm")
_DISTILBERT_HEAD = ("vocab_transform", "activation", "vocab_layer_norm")
_ROBERTA = Family("encoder.layer", "lm_head.decoder", transform=_ROBERTA_HEAD, layout=PostNorm())
_LLAMA = Family("layers", "lm_head", norms=("norm",), layout=Rotary())

# transformers' ``config.model_type`` -> family
FAMILIES = {
    "bert": Family("encoder.layer", "cls.predictions.decoder", transform=_BERT_HEAD, layout=PostNorm()),
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "distilbert": Family("transformer.layer", "vocab_projector", transform=_DISTILBERT_HEAD, layout=_DISTILBERT_LAYER),
    "electra": Family("encoder.layer", "generator_lm_head", transform=("generator_predictions",), layout=PostNorm()),
    "modernbert": Family("layers", "decoder", norms=("final_norm",), transform=("head",)),
    "gpt2": Family("h", "lm_head", norms=("ln_f",)),
    "opt": Family("decoder.layers", "lm_head", norms=("decoder.final_layer_norm", "decoder.project_out")),
    "gpt_neox": Family("layers", "lm_head", norms=("final_layer_norm",)),
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "gemma": Family("layers", "lm_head", norms=("norm",), layout=Rotary(norm_offset=1.0)),
    "gemma2": Family("layers", "lm_head", norms=("norm",)),
    "gemma3_text": Family("layers", "lm_head", norms=("norm",)),
    "t5": Family(
        "encoder.block",
        "lm_head",
        runs="encoder",
        norms=("encoder.final_layer_norm",),
        encoder_class="T5EncoderModel",
        mask="<extra_id_0>",
    ),
    "bart": Family("encoder.layers", "lm_head", runs="encoder"),
}
