"""Log-probabilities of label words, read from answers by token id where the server tells it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from bbtune.endpoint.request import Answer
from bbtune.errors import EndpointError


class LabelTokens:
    """The first token of an answer, asked for the words of all labels.

    vLLM gives the log-probabilities of named tokens, exactly and in one answer. A server that knows nothing of that
    gives the most probable ones, by their text.

    Args:
        ids: token ids of each label's words.
        tokenizer: of the model.

    Attributes:
        asked: keys of a request's body.
        missing: words that were not in an answer, counted over all.
    """

    TOP: ClassVar[int] = 20  # most that servers give unless they are told otherwise

    def __init__(self, ids: Sequence[Sequence[int]], tokenizer: Any) -> None:
        flat = [token for of_label in ids for token in of_label]
        self._names = [(f"token_id:{token}", str(tokenizer.decode([token]))) for token in flat]
        self._starts = np.cumsum([0, *(len(of_label) for of_label in ids[:-1])])
        self.asked = (("logprob_token_ids", tuple(flat)), ("return_tokens_as_token_ids", True))
        self.missing = 0

    def logits(self, answers: Sequence[Answer]) -> NDArray[np.float32]:
        """Label logits (N, C): the log of the summed probabilities of each label's words."""
        return np.logaddexp.reduceat(self.words(answers), self._starts, axis=1).astype(np.float32)

    def words(self, answers: Sequence[Answer]) -> NDArray[np.float64]:
        """Log-probabilities (N, W) of the words of all labels.

        Raises:
            EndpointError: if an answer has none.
        """
        return np.array([self._read(answer) for answer in answers])

    def _read(self, answer: Answer) -> list[float]:
        if not answer.tokens or not answer.tokens[0].top:
            raise EndpointError("expected log-probabilities with the answer, got none; use a server that gives them")
        top = dict(answer.tokens[0].top)
        # The first that is there, so that words in which the server spells out tokens do.
        found = [next((top[name] for name in names if name in top), None) for names in self._names]
        self.missing += found.count(None)
        bound = min(top.values())
        return [bound if value is None else value for value in found]
