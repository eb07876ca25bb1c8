"""A server of a tiny model for tests, in this process: it takes token ids or embeddings, as vLLM does.

It is asked as a model, or over HTTP.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from scripted_upstream import Body, ScriptedUpstream, body_hash
from torch import Tensor

from bbtune.endpoint.request import Answer, Request, Token


class Served:
    """Gives the log-probabilities of the tokens that are named, by their ids.

    Attributes:
        requests: that were asked, in order.
        deadlines: that were given.
    """

    def __init__(self, folder: Path) -> None:
        self.tokenizer = hf.AutoTokenizer.from_pretrained(folder)
        self.model = hf.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.requests: list[Request] = []
        self.deadlines: list[float | None] = []
        self.closed = False

    def ask(self, requests: Sequence[Request], deadline: float | None = None) -> list[Answer]:
        self.requests += requests
        self.deadlines.append(deadline)
        return [self._answer(request) for request in requests]

    def close(self) -> None:
        self.closed = True

    def top(self, body: dict[str, Any], logprobs: Tensor) -> list[tuple[str, float]]:
        """What is said of the first token, by its log-probabilities (V,)."""
        assert body["return_tokens_as_token_ids"]
        named = {int(logprobs.argmax()), *body["logprob_token_ids"]}
        return [(f"token_id:{token}", float(logprobs[token])) for token in named]

    def inputs(self, body: dict[str, Any]) -> dict[str, Tensor]:
        """What enters the model; a text of no tokens is refused."""
        if body["prompt"] is not None:
            return {"input_ids": torch.tensor([body["prompt"]])}
        file = io.BytesIO(base64.b64decode(body["prompt_embeds"], validate=True))
        return {"inputs_embeds": torch.load(file, weights_only=True)[None]}

    @torch.inference_mode()
    def found(self, body: Body) -> tuple[int, list[tuple[str, float]]]:
        """Tokens of the input, and what is said of the first behind it, most probable first."""
        assert body["max_tokens"] == 1
        inputs = self.inputs(body)
        logits = self.model(**inputs).logits[0, -1]
        found = sorted(self.top(body, logits.float().log_softmax(-1)), key=lambda pair: -pair[1])
        return next(iter(inputs.values())).shape[1], found

    def _answer(self, request: Request) -> Answer:
        assert request.style == "completion"
        length, found = self.found(request.body("tiny"))
        return Answer("?", (Token("?", found[0][1], tuple(found)),), input_tokens=length, output_tokens=1)


class MostProbable(Served):
    """Knows nothing of tokens that are named: it gives the most probable ones, by their text."""

    def top(self, body: dict[str, Any], logprobs: Tensor) -> list[tuple[str, float]]:
        values, places = logprobs.topk(body["logprobs"])
        return [(self.tokenizer.decode([p]), float(v)) for v, p in zip(values, places.tolist(), strict=True)]


class Deaf(Served):
    """Ignores embeddings, and takes the text to be empty."""

    def inputs(self, body: dict[str, Any]) -> dict[str, Tensor]:
        return {"input_ids": torch.tensor([body["prompt"] or [0]])}


class EmbeddingsUpstream(ScriptedUpstream):
    """A tiny model over HTTP, in the shape of vLLM's answers.

    Args:
        folder: of the model.
        hold_after: as of any scripted server.
    """

    def __init__(self, folder: Path, hold_after: int | None = None) -> None:
        super().__init__(script=self._said, hold_after=hold_after)
        self._served = Served(folder)

    def note(self, body: Body) -> None:
        with self.lock:
            self.answered[body_hash(body)] += 1

    def _said(self, body: Body) -> Body:
        length, found = self._served.found(body)
        logprobs = {"tokens": [found[0][0]], "token_logprobs": [found[0][1]], "top_logprobs": [dict(found)]}
        return {
            "choices": [{"index": 0, "text": "?", "logprobs": {**logprobs, "text_offset": [0]}}],
            "usage": {"prompt_tokens": length, "completion_tokens": 1, "total_tokens": length + 1},
        }
