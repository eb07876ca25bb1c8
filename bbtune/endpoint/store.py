"""Answers on disk, so that nothing is bought twice: written as they arrive, read by whoever asks the same."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

from bbtune.endpoint.answers import read_answer
from bbtune.endpoint.database import Database
from bbtune.endpoint.failure import Failure
from bbtune.endpoint.request import Answer
from bbtune.endpoint.usage import Tokens
from bbtune.errors import EndpointError

_SCHEMA = "CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, raw BLOB, input INTEGER, output INTEGER)"


class AnswerStore:
    """Answers by the key of their request (:meth:`Request.key`); for several threads and several processes.

    Args:
        path: of the file, made when it is not there.

    Raises:
        EndpointError: if the file is damaged or cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._advice = "delete it to go on; its answers will be asked, and paid, again"
        self._database = Database(path, _SCHEMA, self._advice)

    def get(self, key: str) -> Answer | None:
        """The answer of a request, None where it has none.

        Raises:
            EndpointError: if the file is damaged.
        """
        with self._database.open() as link:
            row = link.execute("SELECT raw, input, output FROM answers WHERE key = ?", (key,)).fetchone()
        if row is None:
            return None
        raw, *used = row
        try:
            return read_answer(json.loads(zlib.decompress(raw)), Tokens(*used), cached=True)
        except (Failure, ValueError, TypeError, zlib.error) as error:
            raise EndpointError(f"{self._database.path}: it is damaged; {self._advice}") from error

    def put(self, key: str, answer: Answer) -> None:
        """Keep an answer; one that is there already stays.

        Raises:
            EndpointError: if the file cannot be written.
        """
        raw = zlib.compress(json.dumps(answer.raw).encode(), level=1)  # a thousand tokens beside each one are 40 kB
        row = (key, raw, answer.input_tokens, answer.output_tokens)
        with self._database.open() as link:
            link.execute("INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?)", row)

    def close(self) -> None:
        """Close the file."""
        self._database.close()
