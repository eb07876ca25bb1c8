"""What a writer wrote, on record: resume asks nobody for it again."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict

from bbtune.errors import DeadlineReached, JournalError
from bbtune.journal import EndOfRecord, Journal, Record, recorded_end
from bbtune.text_search.writer import Ask, TimedWriter


class RecordedWriter:
    """A writer that answers from past records first, and records what it must ask for.

    Args:
        writer: asked when the records are used up; None raises EndOfRecord there.
        records: of earlier sessions.
        journal: where new texts go.

    Attributes:
        deadline: on the clock of :func:`time.monotonic`, after which nothing is written; None for none.
    """

    def __init__(self, writer: TimedWriter | None, records: Sequence[Record], journal: Journal | None = None) -> None:
        self._writer = writer
        self._journal = journal
        self._past = [record for record in records if record["event"] == "written"]
        self._stopped = recorded_end(records)
        self._next = 0
        self.deadline: float | None = None

    def write(self, asks: Sequence[Ask]) -> list[str]:
        """One text for each ask, recorded or new.

        Raises:
            JournalError: if the record at this place is of other asks.
            EndOfRecord: if the records are used up, and there is nobody to ask.
            BudgetReached: where a cap ended the recorded run at this place.
            DeadlineReached: where the seconds did, or do now.
        """
        digest = asks_digest(asks)
        if self._next < len(self._past):
            self._next += 1
            return _replayed(self._past[self._next - 1], digest)
        if self._stopped is not None:
            raise self._stopped
        if self._writer is None:
            raise EndOfRecord
        texts = self._writer.write(asks, self.deadline)
        if self.deadline is not None and time.monotonic() > self.deadline:
            raise DeadlineReached("the budget of seconds ended while instructions were being written")
        if self._journal is not None:
            self._journal.append({"event": "written", "asked_sha256": digest, "texts": texts})
        return texts


def asks_digest(asks: Sequence[Ask]) -> str:
    """SHA-256 (hex) of what a writer is asked, vectors to the last bit."""
    return hashlib.sha256(json.dumps([asdict(ask) for ask in asks]).encode()).hexdigest()


def _replayed(record: Record, digest: str) -> list[str]:
    if record["asked_sha256"] != digest:
        raise JournalError(
            f"replay asks the writer for {digest[:12]}, the journal has texts for {record['asked_sha256'][:12]}; the "
            "code, a library or the kind of processor has changed since: resume with the versions in the journal's "
            "first line on the machine of the run, or start a new one"
        )
    return list(record["texts"])
