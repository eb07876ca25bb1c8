"""A pool that asks a server: continuous prompts travel as input embeddings, and no layer runs here."""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bbtune.backbone.embeddings import read_embeddings
from bbtune.backbone.encoding import Row
from bbtune.backbone.memory import peak_memory
from bbtune.backbone.prompted import put
from bbtune.backbone.sources import read_model_card
from bbtune.endpoint.request import Answer, Request, TextModel
from bbtune.errors import DeadlineReached, EndpointError
from bbtune.evaluation.label_tokens import LabelTokens
from bbtune.objective import Subset
from bbtune.prompts.space import PromptSpace
from bbtune.search_plan import SearchPlan
from bbtune.task.task import Example
from bbtune.task.verbalizer import label_token_ids

_AT_ONCE = 2**26  # bytes of embeddings in the requests of one call
PROBES = 3  # examples that are asked as text and as embeddings
_CLOSE = 0.5  # between their log-probabilities; servers that compute in bfloat16 differ by a tenth
_MIB = 2**20


class WirePool:
    """Label logits from a server that takes ``prompt_embeds``, such as vLLM with ``--enable-prompt-embeds``.

    The search is that of a local model: same projections, same positions, same scale. Of the model only tokenizer
    and input embeddings are here; log-probabilities come back, which differ from logits by a number per text.

    Args:
        plan: of an offset prompt at the input.
        model: what is asked; closed with the pool.
    """

    def __init__(self, plan: SearchPlan, model: TextModel) -> None:
        torch.set_num_threads(plan.spec.evaluators.threads)  # equal numbers of threads give equal requests
        card = read_model_card(plan.spec.backbone)
        self._embeddings = read_embeddings(card, plan.spec.backbone)
        self._plan = plan
        self._model = model
        self._encoder = plan.encoder(card, with_prompt=True)
        self._plain = plan.encoder(card, with_prompt=False)
        ids, _ = label_token_ids(plan.label_words, card.tokenizer, plan.template.word_follows_space)
        self._labels = LabelTokens(ids, card.tokenizer)
        shape = (self._encoder.prompt_length, self._embeddings.hidden_size)
        self._space = PromptSpace(plan.spec.seed, plan.layers, shape, plan.spec.prompt.intrinsic_dim)
        self._rows: dict[str, list[Row]] = {}
        self._deadline: float | None = None  # of the calls that run

    @property
    def missing(self) -> int:
        """Label words that were not in an answer, counted over all; each was bounded by the last that was."""
        return self._labels.missing

    def run(self, method: str, calls: Sequence[tuple[object, ...]], deadline: float | None = None) -> list[Any]:
        """Results of ``method(*call)`` for each call, in the order of the calls.

        Raises:
            EndpointError: if the server does not take embeddings, or holds another model.
        """
        results, self._deadline = [], deadline
        for call in calls:
            if deadline is not None and time.monotonic() > deadline:
                raise DeadlineReached
            results.append(getattr(self, method)(*call))
        return results

    def each(self, method: str) -> list[Any]:
        """The result of ``method()``."""
        return self.run(method, [()])

    def close(self) -> None:
        """Close the model."""
        self._model.close()

    def describe(self) -> str:
        """Ask a few texts in tokens and in embeddings: the server must give the same answer to both."""
        rows = [self._plain.row(example) for example in self._plan.train[:PROBES]]
        spoken = [self._request(row, ("prompt", tuple(row.ids))) for row in rows]
        embedded = [self._embedded(row) for row in rows]
        texts, states = (self._labels.words(self._asked(asked, rows)) for asked in (spoken, embedded))
        if not (apart := float(np.abs(texts - states).max())) < _CLOSE:
            raise EndpointError(
                f"expected a server with the weights of {self._plan.spec.backbone.model}, got log-probabilities of "
                f"texts in its embeddings that are {apart:.2g} from those of the same texts; name the model that is "
                "served"
            )
        size = self._embeddings.weight.nbytes / _MIB
        bounded = "; label words outside the most probable tokens are bounded by the last of these"
        return f"asked in embeddings, of which {size:.0f} MiB are here{bounded if self.missing else ''}"

    def together(self) -> int:
        """How many candidates to ask about in one call: as many as memory should hold in requests."""
        bytes_each = sum(len(row.ids) for row in self._split("train")) * self._embeddings.hidden_size * 4
        return int(max(1, min(self._plan.spec.method.population, _AT_ONCE // max(1, bytes_each))))

    def calibrate(self) -> NDArray[np.float64]:
        """Natural scale (1,) of offset prompts at the input: the standard deviation of the input embeddings."""
        return np.array([self._embeddings.std])

    def peak_memory_mib(self) -> float:
        """Highest memory of this process so far."""
        return peak_memory(torch.device("cpu")) / _MIB

    def candidates(
        self, z: NDArray[np.float64], split: str, first: int, subset: Subset | None = None
    ) -> NDArray[np.float32]:
        """Label logits (P, N, C) of scaled z (P, 1, D) on the train or dev split.

        Args:
            first: 0, the one tuned layer.
            subset: examples of the split; None for all.
        """
        rows = self._split(split)
        if subset is not None:
            rows = [rows[i] for i in subset]
        requests = [self._embedded(row, self._prompt(one)) for one in z for row in rows]
        logits = self._labels.logits(self._asked(requests, rows * len(z)))
        return logits.reshape(len(z), len(rows), -1)

    def label_logits(self, z: NDArray[np.float64] | None, examples: Sequence[Example]) -> NDArray[np.float32]:
        """Label logits (N, C) of any examples; z None is the untouched model with the prompt text in words, if any."""
        encoder = self._plain if z is None else self._encoder
        prompt = None if z is None else self._prompt(z)
        rows = [encoder.row(example) for example in examples]
        return self._labels.logits(self._asked([self._embedded(row, prompt) for row in rows], rows))

    def _split(self, split: str) -> list[Row]:
        if split not in self._rows:
            self._rows[split] = [self._encoder.row(example) for example in getattr(self._plan, split)]
        return self._rows[split]

    def _prompt(self, z: NDArray[np.float64]) -> Tensor:
        return self._space.prompts(z).layers[0]

    def _embedded(self, row: Row, prompt: Tensor | None = None) -> Request:
        """The request of one row, with a prompt (T, H) added at its positions."""
        hidden = self._embeddings.of(row.ids)
        if prompt is not None:
            hidden = put(hidden[None], torch.tensor([row.prompt]), prompt, sets=False)[0]
        return self._request(row, ("prompt", None), ("prompt_embeds", packed(hidden)))

    def _request(self, row: Row, *body: tuple[str, Any]) -> Request:
        extra, tokens = (*body, *self._labels.asked), len(row.ids)
        return Request("", "completion", top_logprobs=LabelTokens.TOP, extra=extra, input_tokens=tokens)

    def _asked(self, requests: Sequence[Request], rows: Sequence[Row]) -> list[Answer]:
        """Answers, each of which must be to as many tokens as were sent."""
        answers = self._model.ask(requests, self._deadline)
        for answer, row in zip(answers, rows, strict=True):
            if answer.input_tokens != len(row.ids):
                raise EndpointError(
                    f"expected an answer to the {len(row.ids)} embeddings that were sent, got one to "
                    f"{answer.input_tokens} tokens; use a server that takes prompt_embeds, such as vLLM with "
                    "--enable-prompt-embeds"
                )
        return answers


def packed(hidden: Tensor) -> str:
    """Embeddings (S, H) as ``prompt_embeds``: base64 of what ``torch.save`` writes.

    That is a zip with a pickle inside, the one form that servers take. It is only ever sent; nothing of the kind is
    read. Equal embeddings give equal text, so that an answer is found again.
    """
    file = io.BytesIO()
    torch.save(hidden.float().contiguous().clone(), file)
    return base64.b64encode(file.getvalue()).decode("ascii")
