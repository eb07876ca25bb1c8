"""What a run pays, and what it has bought: the endpoints of a job share one purse and one store of answers."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from bbtune.backbone.fetch import cache_folder
from bbtune.endpoint.endpoint import Endpoint
from bbtune.endpoint.purse import Caps, Purse
from bbtune.endpoint.secrets import Secret
from bbtune.endpoint.serve import LocalServer
from bbtune.endpoint.store import AnswerStore
from bbtune.endpoint_spec import ApiSpec
from bbtune.spec import BaseJob

PAID, ANSWERS = "paid.sqlite", "answers.sqlite"


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
        self._endpoints: dict[ApiSpec, Endpoint] = {}

    def endpoint(self, api: ApiSpec, threads: int) -> Endpoint:
        """The endpoint that a job names, its server started where it is to be served here.

        Who names the same gets the same: one server, and one limit of requests per minute.

        Args:
            threads: of such a server.

        Raises:
            EndpointError: if its key is not in the environment, or its server does not start.
        """
        named = api.model_copy(update={"style": "auto", "read": "auto"})  # of the reader alone
        if named not in self._endpoints:
            self._endpoints[named] = self._opened(api, threads)
        return self._endpoints[named]

    def close(self) -> None:
        """Close all that was opened, the last first."""
        self._open.close()

    def _opened(self, api: ApiSpec, threads: int) -> Endpoint:
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

    def _answers(self, api: ApiSpec) -> AnswerStore | None:
        if not api.cache:
            return None
        if self._store is None:
            cache_folder().mkdir(parents=True, exist_ok=True)
            self._store = AnswerStore(cache_folder() / ANSWERS)
            self._open.callback(self._store.close)
        return self._store
