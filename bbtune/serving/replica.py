"""What one process of a server holds: the model with its prompts, behind HTTP."""

from __future__ import annotations

import logging
import os
import traceback
from pathlib import Path
from typing import Any

from bbtune.serving.settings import BOOK, KEY, LOG, METERS, Settings


class Replica:
    """Made where it is to run, in an event loop; Ray Serve calls it.

    Args:
        settings: of the server.
    """

    async def __init__(self, settings: Settings) -> None:  # type: ignore[misc]  # Ray Serve awaits it
        from bbtune.serving.listener import Listener

        _log_to(settings.folder / LOG)
        self._listener = Listener(make(settings), settings.front)

    def check_health(self) -> None:
        """Tell Ray Serve to start another one where this one listens no more."""
        if self._listener.is_over:
            raise RuntimeError("the replica no longer listens")

    async def __del__(self) -> None:
        """Answer what is under way."""
        if hasattr(self, "_listener"):
            await self._listener.stop()


def make(settings: Settings) -> Any:
    """The HTTP interface (ASGI) on a model with the prompts of a book."""
    from bbtune.serving.app import make_app
    from bbtune.serving.book import Book
    from bbtune.serving.desk import Desk
    from bbtune.serving.meters import Meters

    meters = Meters(settings.folder / METERS)
    desk = Desk(Book(settings.folder / BOOK), settings.limits, settings.front.threads, meters.batch)
    key = (settings.folder / KEY).read_text(encoding="utf-8") if settings.with_key else None
    return make_app(desk, meters, key, settings.limits)


class _Plain(logging.Formatter):
    """Tracebacks as they are: Ray Serve replaces the print that the library's formatter uses, and garbles them."""

    def formatException(self, ei: Any) -> str:
        """A traceback."""
        return "".join(traceback.format_exception(*ei)).rstrip()


def _log_to(path: Path) -> None:
    """Let what goes wrong be written to a file that only its owner can read."""
    os.close(os.open(path, os.O_CREAT | os.O_APPEND, 0o600))
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(_Plain("%(asctime)s %(process)d %(levelname)s %(message)s"))
    log = logging.getLogger("bbtune.serving")
    log.addHandler(handler)
    log.propagate = False
