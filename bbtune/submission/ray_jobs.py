"""Ray's job server, its answers as plain data and its errors in words."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from bbtune.errors import BbtuneError, did_you_mean
from bbtune.submission.server import Server

_OVER = {"SUCCEEDED", "FAILED", "STOPPED"}
_LOUD = ("ray", "ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk")
_LOOK_S = 0.5
_ANSWER_S = 60.0  # that a server may take for an answer
_SILENCE_S = 60.0  # without a line of a log, until the server is asked whether it and the job are there
_SETTLE_S = 10.0  # after the last line of a log, until the state of its job is final
_STOP_S = 45.0  # a job has 30 to end by itself


@dataclass(frozen=True)
class JobState:
    """A job as the server tells it.

    Args:
        status: in Ray's words, ``PENDING``, ``RUNNING``, ``SUCCEEDED``, ``FAILED`` or ``STOPPED``.
        start_ms: when it was submitted, milliseconds since 1970.
        exit_code: of its driver; None of one that was not started, or was stopped.
    """

    id: str
    status: str
    message: str = ""
    start_ms: int = 0
    exit_code: int | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_over(self) -> bool:
        """Whether it has ended, one way or the other."""
        return self.status in _OVER


class RayJobs:
    """The jobs of one server.

    Raises:
        BbtuneError: if the server does not answer; so does every method.
    """

    def __init__(self, server: Server) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # Both win over the address that the client is given; no proxy stands between us and what was just asked.
        os.environ["RAY_API_SERVER_ADDRESS"] = server.address
        for name in ("no_proxy", "NO_PROXY"):
            os.environ[name] = ",".join(filter(None, [os.environ.get(name), urlsplit(server.address).hostname]))
        self._address = server.address
        headers = {"Authorization": f"Bearer {server.token}"} if server.token else None
        with self._told():
            from ray.job_submission import JobSubmissionClient

            for module in _LOUD:
                logging.getLogger(module).setLevel(logging.ERROR)

            self._client = JobSubmissionClient(server.address, headers=headers)
            # Ray waits for an answer for as long as the connection lives.
            self._client._do_request = partial(self._client._do_request, timeout=_ANSWER_S)

    def submit(
        self,
        id: str,
        entrypoint: str,
        runtime_env: Mapping[str, Any],
        metadata: Mapping[str, str],
        room: Mapping[str, float],
    ) -> None:
        """Put a job into the queue."""
        with self._told():
            self._client.submit_job(
                entrypoint=entrypoint,
                submission_id=id,
                runtime_env=dict(runtime_env),
                metadata=dict(metadata),
                **room,
            )

    def all(self) -> list[JobState]:
        """Every job that was submitted, the first first."""
        with self._told():
            found = self._client.list_jobs()
        states = [_state(details) for details in found if details.submission_id]
        return sorted(states, key=lambda state: state.start_ms)

    def one(self, id: str) -> JobState:
        """A job of this id.

        Raises:
            BbtuneError: if there is none.
        """
        jobs = {state.id: state for state in self.all()}
        if id not in jobs:
            known = list(jobs)[-5:]
            hint = did_you_mean(id, list(jobs)) or (f"; it has {', '.join(known)}" if known else "; it has none")
            raise BbtuneError(f"{self._address} has no job {id}{hint}")
        return jobs[id]

    def logs(self, id: str) -> str:
        """What a job has printed so far."""
        self.one(id)
        with self._told():
            return str(self._client.get_job_logs(id))

    def follow(self, id: str, write: Callable[[str], None]) -> JobState:
        """Hand on what a job prints, from its first line until it ends.

        Raises:
            BbtuneError: if the connection breaks off before.
        """

        self.one(id)
        with self._told():
            asyncio.run(self._tail(id, write))
        state = self._settled(id, _SETTLE_S)
        if not state.is_over:
            raise BbtuneError(f"{self._address}: the log of {id} broke off; go on with: bbtune logs {id} --follow")
        return state

    async def _tail(self, id: str, write: Callable[[str], None]) -> None:
        """Hand on lines as they come; in silence the server is asked for the job, since a lost one does not hang up."""
        lines = self._client.tail_job_logs(id)
        coming = asyncio.ensure_future(anext(lines, None))
        try:
            while True:
                await asyncio.wait({coming}, timeout=_SILENCE_S)
                if not coming.done():
                    if self.one(id).is_over:
                        return
                elif (text := coming.result()) is None:
                    return
                else:
                    write(text)
                    coming = asyncio.ensure_future(anext(lines, None))
        finally:
            coming.cancel()

    def stop(self, id: str) -> JobState:
        """End a job, and wait until it has ended; one that has stays as it is."""
        state = self.one(id)
        if state.is_over:
            return state
        with self._told():
            self._client.stop_job(id)
        return self._settled(id, _STOP_S)

    def _settled(self, id: str, patience_s: float) -> JobState:
        until = time.monotonic() + patience_s
        while not (state := self.one(id)).is_over and time.monotonic() < until:
            time.sleep(_LOOK_S)
        return state

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except BbtuneError:
            raise
        except ImportError as error:
            raise BbtuneError("jobs are submitted with ray[default]; pip install 'bbtune[cluster]'") from error
        except Exception as error:  # of Ray, requests and aiohttp; a server's traceback ends with its cause
            lines = [line for line in str(error).strip().splitlines() if line.strip(' "}.')]
            reason = lines[-1].strip() if lines else type(error).__name__
            raise BbtuneError(f"{self._address}: the job server failed ({reason})") from error


def _state(details: Any) -> JobState:
    return JobState(
        id=str(details.submission_id),
        status=str(getattr(details.status, "value", details.status)),
        message=details.message or "",
        start_ms=details.start_time or 0,
        exit_code=details.driver_exit_code,
        metadata=details.metadata or {},
    )
