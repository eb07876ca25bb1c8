"""What one process of a server holds: the model with its prompts, behind HTTP."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

from bbtune.serving.settings import BOOK, KEY, LOG, METERS, Settings


class Replica:
    """Made where it is to run.

    Args:
        settings: of the server.
    """

    def __init__(self, settings: Settings) -> None:
        from bbtune.serving.book import Book
        from bbtune.serving.desk import Desk
        from bbtune.serving.meters import Meters

        _log_to(settings.folder / LOG)
        self._settings = settings
        self._meters = Meters(settings.folder / METERS)
        self._desk = Desk(Book(settings.folder / BOOK), settings.limits, settings.threads, self._meters.batch)

    def app(self) -> Any:
        """The HTTP interface (ASGI)."""
        from bbtune.serving.app import make_app

        key = (self._settings.folder / KEY).read_text(encoding="utf-8") if self._settings.with_key else None
        return make_app(self._desk, self._meters, key, self._settings.limits)


def _log_to(path: Path) -> None:
    """Let what goes wrong be written to a file that only its owner can read."""
    os.close(os.open(path, os.O_CREAT | os.O_APPEND, 0o600))
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(process)d %(levelname)s %(message)s"))
    log = logging.getLogger("bbtune.serving")
    log.addHandler(handler)
    log.propagate = False
