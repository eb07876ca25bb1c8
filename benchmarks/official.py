"""One candidate of the official BBTv2 loop, written anew on stock transformers models: the work to be faster than.

What that loop does per candidate, and nothing that would save any of it: one candidate per forward, over the whole
train split, in fp32; every row padded to the longest of the split; a prompt added before every layer; eager attention;
the head for the whole vocabulary at every position, of which one position and the label words are then read.
Where the public code does needless copies (prompts repeated for every row), this one does not: it is never the slower.

N examples, S the padded length, L layers, T prompt tokens, H hidden size, D intrinsic dimension, C label words.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

# class of a transformers model -> its list of layers that take prompts
LAYERS = {
    "BertForMaskedLM": "bert.encoder.layer",
    "RobertaForMaskedLM": "roberta.encoder.layer",
    "GPT2LMHeadModel": "transformer.h",
    "LlamaForCausalLM": "model.layers",
    "T5ForConditionalGeneration": "encoder.block",
}

_FIRST_PLACEHOLDER = 1000
_EXTRA_ID_0 = 32099  # <extra_id_0> of the published T5 vocabularies


def with_placeholders(row: Sequence[int], prompt_start: int, tokens: int) -> list[int]:
    """A row of token ids with the placeholders 1000, 1001, ... put in at ``prompt_start``."""
    placeholders = range(_FIRST_PLACEHOLDER, _FIRST_PLACEHOLDER + tokens)
    return [*row[:prompt_start], *placeholders, *row[prompt_start:]]


class OfficialLoop:
    """The forward of one candidate.

    Args:
        model: one of :data:`LAYERS`, with its head. It is taken over: set to eager attention, fp32, evaluation.
        ids: N rows of token ids, placeholders included, not padded.
        prompt_start: position of the first placeholder (1 behind a first special token, 0 for causal models and T5).
        tokens: T.
        read: N positions whose logits are scored; of the decoder (1) for T5.
        words: C token ids, one per label.

    Raises:
        ValueError: if a row has no room for the prompt, or ``read`` is not one position per row.
    """

    def __init__(
        self,
        model: Any,
        ids: Sequence[Sequence[int]],
        prompt_start: int,
        tokens: int,
        read: list[int],
        words: list[int],
    ) -> None:
        if len(read) != len(ids):
            raise ValueError(f"read: expected one position for each of the {len(ids)} rows, got {len(read)}")
        if min(map(len, ids)) < prompt_start + tokens:
            raise ValueError(f"ids: expected rows of at least {prompt_start + tokens} ids, placeholders included")
        model.set_attn_implementation("eager")
        self._model = model.float().eval()
        self._layers = list(model.get_submodule(LAYERS[type(model).__name__]))
        self._inputs = self._padded(ids)
        self._read = torch.tensor(read)
        self._words = torch.tensor(words)
        self._span = (prompt_start, tokens)

    @torch.no_grad()
    def logits(self, prompts: Sequence[Tensor] | Tensor) -> Tensor:
        """Logits (N, C) of the label words, for one prompt (T, H) per layer."""
        with self._added(prompts):
            everywhere = self._model(**self._inputs).logits  # (N, S, vocabulary): all of it, as the official loop does
        scored: Tensor = everywhere[torch.arange(len(self._read)), self._read][:, self._words]
        return scored

    def _padded(self, ids: Sequence[Sequence[int]]) -> dict[str, Any]:
        """Model inputs (N, S): right-padded rows, and for T5 the same two decoder ids for each."""
        config = self._model.config
        padding = config.pad_token_id or 0  # GPT-2 has none; what stands there is masked
        width = max(map(len, ids))
        rows = torch.tensor([[*row, *[padding] * (width - len(row))] for row in ids])
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in ids])
        inputs: dict[str, Any] = {"input_ids": rows, "attention_mask": mask}
        if config.is_encoder_decoder:
            # Tiny models of tests have smaller vocabularies.
            start = [config.decoder_start_token_id or padding, min(_EXTRA_ID_0, config.vocab_size - 1)]
            inputs["decoder_input_ids"] = torch.tensor([start] * len(ids))
        if hasattr(config, "use_cache"):
            inputs["use_cache"] = False  # nothing is generated
        return inputs

    @contextmanager
    def _added(self, prompts: Sequence[Tensor] | Tensor) -> Iterator[None]:
        start, tokens = self._span
        behind = self._inputs["input_ids"].shape[1] - start - tokens
        handles = []
        try:
            for layer, prompt in zip(self._layers, prompts, strict=True):
                padded = torch.nn.functional.pad(prompt, (0, 0, start, behind))  # (S, H), zero off the prompt
                handles.append(layer.register_forward_pre_hook(_adder(padded), with_kwargs=True))
            yield
        finally:
            for handle in handles:
                handle.remove()


def _adder(prompt: Tensor) -> Any:
    def before_layer(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if args:
            return (args[0] + prompt, *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": kwargs["hidden_states"] + prompt}

    return before_layer


class OfficialCandidate:
    """What the loop does around the forward: z to a prompt, the other layers at their best, the loss.

    Args:
        loop: the forward.
        labels: N indices into the loop's label words.
        projections: one (T * H, D) per layer; the same tensor may stand for several, to save memory.
        best: prompts (L, T, H) of all layers.
    """

    def __init__(self, loop: OfficialLoop, labels: Sequence[int], projections: Sequence[Tensor], best: Tensor) -> None:
        self._loop = loop
        self._labels = torch.tensor(labels)
        self._projections = projections
        self.best = best

    @torch.no_grad()
    def loss(self, layer: int, z: np.ndarray) -> float:
        """Mean cross-entropy of a candidate z (D,) of one layer."""
        prompts = self.best.clone()
        values = torch.tensor(z, dtype=torch.float32)
        prompts[layer] = (self._projections[layer] @ values).reshape(prompts.shape[1:])
        return float(torch.nn.functional.cross_entropy(self._loop.logits(prompts), self._labels))


def _example(lengths: Sequence[int], tokens: int) -> OfficialCandidate:
    """A candidate on a BERT of MiniLM's size with random weights and random text of the given lengths."""
    from transformers import BertConfig, BertForMaskedLM

    random = np.random.default_rng(0)
    config = BertConfig(hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536)
    rows = [with_placeholders(random.integers(2000, 30000, s).tolist(), 1, tokens) for s in lengths]
    read = [len(row) - 2 for row in rows]
    loop = OfficialLoop(BertForMaskedLM(config), rows, prompt_start=1, tokens=tokens, read=read, words=[2204, 2919])
    projection = torch.from_numpy(random.normal(0, 0.001, (tokens * 384, 500)).astype(np.float32))
    return OfficialCandidate(loop, [0] * len(rows), [projection] * 6, torch.zeros(6, tokens, 384))


def main() -> None:
    """Print the CPU seconds of one official candidate, on one thread, for each list of example lengths."""
    from limit import EXAMPLES, MINILM, official_flops

    torch.set_num_threads(1)
    z = np.random.default_rng(1).standard_normal(500)
    for name, lengths in EXAMPLES.items():
        candidate = _example(lengths, tokens=50)
        seconds = []
        for _ in range(4):
            start = time.process_time()
            candidate.loss(3, z)
            seconds.append(time.process_time() - start)
        median = float(np.median(seconds[1:]))  # the first one warms up
        flops = official_flops(MINILM, lengths, tokens=50).total
        print(f"{name}: {median:.2f} s a candidate, {flops / 1e9:.0f} GFLOP, {flops / median / 1e9:.0f} GFLOP/s")


if __name__ == "__main__":
    main()
