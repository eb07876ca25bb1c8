"""``transformers serve``: the real server that answers 200 and ignores that log-probabilities were asked for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from real_servers import TransformersServer, asked

from bbtune.endpoint.abilities import choose
from bbtune.endpoint.endpoint import Endpoint
from bbtune.endpoint.probe import probe
from bbtune.endpoint.reading import Generated
from bbtune.endpoint_spec import ANSWER_TOKENS
from bbtune.errors import EndpointError

WORDS = (("bad",), ("great",))


@pytest.fixture
def served(transformers_server: TransformersServer, tmp_path: Path) -> Iterator[Endpoint]:
    server = transformers_server
    with asked(tmp_path, server.base_url, model=server.model, concurrency=2, timeout_s=120.0) as endpoint:
        yield endpoint


def test_logprobs_that_it_ignores_are_not_believed_and_generated_words_are_used(served: Endpoint) -> None:
    found = probe(served, served.spec, WORDS)
    assert (found.chat, found.completion, found.chat_top, found.completion_top) == (True, True, 0, 0)
    assert (found.echo, found.prompt_logprobs, found.lists) == (None, None, False)
    assert dict(found.reasons)["completion_top"] == "it answers, and ignores that it was asked"
    reader = choose(found, served.spec, WORDS, True)
    assert reader == Generated("chat", ANSWER_TOKENS)
    reading = reader.read(served.ask(reader.requests("it was a great film", WORDS)), WORDS)
    assert reading.logits.shape == (2,)


def test_a_job_that_demands_logprobs_of_it_is_told_why_not(served: Endpoint) -> None:
    found = probe(served, served.spec, WORDS)
    spec = served.spec.model_copy(update={"read": "label-logprobs"})
    with pytest.raises(EndpointError, match="completions come without log-probabilities"):
        choose(found, spec, WORDS, True)
