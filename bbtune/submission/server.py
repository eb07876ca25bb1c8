"""Which job server, and with which token; it is asked whether it takes it before anything else is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from bbtune.errors import BbtuneError, hide_credentials
from bbtune.service.ask import ask
from bbtune.service.cluster import refusal
from bbtune.service.state import Service, read_service
from bbtune.service.token import read_token, service_token, sound_token

ADDRESS = "RAY_API_SERVER_ADDRESS"  # environment, as Ray knows it
_TOKEN, _TOKEN_PATH = "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"
_TODO = "put the token of the job server there"


@dataclass(frozen=True)
class Server:
    """A job server.

    Args:
        address: ``http://host:port``.
        token: that it is shown.
        source: of the token, for messages.
        storage: where the runs of its jobs lie, of the service of this machine alone.
    """

    address: str
    token: str | None = field(default=None, repr=False)
    source: str = ""
    storage: Path | None = None


def find_server(address: str | None, folder: Path | None = None) -> Server:
    """The job server that is meant: as said, else by the environment, else the service of this machine.

    Args:
        address: as said.
        folder: state folder of the service, where it is another than that of the environment.

    Raises:
        BbtuneError: if there is none, it does not answer, or it does not take the token.
    """
    service = read_service(folder)
    told = address or os.environ.get(ADDRESS) or (service.dashboard if service else None)
    if told is None:
        raise BbtuneError(
            f"expected the address of a job server; give --address http://HOST:8265, set {ADDRESS}, or start a service "
            "on this machine: bbtune up"
        )
    url = _url(told)
    ours = service if service is not None and _place(service.dashboard) == _place(url) else None
    token, source = next(_tokens(ours), (None, ""))
    server = Server(url, token, source, ours.storage if ours else None)
    _reach(server)
    return server


def _url(told: str) -> str:
    url = (told if "://" in told else f"http://{told}").rstrip("/")
    if hide_credentials(url) != url:
        why = f"expected an address without user, password or key; a token goes into {_TOKEN_PATH}"
        raise BbtuneError(f"{hide_credentials(url)}: {why}")
    try:
        parts = urlsplit(url)
        sound = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, or too large; half of an IPv6 address
        sound = False
    if not sound:
        raise BbtuneError(f"{url}: expected the address of a job server, such as http://HOST:8265")
    return url


def _place(url: str) -> tuple[str, int | None]:
    """Host and port, under one name for this machine."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    return "localhost" if host in {"127.0.0.1", "::1"} else host, parts.port


def _tokens(service: Service | None) -> Iterator[tuple[str, str]]:
    """Tokens and their sources, the nearest first."""
    if (told := os.environ.get(_TOKEN, "")).strip():
        yield sound_token(told, _TOKEN, _TODO), _TOKEN
    if path := os.environ.get(_TOKEN_PATH):
        yield read_token(Path(path), f"{_TOKEN_PATH}={path}", _TODO), f"{_TOKEN_PATH}={path}"
    if service is not None:
        yield service_token(service.token_file), str(service.token_file)
    shared = Path.home() / ".ray" / "auth_token"
    if shared.is_file():
        yield read_token(shared, str(shared), _TODO), str(shared)


def _reach(server: Server) -> None:
    answer = ask(f"{server.address}/api/version", server.token)
    if said := refusal(server.address, answer):
        which = f" (it was shown that of {server.source})" if server.source and answer.status in {401, 403} else ""
        raise BbtuneError(f"{said}{which}")
    version = answer.json()
    if not isinstance(version, dict) or "ray_version" not in version:
        raise BbtuneError(f"{server.address}: expected a job server of Ray, another web server answers there")
