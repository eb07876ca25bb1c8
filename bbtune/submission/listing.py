"""Jobs as a table, and the runs of a storage that no job of the server is of."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from bbtune.result import JOURNAL, RESULT, SPEC, STUDY
from bbtune.submission.ray_jobs import JobState

FOLDER = "bbtune.folder"  # in the metadata of a job: its name in the storage
_WORDS = {"PENDING": "queued"}
_LONGEST = 90  # characters of a message


def table(jobs: Sequence[JobState], storage: Path | None) -> list[str]:
    """Lines of a table, and of one with the runs in the storage that no job here is of.

    A head that was started anew knows nothing of earlier jobs; what they have left in the storage is there.
    """
    rows = [
        (job.id, _WORDS.get(job.status, job.status.lower()), _when(job.start_ms / 1000), _short(job.message))
        for job in jobs
    ]
    known = {job.metadata.get(FOLDER, job.id) for job in jobs}
    lines = _aligned([("ID", "STATUS", "SINCE", "MESSAGE"), *rows]) if rows else ["no jobs"]
    runs = [row for row in _runs(storage) if row[0] not in known] if storage is not None else []
    if runs:
        lines += ["", f"in {storage}, of earlier jobs:", *_aligned(runs)]
    return lines


def _runs(storage: Path) -> list[tuple[str, ...]]:
    folders = sorted(path for path in storage.iterdir() if path.is_dir()) if storage.is_dir() else []
    found: list[tuple[str, ...]] = []
    for folder in folders:
        if (folder / RESULT).is_file():
            found.append((folder.name, "finished", _when((folder / RESULT).stat().st_mtime)))
        elif (folder / SPEC).is_file() and (folder / JOURNAL).is_file():
            found.append((folder.name, "unfinished", _when((folder / JOURNAL).stat().st_mtime)))
        elif (folder / STUDY).is_file():
            found.append((folder.name, "a study", _when((folder / STUDY).stat().st_mtime)))
    return found


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _when(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def _short(message: str) -> str:
    """The last line of a message: of a job that failed it ends with what the driver printed."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    last = lines[-1] if lines else ""
    return last if len(last) <= _LONGEST else f"{last[: _LONGEST - 1]}…"
