"""What a writer wrote is on record."""

from __future__ import annotations

from pathlib import Path

import pytest
from planted_prompts import PhraseWriter

from bbtune.errors import BudgetReached, DeadlineReached, JournalError
from bbtune.journal import FORMAT, EndOfRecord, Journal, read_journal
from bbtune.text_search.writer import Ask
from bbtune.written import RecordedWriter

ASKS = [Ask("paraphrase", ("Be polite.",), seed=5), Ask("vector", vector=(0.1, -0.2, 1.0))]
OTHER = [Ask("vector", vector=(0.1, -0.2, 1.0000000000000002))]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A journal in which one call is on record."""
    found = tmp_path / "journal.jsonl"
    with Journal(found) as journal:
        journal.append({"event": "start", "format": FORMAT})
        RecordedWriter(PhraseWriter(), [], journal).write(ASKS)
    return found


def test_what_is_on_record_is_asked_of_nobody(path: Path) -> None:
    writer, records = PhraseWriter(), read_journal(path)
    recorded = RecordedWriter(writer, records)
    assert recorded.write(ASKS) == PhraseWriter().write(ASKS) == records[1]["texts"]
    assert writer.calls == []
    assert recorded.write(OTHER) == PhraseWriter().write(OTHER)
    assert writer.calls == [OTHER]


def test_a_replay_without_a_writer_ends_with_its_records(path: Path) -> None:
    recorded = RecordedWriter(None, read_journal(path))
    recorded.write(ASKS)
    with pytest.raises(EndOfRecord):
        recorded.write(OTHER)


def test_a_replay_that_asks_otherwise_is_refused(path: Path) -> None:
    for asks in (OTHER, ASKS[:1], ASKS[::-1]):
        with pytest.raises(JournalError, match=r"replay asks the writer for \w{12}, the journal has texts for \w{12}"):
            RecordedWriter(PhraseWriter(), read_journal(path)).write(asks)


@pytest.mark.parametrize(("reason", "error"), [("budget.dollars", BudgetReached), ("budget.seconds", DeadlineReached)])
def test_a_run_that_ended_while_it_was_written_ends_there_again(
    path: Path, reason: str, error: type[Exception]
) -> None:
    writer = PhraseWriter()
    recorded = RecordedWriter(writer, [*read_journal(path), {"event": "stop", "reason": reason}])
    recorded.write(ASKS)
    with pytest.raises(error):
        recorded.write(OTHER)
    assert writer.calls == []


def test_what_comes_after_the_seconds_is_not_put_on_record(path: Path) -> None:
    with Journal(path) as journal:
        recorded = RecordedWriter(PhraseWriter(), list(journal.records), journal)
        recorded.deadline = 0.0
        assert recorded.write(ASKS)  # was written in time, then
        with pytest.raises(DeadlineReached):
            recorded.write(OTHER)
    assert len(read_journal(path)) == 2
