"""What a run has left in its folder so far."""

from __future__ import annotations

from pathlib import Path

from bbtune.jobfile import load_job
from bbtune.journal import read_journal
from bbtune.loop import Generation
from bbtune.session import recorded_events


def lines(folder: Path) -> int:
    """Whole lines of the journal; 0 where there is none yet."""
    path = folder / "journal.jsonl"
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def recorded(folder: Path) -> list[Generation]:
    """The steps or generations on record."""
    return recorded_events(load_job(folder / "spec.yaml"), read_journal(folder / "journal.jsonl"))
