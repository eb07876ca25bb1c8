"""In-context learning: solved examples before the text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bbtune.backbone.encoding import Encoder
from bbtune.backbone.sources import ModelCard
from bbtune.baselines.untrained import Learned, Logits, Untrained, known
from bbtune.errors import Fault, JobError
from bbtune.loop import Generation
from bbtune.method import Fitted
from bbtune.methods import InContextSpec, settings_of
from bbtune.plan import Plan
from bbtune.seeds import generator
from bbtune.task.task import Example, label_array
from bbtune.task.template import Template

_LEAST_ROOM = 64  # tokens that demonstrations leave to a text beyond its own share
_OFFSETS: dict[str, Any] = {"add_special_tokens": False, "return_offsets_mapping": True}


class InContext(Untrained):
    """Solved train examples before the text (Brown et al. 2020, arXiv 2005.14165).

    Of several draws, each in an order of its own, dev selects one (Lu et al. 2022, arXiv 2104.08786).
    """

    _encoder: Encoder | None = None

    def fit(self) -> Iterator[Generation | Fitted]:
        """One step per draw.

        Raises:
            JobError: for more demonstrations than there is room for.
        """
        settings, dev = settings_of(self._plan.spec, InContextSpec), self._plan.dev
        self._prepare()
        account = self._open()
        labels, reason = label_array(self._plan.train), "done"
        learned: Learned = {}
        for order in range(settings.orders):
            rng = generator(self._plan.spec.seed, "demonstrations", order)
            drawn = balanced_draw(labels, settings.demonstrations, rng)
            words = self._demonstrated(drawn)
            logits = self._unless_cut(account, order, partial(self._read, dev, self._encoder_behind(words)))
            if logits is None:
                reason = "budget.seconds"
                break
            account.spend(examples=len(dev))
            step = account.judge(logits)
            if step.dev is not None and step.dev.selected:
                learned = {"demonstrations": drawn, "words": np.frombuffer(words.encode(), dtype=np.uint8)}
                self.restore(learned)
            yield step
        yield Fitted(reason, account.cost, learned, 0)

    def label_logits(self, examples: Sequence[Example]) -> Logits:
        """Label logits (N, C) behind the demonstrations."""
        return self._read(examples, known(self._encoder))

    def restore(self, learned: Learned) -> None:
        """Take the demonstrations as they were put into words; the train examples are not needed."""
        self._encoder = self._encoder_behind(learned["words"].astype(np.uint8).tobytes().decode())

    def _encoder_behind(self, words: str) -> Encoder:
        """Rows of the job, with demonstrations before the template: as literal text they are never cut."""
        literal = words.replace("{", "{{").replace("}", "}}")
        template = Template(f"{literal}\n{self._plan.template.text}", self._plan.kind)
        return replace(self._plan, template=template).encoder(self._card, with_prompt=False)

    def _demonstrated(self, drawn: NDArray[np.int64]) -> str:
        """Train examples, each under the template with its label word; long texts are cut to equal shares.

        Args:
            drawn: (k,), their indices.

        Raises:
            JobError: if the shares have no room for a text.
        """
        plain = self._plan.encoder(self._card, with_prompt=False)
        room = plain.max_tokens - plain.prompt_length
        share = (room - min(_LEAST_ROOM, room // 4)) // (len(drawn) + 1)
        solved = [demonstration(self._plan, self._card, self._plan.train[i], share) for i in drawn]
        if not all(solved):
            asked = (
                f"expected {len(drawn)} texts under the template in {room} tokens ({share} for each), no room is left"
            )
            advice = "ask for fewer, raise backbone.max_tokens, or shorten the template"
            raise JobError([Fault("method.demonstrations", f"{asked}; {advice}")])
        return "\n".join(solved)


def balanced_draw(labels: NDArray[np.int64], count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Indices (count,) in random order, as many of each label as possible.

    Args:
        labels: (N,), N at least ``count``.
    """
    order = rng.permutation(len(labels))
    turn = np.empty(len(labels), dtype=np.int64)  # how many of the same label come first
    for label in np.unique(labels):
        same = labels[order] == label
        turn[same] = np.arange(same.sum())
    chosen = order[np.argsort(turn, kind="stable")[:count]]
    return np.asarray(rng.permutation(chosen), dtype=np.int64)


def demonstration(plan: Plan, card: ModelCard, example: Example, share: int) -> str:
    """A solved example in at most ``share`` tokens, its longest texts cut at their end; empty where that is too few."""
    tokenizer, template = card.tokenizer, plan.template
    texts = {name: _without_specials(text, card) for name, text in example.fields().items()}
    starts = {
        name: [start for start, _ in tokenizer(text, **_OFFSETS)["offset_mapping"]] for name, text in texts.items()
    }
    word = plan.label_words[example.label][0]
    longest = max(len(of_text) for of_text in starts.values())
    for kept in range(min(longest, share), 0, -1):
        cut = {name: of_text[kept] for name, of_text in starts.items() if kept < len(of_text)}
        short = {name: text[: cut[name]].rstrip() if name in cut else text for name, text in texts.items()}
        whole = template.render(short, word) + ("" if template.has_mask else f" {word}")
        if len(tokenizer(whole, add_special_tokens=False)["input_ids"]) < share:  # one is for the line's end
            return whole
    return ""


def _without_specials(text: str, card: ModelCard) -> str:
    for token in {*card.tokenizer.all_special_tokens, *([card.mask_token] if card.mask_token else [])}:
        text = text.replace(token, " ")
    return text
