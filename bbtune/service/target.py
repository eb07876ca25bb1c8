"""Which job server is meant, and which token is shown to it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from bbtune.errors import BbtuneError
from bbtune.service.state import Service, read_service
from bbtune.service.token import read_token

ADDRESS = "RAY_API_SERVER_ADDRESS"  # environment, as of Ray's own commands


@dataclass(frozen=True)
class Target:
    """A job server and the token for it.

    Args:
        dashboard: its URL.
        token: what it is shown, None where none was found; kept out of every text.
        token_from: where the token was found: a path, or the name of a variable.
    """

    dashboard: str
    token: str | None
    token_from: str

    def __repr__(self) -> str:
        return f"Target({self.dashboard!r}, token from {self.token_from or 'nowhere'})"


def find_target(told: str | None = None, folder: Path | None = None) -> Target | None:
    """The job server: as told, else $RAY_API_SERVER_ADDRESS, else the service on record; None if there is none.

    A service of this machine is shown its own token. Another is shown that of $RAY_AUTH_TOKEN, of the file
    $RAY_AUTH_TOKEN_PATH, or of ``~/.ray/auth_token``, the order of Ray.

    Raises:
        BbtuneError: if a file that should hold the token cannot be read.
    """
    service = read_service(folder)
    address = told or os.environ.get(ADDRESS) or (service.dashboard if service else None)
    if address is None:
        return None
    dashboard = address.rstrip("/") if "://" in address else f"http://{address.rstrip('/')}"
    if not dashboard.startswith(("http://", "https://")):
        raise BbtuneError(f"expected the address of a job server, http://HOST:8265, got {address}")
    file = token_file(dashboard, service)
    if file is None:
        return Target(dashboard, os.environ.get("RAY_AUTH_TOKEN"), "RAY_AUTH_TOKEN")
    return Target(dashboard, read_token(file), str(file)) if file.exists() else Target(dashboard, None, "")


def token_file(dashboard: str, service: Service | None) -> Path | None:
    """The file that holds the token for a job server; None if the environment holds the token itself."""
    if service is not None and dashboard == service.dashboard:
        return service.token_file
    if os.environ.get("RAY_AUTH_TOKEN"):
        return None
    return Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token").expanduser()
