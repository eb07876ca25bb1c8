"""Which job server, which token, and what is said when one of the two is wrong."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from bbtune.errors import BbtuneError
from bbtune.service.state import Service, write_service
from bbtune.submission.server import find_server

TOKEN = "a-token-of-this-cluster"


@pytest.fixture(autouse=True)
def _bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No token, no address, no service."""
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("BBTUNE_SERVICE", str(tmp_path / "service"))
    (tmp_path / "service").mkdir()


@pytest.fixture
def serving() -> Iterator[Callable[[int, object], str]]:
    """Start a server that answers one status and body, or for 200 checks the token as Ray does."""
    servers = []

    def start(status: int, body: object) -> str:
        class Answers(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                shown = self.headers.get("Authorization")
                code = status if status != 200 or shown == f"Bearer {TOKEN}" else 403 if shown else 401
                self.send_response(code)
                self.end_headers()
                self.wfile.write(json.dumps(body).encode())

            def log_message(self, *_: object) -> None: ...

        server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_address[1]}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


RAY = {"version": "4", "ray_version": "2.60.0"}


def begin_service(address: str, folder: Path) -> Service:
    token = folder / "token"
    token.write_text(TOKEN)
    service = Service(folder, address, "127.0.0.1:1", "http://127.0.0.1:2", token, folder / "runs", folder / "temp")
    write_service(service)
    return service


def test_the_token_comes_from_the_environment_or_a_file(serving, tmp_path, monkeypatch):
    address = serving(200, RAY)
    (tmp_path / "file").write_text(f"{TOKEN}\n")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "file"))
    found = find_server(address)
    assert (found.token, found.storage) == (TOKEN, None)
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH")
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    assert find_server(address.removeprefix("http://") + "/").address == address
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    (tmp_path / "home" / ".ray").mkdir(parents=True)
    (tmp_path / "home" / ".ray" / "auth_token").write_text(TOKEN)
    assert find_server(address).source.endswith("/.ray/auth_token")
    assert TOKEN not in repr(found)


def test_the_service_of_this_machine_is_found_by_itself(serving, tmp_path):
    address = serving(200, RAY)
    service = begin_service(address, tmp_path / "service")
    for told in (None, address, address.replace("127.0.0.1", "localhost")):
        found = find_server(told)
        assert (found.token, found.storage) == (TOKEN, service.storage)


def test_the_token_of_the_service_is_shown_to_it_alone(serving, tmp_path, monkeypatch):
    begin_service(serving(200, RAY), tmp_path / "service")
    other = serving(200, RAY)
    with pytest.raises(BbtuneError, match=f"^{other} wants a token; set RAY_AUTH_TOKEN_PATH"):
        find_server(other)
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", other)
    with pytest.raises(BbtuneError, match=f"^{other} wants a token"):
        find_server(None)


def test_without_an_address_it_is_said_where_to_name_one():
    with pytest.raises(BbtuneError, match=r"expected the address of a job server; give --address .* bbtune up"):
        find_server(None)


def test_a_wrong_token_is_told_with_its_source_and_without_itself(serving, monkeypatch):
    address = serving(200, RAY)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "of-another-cluster")
    with pytest.raises(BbtuneError, match=r"refuses the token; .*\(it was shown that of RAY_AUTH_TOKEN\)") as caught:
        find_server(address)
    assert "of-another-cluster" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (404, {}, r"is no job server of Ray, or a sick one \(HTTP 404"),
        (500, {}, "is no job server of Ray, or a sick one"),
        (201, {}, "is no job server of Ray, or a sick one"),
    ],
)
def test_another_server_is_told_from_a_job_server(serving, status, body, said):
    with pytest.raises(BbtuneError, match=said):
        find_server(serving(status, body))


def test_a_web_page_is_no_job_server(serving, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    with pytest.raises(BbtuneError, match="expected a job server of Ray, another web server answers there"):
        find_server(serving(200, "<html>"))


def test_nobody_there_is_told_at_once():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
        began = time.monotonic()
        with pytest.raises(BbtuneError, match=rf"nothing answers at {address} \(.*refused\); start it"):
            find_server(address)
    assert time.monotonic() - began < 3


def test_a_server_that_says_nothing_is_given_up_after_seconds():
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        began = time.monotonic()
        with pytest.raises(BbtuneError, match="nothing answers at"):
            find_server(f"127.0.0.1:{mute.getsockname()[1]}")
    assert time.monotonic() - began < 8


@pytest.mark.parametrize(
    "address", ["ray://host:10001", "ftp://host", "http://", "host:abc", "host:99999", "http://[::1"]
)
def test_an_address_of_another_kind_is_told(address, tmp_path):
    begin_service("http://127.0.0.1:1", tmp_path / "service")
    with pytest.raises(BbtuneError, match="expected the address of a job server, such as http://HOST:8265"):
        find_server(address)


def test_credentials_in_an_address_are_refused_and_not_repeated():
    with pytest.raises(BbtuneError, match="expected an address without user, password or key") as caught:
        find_server("http://me:hush@host:8265")
    assert "hush" not in str(caught.value)


def test_a_token_file_that_is_not_there_is_told(monkeypatch, tmp_path):
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(BbtuneError, match=r"RAY_AUTH_TOKEN_PATH=.*: the token cannot be read"):
        find_server("http://127.0.0.1:1")
