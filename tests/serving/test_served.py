"""A real ``bbtune serve``: a process of its own, Ray Serve, and prompts on the small real model."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from processes import until
from served_runs import finished_run, quick_minilm

from bbtune.result import TuneResult
from bbtune.service.ports import is_free

pytestmark = [pytest.mark.slow, pytest.mark.ray]
TEXTS = ["The bill has the same item twice", "My kettle makes a noise", "Where is my parcel?", "I forgot my password"]


@dataclass(frozen=True)
class Server:
    """One that is up."""

    port: int
    key: str
    process: subprocess.Popen[str]
    said: str

    def ask(self, method: str, path: str, body: Any = None, key: str | None = None) -> tuple[int, Any]:
        """Status and body of one request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        headers = {"Authorization": f"Bearer {self.key if key is None else key}", "Connection": "close"}
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers | _JSON)
            answer = connection.getresponse()
            text = answer.read().decode()
        finally:
            connection.close()
        return answer.status, json.loads(text) if text.startswith("{") else text

    def labels(self, prompt: str, texts: Sequence[str]) -> list[str]:
        """Of texts under a prompt."""
        status, said = self.ask("POST", "/v1/classify", {"prompt": prompt, "texts": list(texts)})
        assert status == 200, said
        return [one["label"] for one in said["predictions"]]

    def prompts(self) -> list[str]:
        """Names."""
        return [one["name"] for one in self.ask("GET", "/v1/prompts")[1]["prompts"]]

    def below(self) -> list[psutil.Process]:
        """All that it has started."""
        return psutil.Process(self.process.pid).children(recursive=True)


_JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory, tiny_task) -> dict[str, Path]:
    """Finished runs by name."""
    root = tmp_path_factory.mktemp("runs")
    kinds = {"first": "prefix", "second": "prefix", "third": "offset"}
    return {
        name: finished_run(root / name, quick_minilm(name, seed, kind, tiny_task))
        for seed, (name, kind) in enumerate(kinds.items())
    }


def command(state: Path, *told: object) -> list[str]:
    return [sys.executable, "-m", "bbtune", "serve", "--state", str(state), *map(str, told)]


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "BBTUNE_"))}


@pytest.fixture(scope="module")
def server(runs, tmp_path_factory) -> Iterator[Server]:
    """With two prompts."""
    state, port = tmp_path_factory.mktemp("state"), free_port()
    told = command(state, runs["first"], f"2nd={runs['second']}", "--port", port, "--max-texts", 50)
    with subprocess.Popen(
        told, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            assert process.stdout is not None
            lines: list[str] = []
            while not lines or not lines[-1].startswith("try"):
                lines.append(process.stdout.readline())
                assert lines[-1], "".join(lines)
            yield Server(port, (state / "key").read_text(), process, "".join(lines))
        finally:
            process.terminate()
            process.wait(timeout=60)


def free_port() -> int:
    """None that the system hands out: who asks such a one while nobody listens may be connected to himself."""
    return next(port for port in range(20_000 + os.getpid() % 5_000, 30_000) if is_free(port))


def test_it_says_what_is_served_and_nothing_else(server):
    assert [line.split()[0] for line in server.said.splitlines()] == [
        *("reading", "starting", "serving", "address", "key", "log", "try")
    ]
    assert "first, 2nd" in server.said
    assert server.key not in server.said
    assert f"http://127.0.0.1:{server.port}/v1/classify" in server.said


def test_texts_get_the_labels_and_probabilities_that_predict_gives(server, runs):
    for name, run in (("first", "first"), ("2nd", "second")):
        _, said = server.ask("POST", "/v1/classify", {"prompt": name, "texts": TEXTS})
        expected = TuneResult.load(runs[run]).predict(TEXTS)
        assert [one["label"] for one in said["predictions"]] == [one.label for one in expected]
        found = [one["probability"] for one in said["predictions"]]
        assert found == pytest.approx([one.probability for one in expected], abs=1e-4)


def test_texts_of_different_prompts_share_batches_and_get_the_labels_that_they_get_alone(server):
    jobs = [(prompt, text) for prompt in ("first", "2nd") for text in TEXTS] * 8
    alone = {job: server.labels(job[0], [job[1]])[0] for job in set(jobs)}
    before = counted(server, "bbtune_batch_texts_count"), counted(server, "bbtune_batch_texts_sum")
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda job: server.labels(job[0], [job[1]])[0], jobs))
    assert found == [alone[job] for job in jobs]
    batches, texts = (counted(server, name) - then for name, then in zip(_BATCHES, before, strict=True))
    assert texts == len(jobs)
    assert batches < texts


