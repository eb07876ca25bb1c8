"""A causal model in this process as the writer of instructions, of vectors too."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bbtune.backbone.frozen import FrozenModel, load_frozen
from bbtune.backbone.sources import ModelCard, read_model_card
from bbtune.backbone_spec import BackboneSpec
from bbtune.errors import BackboneError, DeadlineReached
from bbtune.seeds import generator
from bbtune.text_search.wording import completion_prompt, instruction_in
from bbtune.text_search.writer import Ask
from bbtune.text_spec import WriterSpec

_SOFT_TOKENS = 5  # virtual tokens that a vector becomes, as in InstructZero's code
_ENDING = "The instruction was to"

Choose = Callable[[Tensor], Tensor]  # the next tokens (B,) from logits (B, V)


class InstructionWriter:
    """Writes instructions with a frozen model: paraphrases and combinations by sampling, vectors by greedy decoding.

    A vector is projected, by numbers that depend on the seed alone, to virtual tokens before some solved examples, and
    the model says what the instruction was (InstructZero, Chen et al. 2023, arXiv 2306.03082). A vector of standard
    normal numbers becomes embeddings with the spread of those of the examples.

    Args:
        backbone: the model; it is loaded at the first ask.
        spec: most tokens of a text, and temperature of the sampling.
        demonstrations: texts and their answers, as many as fit; of ``vector`` asks.
        seed: of the projection.
        threads: of the CPU that it may use.
    """

    def __init__(
        self,
        backbone: BackboneSpec,
        spec: WriterSpec,
        demonstrations: Sequence[tuple[str, str]],
        seed: int,
        threads: int = 1,
    ) -> None:
        self._backbone = backbone
        self._spec = spec
        self._demonstrations = list(demonstrations)
        self._seed = seed
        self._threads = threads

    def write(self, asks: Sequence[Ask], deadline: float | None = None) -> list[str]:
        """One text for each ask; an empty one where nothing of use came.

        Args:
            deadline: on the clock of :func:`time.monotonic`; a text that was begun is ended.

        Raises:
            BackboneError: if the model cannot be loaded, is no causal one, or has no room for a text.
            DeadlineReached: if the deadline passes.
        """
        torch.set_num_threads(self._threads)
        vectors = [ask.vector for ask in asks if ask.kind == "vector"]
        texts = []
        with torch.inference_mode():
            of_vectors = iter(self._put_into_words(np.array(vectors)) if vectors else ())
            for ask in asks:
                if deadline is not None and time.monotonic() > deadline:
                    raise DeadlineReached("the budget of seconds ended while instructions were being written")
                texts.append(next(of_vectors) if ask.kind == "vector" else self._sampled(ask))
        return [instruction_in(text) for text in texts]

    @cached_property
    def _card(self) -> ModelCard:
        card = read_model_card(self._backbone)
        if card.kind != "causal-lm":
            raise BackboneError(
                f"method.writer.model: expected a causal language model, got {self._backbone.model}, which is a "
                f"{card.kind}; choose one that writes text, such as cache:smollm2-135m"
            )
        return card

    @cached_property
    def _model(self) -> FrozenModel:
        with torch.inference_mode(mode=False):  # its weights are to be ordinary tensors
            return load_frozen(self._card, self._backbone)

    @cached_property
    def _ends(self) -> frozenset[int]:
        """Tokens that end a text."""
        config = self._model.model.generation_config or self._card.config
        said = [config.eos_token_id, self._card.tokenizer.eos_token_id]
        return frozenset(
            int(i) for found in said for i in (found if isinstance(found, list) else [found]) if i is not None
        )

    @property
    def _room(self) -> int:
        """Tokens that may stand before what is written."""
        return min(self._backbone.max_tokens, self._card.positions - self._spec.max_tokens)

    def _sampled(self, ask: Ask) -> str:
        """A paraphrase or a combination; nothing where the texts are too long for the model."""
        temperature = self._spec.temperature
        # small models that were taught to chat answer an instruction rather than rewrite it
        ids = self._card.tokenizer(completion_prompt(ask)).input_ids
        if len(ids) > self._room:
            return ""
        rng = torch.Generator().manual_seed(ask.seed)

        def choose(logits: Tensor) -> Tensor:
            chances = torch.softmax(logits.double().cpu() / temperature, dim=-1)
            return torch.multinomial(chances, 1, generator=rng)[:, 0]

        return self._continued(self._embedded(ids)[None], choose if temperature > 0 else _most_probable)[0]

    def _put_into_words(self, vectors: np.ndarray[Any, np.dtype[np.float64]]) -> list[str]:
        """Texts of vectors (B, d), all at once: they differ in their virtual tokens alone."""
        examples = self._embedded(self._examples())
        projection = generator(self._seed, "instruct-zero").standard_normal(
            (vectors.shape[1], _SOFT_TOKENS * examples.shape[1])
        )
        soft = torch.from_numpy(vectors @ projection / np.sqrt(vectors.shape[1])).to(examples) * examples.std()
        soft = soft.view(len(vectors), _SOFT_TOKENS, -1)
        return self._continued(torch.cat([soft, examples.expand(len(soft), -1, -1)], dim=1), _most_probable)

    def _examples(self) -> list[int]:
        """Tokens of as many demonstrations as fit, and of what is to be ended.

        Raises:
            BackboneError: if not even the ending fits.
        """
        for count in range(len(self._demonstrations), -1, -1):
            shown = [f"Input: {text}\nOutput: {answer}\n\n" for text, answer in self._demonstrations[:count]]
            ids: list[int] = self._card.tokenizer("".join(shown) + _ENDING).input_ids
            if len(ids) + _SOFT_TOKENS <= self._room:
                return ids
        raise BackboneError(
            f"method.writer.max_tokens: expected room for {len(ids) + _SOFT_TOKENS} tokens before the text, "
            f"{self._backbone.model} has {self._room}; lower it, or choose another model"
        )

    def _embedded(self, ids: Sequence[int]) -> Tensor:
        """Input embeddings (S, H) of tokens."""
        embed = self._model.model.get_input_embeddings()
        return embed(torch.tensor(ids, device=self._model.device))  # type: ignore[no-any-return]

    def _continued(self, embedded: Tensor, choose: Choose) -> list[str]:
        """What the model goes on with behind embeddings (B, S, H), up to the end of a line that says something."""
        model, tokenizer = self._model.model, self._card.tokenizer
        written = torch.empty((len(embedded), 0), dtype=torch.long)
        texts = [""] * len(embedded)
        out = model(inputs_embeds=embedded, use_cache=True)
        for _ in range(self._spec.max_tokens):
            chosen = choose(out.logits[:, -1])
            written = torch.cat([written, chosen.cpu()[:, None]], dim=1)
            rows = [self._until_end(row) for row in written.tolist()]
            texts = tokenizer.batch_decode(rows, skip_special_tokens=True)
            over = (len(row) < written.shape[1] or "\n" in text.lstrip() for row, text in zip(rows, texts, strict=True))
            if all(over):
                break
            out = model(
                input_ids=chosen.to(self._model.device)[:, None], past_key_values=out.past_key_values, use_cache=True
            )
        return texts

    def _until_end(self, ids: list[int]) -> list[int]:
        """The tokens before the first that ends a text."""
        return next((ids[:i] for i, token in enumerate(ids) if token in self._ends), ids)


def _most_probable(logits: Tensor) -> Tensor:
    return logits.argmax(dim=-1)
