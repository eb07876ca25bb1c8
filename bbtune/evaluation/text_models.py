"""The models of a search for a prompt in words, opened together: the one that scores, and the one that writes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Any

from bbtune.backbone.fetch import cache_folder
from bbtune.endpoint.abilities import Abilities
from bbtune.endpoint.api_writer import ApiWriter
from bbtune.endpoint.endpoint import Endpoint
from bbtune.endpoint.probe import choose, probe
from bbtune.endpoint.purse import Caps, Purse
from bbtune.endpoint.reading import LabelLogprobs, Reader
from bbtune.endpoint.request import TextModel
from bbtune.endpoint.secrets import Secret
from bbtune.endpoint.serve import LocalServer
from bbtune.endpoint.store import AnswerStore
from bbtune.endpoint_spec import ApiSpec
from bbtune.evaluation.instruction_writer import InstructionWriter
from bbtune.evaluation.local_text import LocalText
from bbtune.spec import BackboneSpec, BaseJob
from bbtune.task.task import Example
from bbtune.task.verbalizer import Words
from bbtune.text_plan import TextPlan
from bbtune.text_search.writer import Ask, Writer

PAID, ANSWERS = "paid.sqlite", "answers.sqlite"
_LOCAL_TOP = 100  # of a model in this process
_SHOWN = 5  # examples that a writer is shown


class Account:
    """What the endpoints of a run share: its purse, and the answers that earlier runs have bought.

    Args:
        spec: of the job.
        folder: of the run; what is paid is kept there.
    """

    def __init__(self, spec: BaseJob, folder: Path) -> None:
        budget = spec.budget
        self._open = ExitStack()
        self.purse = Purse(folder / PAID, Caps(budget.requests, budget.tokens, budget.dollars))
        self._open.callback(self.purse.close)
        self._store: AnswerStore | None = None

    def endpoint(self, api: ApiSpec, threads: int) -> Endpoint:
        """The endpoint that a job names, its server started where it is to be served here.

        Args:
            threads: of such a server.

        Raises:
            EndpointError: if its key is not in the environment, or its server does not start.
        """
        base_url, secret = None, None
        if api.serve is not None:
            server = LocalServer(api.serve, threads, api.concurrency)
            self._open.callback(server.close)
            base_url, secret = server.base_url, Secret(server.key, "the server that was started here")
        found = Endpoint(
            api, secret or Secret.from_environment(api.api_key_env), self.purse, self._answers(api), base_url
        )
        self._open.callback(found.close)
        return found

    def close(self) -> None:
        """Close all that was opened, the last first."""
        self._open.close()

    def _answers(self, api: ApiSpec) -> AnswerStore | None:
        if not api.cache:
            return None
        if self._store is None:
            cache_folder().mkdir(parents=True, exist_ok=True)
            self._store = AnswerStore(cache_folder() / ANSWERS)
            self._open.callback(self._store.close)
        return self._store


class TextModels:
    """The models of a search, each opened when it is first asked.

    Args:
        plan: of the search.
        folder: of the run; what is paid is kept there.
    """

    def __init__(self, plan: TextPlan, folder: Path) -> None:
        self._plan = plan
        self._account = Account(plan.spec, folder)
        self.purse = self._account.purse
        self.writer = _Later(self._make_writer)

    @cached_property
    def scorer(self) -> TextModel:
        """The model whose answers are scored."""
        backbone = self._plan.spec.backbone
        threads = self._plan.spec.evaluators.threads
        return LocalText(backbone, threads) if backbone.api is None else self._account.endpoint(backbone.api, threads)

    def probe(self) -> dict[str, Any] | None:
        """What the endpoint can do, as plain data; None of a model in this process, which is known."""
        plan = self._plan
        api = plan.spec.backbone.api
        return None if api is None else probe(self.scorer, api, plan.label_words).as_dict()

    def reader(self, abilities: Mapping[str, Any] | None) -> tuple[Reader, list[str]]:
        """The way to read answers, and why, in words.

        Args:
            abilities: what :meth:`probe` found.
        """
        plan = self._plan
        api = plan.spec.backbone.api
        if api is None or abilities is None:
            return LabelLogprobs("completion", _LOCAL_TOP), []
        found = Abilities.from_dict(abilities)
        return choose(found, api, plan.label_words, plan.template.word_follows_space), found.sentences()

    def close(self) -> None:
        """Close what was opened."""
        if "scorer" in self.__dict__ and self._plan.spec.backbone.api is None:
            self.scorer.close()
        self._account.close()

    def _make_writer(self) -> Writer:
        spec = self._plan.spec.method.writer
        if spec is None:
            raise ValueError("expected a job with method.writer, got none")
        if spec.api is not None:
            return ApiWriter(self._account.endpoint(spec.api, 1), "chat", spec.max_tokens, spec.temperature)
        shown = _solved(self._plan.train, self._plan.label_words)
        return InstructionWriter(BackboneSpec(model=spec.model), spec, shown, self._plan.spec.seed)


class _Later:
    """A writer that is made when it is first asked: a replay does not need it."""

    def __init__(self, make: Callable[[], Writer]) -> None:
        self._make = make
        self._writer: Writer | None = None

    def write(self, asks: Sequence[Ask]) -> list[str]:
        """One text for each ask."""
        self._writer = self._writer or self._make()
        return self._writer.write(asks)


def _solved(train: Sequence[Example], words: Words) -> list[tuple[str, str]]:
    """Some train examples, of different labels first, as text and answer."""
    turn: dict[int, int] = {}
    order = []
    for i, example in enumerate(train):
        turn[example.label] = turn.get(example.label, 0) + 1
        order.append((turn[example.label], i))
    chosen = [train[i] for _, i in sorted(order)[:_SHOWN]]
    return [(" ".join(example.fields().values()), words[example.label][0]) for example in chosen]