_BATCHES = "bbtune_batch_texts_count", "bbtune_batch_texts_sum"


def counted(server: Server, name: str) -> float:
    """A number of the metrics page."""
    _, said = server.ask("GET", "/metrics")
    return float(next(line.split()[-1] for line in said.splitlines() if line.startswith(f"{name} ")))


def test_the_key_is_asked_for_and_limits_hold(server):
    assert server.ask("GET", "/v1/prompts", key="wrong")[0] == 401
    assert server.ask("GET", "/healthz", key="wrong") == (200, {"status": "ok"})
    status, said = server.ask("POST", "/v1/classify", {"prompt": "first", "texts": ["a"] * 51})
    assert (status, "at most 50 texts" in said["error"]["message"]) == (413, True)
    assert server.ask("POST", "/v1/classify", {"prompt": "frist", "texts": ["a"]})[0] == 404


def test_the_page_of_the_interface_is_there(server):
    assert "swagger" in server.ask("GET", "/docs")[1].lower()


def test_another_server_of_the_port_is_refused_in_words_before_anything_is_started(server, runs, tmp_path):
    done = subprocess.run(
        command(tmp_path, runs["first"], "--port", server.port),
        capture_output=True, text=True, timeout=60, env=environment(),
    )  # fmt: skip
    assert done.returncode == 1
    assert f"{server.port} is taken" in done.stderr


def test_a_prompt_is_added_and_removed_live_and_a_killed_replica_comes_back_with_all(server, runs):
    assert server.ask("PUT", "/v1/prompts/new", {"run": str(runs["third"])})[0] == 201
    assert server.ask("DELETE", "/v1/prompts/2nd")[0] == 200
    assert server.prompts() == ["first", "new"]
    before = server.labels("new", TEXTS)
    (replica,) = [one for one in server.below() if "ServeReplica" in " ".join(one.cmdline())]
    replica.kill()
    replica.wait(timeout=20)
    assert until(lambda: is_up(server), timeout_s=120)
    assert server.prompts() == ["first", "new"]
    assert server.labels("new", TEXTS) == before


def is_up(server: Server) -> bool:
    try:
        return server.ask("GET", "/healthz")[0] == 200
    except OSError:
        return False


def test_a_server_that_is_told_to_stop_answers_what_it_has_taken_and_leaves_nothing(server):
    """Under load: every request is answered until its client is told that the server stops, or finds none."""
    begun, found = server.below(), []

    told = threading.Event()

    def load() -> str:
        body = {"prompt": "first", "texts": TEXTS * 4}
        while True:
            try:
                status, said = server.ask("POST", "/v1/classify", body)
            except ConnectionRefusedError:
                assert told.is_set()
                return "refused"
            if status != 200:
                assert told.is_set()
                return str(said["error"]["message"])
            assert len(said["predictions"]) == 16
            found.append(status)

    with ThreadPoolExecutor(6) as pool:
        clients = [pool.submit(load) for _ in range(6)]
        time.sleep(1)
        told.set()
        server.process.send_signal(signal.SIGTERM)
        ends = [client.result(timeout=60) for client in clients]
    assert all("stopping" in end or end == "refused" for end in ends)
    assert len(found) > 6
    assert server.process.wait(timeout=60) == 0
    assert until(lambda: not any(one.is_running() for one in begun), timeout_s=10)
