"""A job server that falls silent is given up, whatever was asked of it."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from bbtune.errors import BbtuneError
from bbtune.submission import ray_jobs
from bbtune.submission.ray_jobs import RayJobs
from bbtune.submission.server import Server

pytestmark = pytest.mark.ray

_LONGEST_S = 20.0  # of a silence, so that a test fails instead of standing still
_WEBSOCKET = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3


class FallingSilent(ThreadingHTTPServer):
    """A job server with one job, whose log says nothing; after some lists of jobs it answers no more."""

    daemon_threads = True
    status = "RUNNING"
    lists = 1000

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.over = threading.Event()


class _Answers(BaseHTTPRequestHandler):
    server: FallingSilent
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path.endswith("/logs/tail"):
            key = self.headers["Sec-WebSocket-Key"].encode() + _WEBSOCKET
            accepted = base64.b64encode(hashlib.sha1(key, usedforsecurity=False).digest()).decode()
            self._answer(101, b"", Upgrade="websocket", Connection="Upgrade", **{"Sec-WebSocket-Accept": accepted})
            self.server.over.wait(_LONGEST_S)
        elif self.path == "/api/version":
            self._answer(200, json.dumps({"version": "4", "ray_version": "2", "ray_commit": "0"}).encode())
        elif self.server.lists == 0:
            self.server.over.wait(_LONGEST_S)
        else:
            self.server.lists -= 1
            job: dict[str, Any] = {"type": "SUBMISSION", "submission_id": "mine", "entrypoint": "", "start_time": 1}
            self._answer(200, json.dumps([job | {"status": self.server.status}]).encode())

    def _answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if status == 200:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[FallingSilent]:
    monkeypatch.setattr(ray_jobs, "_ANSWER_S", 0.5)
    monkeypatch.setattr(ray_jobs, "_SILENCE_S", 0.2)
    for name in ("RAY_API_SERVER_ADDRESS", "no_proxy", "NO_PROXY", "RAY_USAGE_STATS_ENABLED"):
        monkeypatch.setenv(name, "")  # put back what RayJobs sets
    server = FallingSilent()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.over.set()
    server.shutdown()
    server.server_close()


def jobs_of(server: FallingSilent) -> RayJobs:
    return RayJobs(Server(f"http://127.0.0.1:{server.server_address[1]}"))


def test_a_request_without_an_answer_ends_in_words(silent):
    jobs = jobs_of(silent)
    silent.lists = 0
    with pytest.raises(BbtuneError, match=r"the job server failed \(.*timed out"):
        jobs.all()


def test_a_log_without_a_line_is_left_when_its_server_is_lost(silent):
    jobs = jobs_of(silent)
    silent.lists = 3
    with pytest.raises(BbtuneError, match=r"the job server failed \(.*timed out"):
        jobs.follow("mine", str)
    assert silent.lists == 0


def test_a_log_that_never_ends_is_left_when_its_job_is_over(silent):
    silent.status = "SUCCEEDED"
    jobs = jobs_of(silent)
    assert jobs.follow("mine", str).status == "SUCCEEDED"
    assert not silent.over.is_set()
