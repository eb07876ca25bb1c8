"""How a server serves: what it takes at the most, where it listens, and where its files lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

BOOK, METERS, LOG, KEY, RAY_TOKEN = "book", "meters", "server.log", "key", "ray_token"  # in a server's folder


@dataclass(frozen=True)
class Limits:
    """What is refused beyond.

    Attributes:
        body_bytes: of a request.
        texts: of a request.
        characters: of a text, of a pair both together.
        batch_texts: that share a forward.
        waiting_texts: of all requests, while others are at the model.
    """

    body_bytes: int = 2**20
    texts: int = 256
    characters: int = 20_000
    batch_texts: int = 32
    waiting_texts: int = 1024


@dataclass(frozen=True)
class Front:
    """Where a server listens, and with how much behind it.

    Attributes:
        host, port: of HTTP.
        replicas: processes, each with a copy of the model.
        threads: of a forward.
        grace_s: seconds that requests under way have when the server is stopped.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    replicas: int = 1
    threads: int = 1
    grace_s: float = 30.0


@dataclass(frozen=True)
class Settings:
    """All that a replica is made from; it holds no key, Ray keeps it.

    Attributes:
        folder: of the server, private.
        with_key: whether requests must show the key, which lies in the folder.
    """

    folder: Path
    with_key: bool
    limits: Limits
    front: Front


@dataclass(frozen=True)
class Wish:
    """What a server was asked to be.

    Attributes:
        runs: ``RUN`` or ``NAME=RUN``.
        state: folder of all servers' files.
        with_key: whether requests must show a key.
    """

    runs: Sequence[str]
    front: Front
    limits: Limits
    state: Path
    with_key: bool
