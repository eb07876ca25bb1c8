"""A model behind an API as the writer of instructions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from bbtune.endpoint.reading import generation
from bbtune.endpoint.request import Request, Style, TextModel
from bbtune.errors import EndpointError
from bbtune.text_search.wording import chat_prompt, completion_prompt, instruction_in
from bbtune.text_search.writer import Ask


class ApiWriter:
    """Asks a text model for paraphrases and combinations.

    Args:
        model: that is asked; it counts the cost and keeps the caps.
        style: of its API.
        max_tokens: of an answer.
        temperature: of the sampling.
    """

    def __init__(self, model: TextModel, style: Style, max_tokens: int, temperature: float) -> None:
        self._model = model
        self._style = style
        self._max_tokens = max_tokens
        self._temperature = temperature

    def write(self, asks: Sequence[Ask], deadline: float | None = None) -> list[str]:
        """One text for each ask; an empty one where nothing of use came.

        Args:
            deadline: on the clock of :func:`time.monotonic`.

        Raises:
            BudgetReached: if a hard cap ends the asking.
            DeadlineReached: if the deadline passes.
            EndpointError: if the endpoint refuses or stays down, or for an ask of kind ``vector``.
        """
        answers = self._model.ask([self._request(ask) for ask in asks], deadline) if asks else []
        return [instruction_in(answer.text) for answer in answers]

    def _request(self, ask: Ask) -> Request:
        if ask.kind == "vector":
            raise EndpointError(
                "method.writer: expected asks in words, got a vector, which no API takes; set writer.model to a model "
                "that runs here, or choose another search than instruct-zero"
            )
        prompt = chat_prompt(ask) if self._style == "chat" else completion_prompt(ask)
        return replace(generation(prompt, self._style, self._max_tokens), temperature=self._temperature, seed=ask.seed)
