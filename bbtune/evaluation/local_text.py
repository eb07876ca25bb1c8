"""A causal language model in this process, asked like an endpoint: what scores one scores the other."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

import torch
from torch import Tensor

from bbtune.backbone.frozen import load_frozen
from bbtune.backbone.sources import read_model_card
from bbtune.backbone_spec import BackboneSpec
from bbtune.endpoint.matching import bare
from bbtune.endpoint.request import Answer, Request, Token
from bbtune.errors import BackboneError, DeadlineReached, EndpointError
from bbtune.evaluation.token_texts import TokenTexts
from bbtune.seeds import generator

_AT_ONCE = 2048  # tokens of a batch, padding included


@dataclass
class _Row:
    """One request under way: ids of its prompt, and what has been generated."""

    request: Request
    prompt: list[int]
    said: list[Token] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    ended: bool = False


class LocalText:
    """Answers requests by a frozen model.

    Args:
        backbone: of the job; a causal language model.
        threads: of the CPU that it may use.

    Raises:
        BackboneError: if there is no such model, or it is not causal.
    """

    def __init__(self, backbone: BackboneSpec, threads: int) -> None:
        card = read_model_card(backbone)
        if card.kind != "causal-lm":
            raise BackboneError(f"backbone.model: expected a causal language model to ask in text, got a {card.kind}")
        self._model = load_frozen(card, backbone).model
        self._tokenizer = card.tokenizer
        self._texts = TokenTexts(card.tokenizer)
        self._limit = card.positions
        self._threads = threads

    @property
    def chats(self) -> bool:
        """Whether it was taught to chat."""
        return bool(self._tokenizer.chat_template)

    def first_pieces(self, words: Sequence[str], follows_space: bool) -> dict[str, str]:
        """The first token, bare, of each word behind a text; of a word that begins with a mere space, none."""
        space = " " if follows_space else ""
        firsts = {word: self._tokenizer(f"{space}{word}", add_special_tokens=False)["input_ids"] for word in words}
        pieces = {word: bare(self._texts[ids[0]]) for word, ids in firsts.items() if ids}
        return {word: piece for word, piece in pieces.items() if piece and bare(word).startswith(piece)}

    def ask(self, requests: Sequence[Request], deadline: float | None = None) -> list[Answer]:
        """Answers in the order of the requests; equal requests are asked once.

        Raises:
            DeadlineReached: if it passes; nothing is kept.
            EndpointError: if a chat is wanted of a model without a chat template, or a prompt is too long.
        """
        torch.set_num_threads(self._threads)
        rows = [_Row(request, self._prompt(request)) for request in dict.fromkeys(requests)]
        answers: dict[Request, Answer] = {}
        with torch.inference_mode():
            for batch in _batches(rows):
                self._generate(batch, deadline)
                for row in batch:
                    answers[row.request] = self._answer(row)
        return [answers[request] for request in requests]

    def close(self) -> None:
        """Free the weights."""
        self._model = None

    def _prompt(self, request: Request) -> list[int]:
        text, specials = request.prompt, True
        if request.style == "chat":
            if not self._tokenizer.chat_template:
                raise EndpointError("expected a model with a chat template, got none; set style: completion")
            turns = [{"role": "user", "content": text}]
            text = self._tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
            specials = False  # the template has them
        ids = list(self._tokenizer(text, add_special_tokens=specials)["input_ids"]) or [self._texts.ends[0]]
        if ids[-1] in self._texts.ends and len(ids) > 1 and specials:
            ids.pop()  # behind the text, which is to go on
        if len(ids) + request.max_tokens > self._limit:
            raise EndpointError(
                f"expected at most {self._limit} tokens in all, got {len(ids)} and {request.max_tokens} of the answer; "
                "shorten the prompt"
            )
        return ids

    def _generate(self, rows: list[_Row], deadline: float | None) -> None:
        """Fill in what is said, a token at a time for all rows; padding stands on the left."""
        width = max(len(row.prompt) for row in rows)
        given = torch.tensor([[0] * (width - len(row.prompt)) + row.prompt for row in rows])
        mask = torch.tensor([[0] * (width - len(row.prompt)) + [1] * len(row.prompt) for row in rows])
        steps, cache = max(row.request.max_tokens for row in rows), None
        for step in range(steps):
            if deadline is not None and time.monotonic() > deadline:
                raise DeadlineReached("the budget of seconds ended while the model was being asked")
            places = (mask.cumsum(dim=1) - 1).clamp(min=0)[:, -given.shape[1] :]
            out = self._model(
                input_ids=self._there(given),
                attention_mask=self._there(mask),
                position_ids=self._there(places),
                past_key_values=cache,
                use_cache=step + 1 < steps,
                logits_to_keep=1,
            )
            cache = out.past_key_values if step + 1 < steps else None
            scores = out.logits[:, -1].float().log_softmax(dim=-1)
            chosen = [self._next(row, own) for row, own in zip(rows, scores, strict=True)]
            if all(row.ended for row in rows):
                return
            given = torch.tensor(chosen)[:, None]
            mask = torch.cat([mask, torch.ones_like(given)], dim=1)

    def _next(self, row: _Row, scores: Tensor) -> int:
        """The next token id of a row, which is written down with its log-probability (scores (V,)) if it is wanted."""
        if row.ended:
            return 0
        chosen = int(scores.argmax())
        if row.request.temperature > 0:
            chosen = _drawn(row, scores)
        row.ids.append(chosen)
        row.said.append(self._token(chosen, scores, row.request.top_logprobs))
        cut = any(stop in self._texts.together(row.ids) for stop in row.request.stop)
        row.ended = cut or chosen in self._texts.ends or len(row.ids) >= row.request.max_tokens
        return chosen

    def _token(self, chosen: int, scores: Tensor, top: int) -> Token:
        values, ids = scores.topk(min(top, len(scores)))
        ranked = zip(ids.tolist(), values.tolist(), strict=True)
        return Token(self._texts[chosen], float(scores[chosen]), tuple((self._texts[i], value) for i, value in ranked))

    def _answer(self, row: _Row) -> Answer:
        extra = dict(row.request.extra)
        ids = row.ids[:-1] if row.ids and row.ids[-1] in self._texts.ends else row.ids
        text = self._texts.together(ids)
        for stop in row.request.stop:
            text = text.split(stop)[0]
        said = row.said if row.request.top_logprobs else []
        raw: dict[str, Any] = {}
        if extra.get("echo") and row.request.style == "completion":
            text = row.request.prompt + text
            said = [*self._of_prompt(row), *said] if row.request.top_logprobs else []
        if extra.get("prompt_logprobs") is not None:
            beside = [_beside(i, token) for i, token in zip(row.prompt, self._of_prompt(row), strict=True)]
            raw = {"choices": [{"text": text, "prompt_logprobs": beside}]}
        return Answer(text, tuple(said), len(row.prompt), len(row.ids), raw=raw)

    def _of_prompt(self, row: _Row) -> list[Token]:
        """Tokens of the prompt with their log-probabilities, the first without."""
        logits = self._model(input_ids=self._there(torch.tensor([row.prompt])), use_cache=False).logits[0, :-1]
        ids = torch.tensor(row.prompt)
        values = logits.float().log_softmax(dim=-1).gather(1, self._there(ids[1:, None]))[:, 0].tolist()
        return [Token(self._texts[i], value) for i, value in zip(row.prompt, [None, *values], strict=True)]

    def _there(self, numbers: Tensor) -> Tensor:
        return numbers.to(self._model.device)


def _batches(rows: list[_Row]) -> Iterator[list[_Row]]:
    """Rows of about the same length and as many tokens of answer, few enough to go at once."""
    batch: list[_Row] = []
    for row in sorted(rows, key=lambda row: (row.request.max_tokens, len(row.prompt))):
        fits = (len(batch) + 1) * (len(row.prompt) + row.request.max_tokens) <= _AT_ONCE
        if batch and not (fits and row.request.max_tokens == batch[0].request.max_tokens):
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def _drawn(row: _Row, scores: Tensor) -> int:
    """A token drawn by the row's own generator, so that what shares its batch changes nothing."""
    request = row.request
    names = (request.prompt, request.style, request.repeat if request.seed is None else 0, len(row.ids))
    random = generator(request.seed or 0, *(name if isinstance(name, int) else crc32(name.encode()) for name in names))
    shares = (scores.double() / request.temperature).softmax(dim=-1).cumsum(dim=-1)
    return min(int(torch.searchsorted(shares, torch.tensor(random.random()).to(shares))), len(scores) - 1)


def _beside(number: int, token: Token) -> dict[str, Any] | None:
    """As vLLM writes it."""
    if token.logprob is None:
        return None
    return {str(number): {"logprob": token.logprob, "rank": None, "decoded_token": token.text}}
