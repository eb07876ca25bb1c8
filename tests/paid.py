"""Endpoints with a purse and a store in a folder, as a run has them, and time that passes by waiting."""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

from bbtune.endpoint.endpoint import Endpoint
from bbtune.endpoint.purse import Caps, Purse
from bbtune.endpoint.request import Request
from bbtune.endpoint.secrets import Secret
from bbtune.endpoint.store import AnswerStore
from bbtune.endpoint_spec import ApiSpec, PriceSpec

PRICE = PriceSpec(input=0.15, output=0.6)
QUICK: dict[str, Any] = {"model": "tiny", "price": PRICE, "patience_s": 5.0, "timeout_s": 20.0}


@contextmanager
def paid(
    url: str, folder: Path, caps: Caps | None = None, secret: Secret | None = None, **spec: Any
) -> Iterator[Endpoint]:
    """An endpoint that keeps answers and accounts in a folder."""
    with ExitStack() as stack:
        purse = stack.enter_context(closing(Purse(folder / "purse.db", caps or Caps())))
        store = stack.enter_context(closing(AnswerStore(folder / "answers.db")))
        settings = ApiSpec(base_url="http://of-the-tests/v1", **{**QUICK, **spec})
        yield stack.enter_context(closing(Endpoint(settings, secret or Secret(""), purse, store, base_url=url)))


def questions(number: int, style: Any = "chat", **more: Any) -> list[Request]:
    """Different requests."""
    return [Request(f"Is the parcel number {n} late?", style, max_tokens=2, **more) for n in range(number)]


def on_disk(folder: Path) -> dict[Path, bytes]:
    """What all files below a folder hold; answers, which are kept compressed, in plain beside it."""
    found = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for path, whole in found.items():
        if path.stem == "answers" and whole.startswith(b"SQLite format 3"):
            with closing(sqlite3.connect(path)) as link:
                rows = link.execute("SELECT key, raw FROM answers").fetchall()
            found[path] = whole + b"".join(key.encode() + zlib.decompress(raw) for key, raw in rows)
    return found


class Clock:
    """Time passes by waiting."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def pause(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds
