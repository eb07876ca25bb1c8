"""The append-only record of a run, and the evaluator that answers from it: resume is replay.

One JSON object per line, with a checksum, written through to the disk before the search goes on. A last line
that a crash tore is dropped; damage anywhere else is an error.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from base64 import b64decode, b64encode
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Protocol, Self
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from bbtune.cost import Spent
from bbtune.errors import BbtuneError, BudgetReached, DeadlineReached, JournalError
from bbtune.evaluation.base import Evaluator, Scores, Split
from bbtune.files import hold
from bbtune.objective import Subset
from bbtune.run_spec import MONEY

FORMAT = 6
Record = dict[str, Any]
MONEY_REASONS = {f"budget.{cap}" for cap in MONEY}


class Sink(Protocol):
    """A second place for the lines of a journal; a line is safe there when ``append`` returns."""

    place: str

    def append(self, line: bytes) -> None: ...


class Journal:
    """Records of one run, in order; one process at a time may hold it.

    Args:
        path: the file, made when it is not there.
        sink: gets every line that is appended, too.

    Attributes:
        place: where the run lies, for messages: that of the sink, else the folder of the file.

    Raises:
        JournalError: if another process holds it, or a line before the last is damaged.
    """

    def __init__(self, path: Path, sink: Sink | None = None) -> None:
        self._file: BinaryIO = path.open("a+b")
        self.path = path
        self._sink = sink
        self.place = str(path.parent) if sink is None else sink.place
        try:
            hold(self._file, JournalError(f"{path}: another process is running this job; wait for it, or end it"))
            self.records, whole = _parse(path)
        except BbtuneError:
            self._file.close()
            raise
        self._file.truncate(whole)

    def append(self, record: Record) -> None:
        """Write one record through to the disk, and to the sink.

        Raises:
            JournalError: if one of them refuses it.
        """
        line = (json.dumps({**record, "crc32": _checksum(record)}, allow_nan=False) + "\n").encode()
        try:
            self._file.write(line)
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise JournalError(
                f"{self.path}: cannot be written ({error.strerror}); free the disk and resume"
            ) from error
        if self._sink is not None:
            self._sink.append(line)
        self.records.append(record)

    def find(self, event: str) -> Record | None:
        """The first record of an event, None where there is none."""
        return next((record for record in self.records if record["event"] == event), None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with suppress(OSError):  # every record is on the disk already; what the disk refused was told by append
            self._file.close()


def read_journal(path: Path) -> list[Record]:
    """The whole records of a journal, which another process may be writing.

    Raises:
        JournalError: if it is not there, or a line before the last is damaged.
    """
    if not path.is_file():
        raise JournalError(f"{path.parent}: expected a run folder with {path.name}, found none")
    return _parse(path)[0]


def _parse(path: Path) -> tuple[list[Record], int]:
    """Records, and the length in bytes of the whole lines."""
    raw = path.read_bytes()
    records: list[Record] = []
    whole = 0
    for number, line in enumerate(raw.splitlines(keepends=True), 1):
        record = _read_line(line)
        if record is None:
            if whole + len(line) == len(raw):
                break  # torn by a crash
            raise JournalError(f"{path}:{number}: damaged line; restore the file from a copy, or start a new run")
        records.append(record)
        whole += len(line)
    if records and records[0].get("format") != FORMAT:
        raise JournalError(
            f"{path}: expected journal format {FORMAT}, got {records[0].get('format')!r}; "
            "finish the run with the version of bbtune that began it, or start a new one"
        )
    return records, whole


def is_whole(line: bytes) -> bool:
    """Whether a line is one of a journal, undamaged."""
    return _read_line(line) is not None


def _read_line(line: bytes) -> Record | None:
    try:
        record = json.loads(line)
        if not line.endswith(b"\n") or not isinstance(record, dict):
            return None
        return record if record.pop("crc32", None) == _checksum(record) else None
    except ValueError:  # not JSON, or a number out of range
        return None


def _checksum(record: Record) -> str:
    return f"{crc32(json.dumps(record, allow_nan=False).encode()):08x}"


def array_digest(z: NDArray[Any]) -> str:
    """SHA-256 (hex) of an array's numbers and shape."""
    return hashlib.sha256(repr(z.shape).encode() + np.ascontiguousarray(z, dtype="<f8").tobytes()).hexdigest()


class Recorded:
    """An evaluator that answers from past records first, and records what it must ask for.

    Args:
        evaluator: asked when the records are used up; None raises EndOfRecord there.
        records: of earlier sessions.
        journal: where new scores go.
        keep_logits: whether the search reads the label logits of the train split, so that its replay needs them.

    Attributes:
        began: reading of :func:`time.monotonic` from which the seconds of the run count, earlier sessions included.
    """

    def __init__(
        self,
        evaluator: Evaluator | None,
        records: list[Record],
        journal: Journal | None = None,
        keep_logits: bool = False,
    ) -> None:
        self._evaluator = evaluator
        self._journal = journal
        self._keep_logits = keep_logits
        self._past = [record for record in records if record["event"] == "scores"]
        self._stopped = recorded_end(records)
        self._next = 0
        last = max((record.get("elapsed_s", 0.0) for record in records), default=0.0)
        self.began = time.monotonic() - last

    def evaluate(
        self,
        z: NDArray[np.float64],
        split: Split,
        deadline: float | None = None,
        first: int = 0,
        subset: Subset | None = None,
    ) -> Scores:
        """Scores of z (P, L, D), recorded or new.

        Args:
            deadline: on the clock of :func:`time.monotonic`.
            first: index of the lowest tuned layer in which the candidates may differ.
            subset: examples of the split to score on; None for all.

        Raises:
            JournalError: if the record at this place is of another z, split or subset.
            EndOfRecord: if the records are used up, and there is nobody to ask.
            BudgetReached: where a cap on money ended the recorded run at this place.
            DeadlineReached: where the seconds did, or do now.
        """
        if self._next < len(self._past):
            self._next += 1
            return _replayed(self._past[self._next - 1], z, split, subset)
        if self._stopped is not None:
            raise self._stopped
        if self._evaluator is None:
            raise EndOfRecord
        scores = self._evaluator.evaluate(z, split, deadline, first, subset)
        now = time.monotonic()
        if deadline is not None and now > deadline:
            raise DeadlineReached
        scores = replace(scores, elapsed_s=round(now - self.began, 3), unix_ms=now_ms())
        if self._journal is not None:
            kept = self._keep_logits and split == "train"
            self._journal.append(_record(z, split, subset, scores if kept else replace(scores, logits=None)))
        return scores


class EndOfRecord(Exception):
    """The records are used up, and there is nobody to ask."""


def recorded_end(records: Sequence[Record]) -> BudgetReached | DeadlineReached | None:
    """What stopped a recorded run where its records are used up; None where it has not stopped.

    Beside caps on money only the budget of seconds stops a search before its next call.
    """
    reason = next((str(record["reason"]) for record in records if record["event"] == "stop"), None)
    if reason is None:
        return None
    if reason in MONEY_REASONS:
        return BudgetReached(reason)
    return DeadlineReached()


def now_ms() -> int:
    """Time of day in milliseconds since 1970."""
    return int(time.time() * 1000)


def _record(z: NDArray[np.float64], split: Split, subset: Subset | None, scores: Scores) -> Record:
    return {
        "event": "scores",
        "split": split,
        "subset": None if subset is None else list(subset),
        "z_sha256": array_digest(z),
        "loss": scores.loss.tolist(),
        "metric": scores.metric.tolist(),
        "logits": None if scores.logits is None else _packed(scores.logits),
        "examples": scores.examples,
        "layer_forwards": scores.layer_forwards,
        "spent": asdict(scores.spent),
        "elapsed_s": scores.elapsed_s,
        "unix_ms": scores.unix_ms,
    }


def _packed(logits: NDArray[np.float32]) -> Record:
    """An array as text, bit for bit."""
    raw = np.ascontiguousarray(logits, dtype="<f4").tobytes()
    return {"shape": list(logits.shape), "float32": b64encode(raw).decode()}


def _unpacked(packed: Record) -> NDArray[np.float32]:
    return np.frombuffer(b64decode(packed["float32"]), dtype="<f4").reshape(packed["shape"])


def _replayed(record: Record, z: NDArray[np.float64], split: Split, subset: Subset | None) -> Scores:
    asked = {"split": split, "subset": None if subset is None else list(subset), "z_sha256": array_digest(z)}
    if any(record[key] != value for key, value in asked.items()):
        raise JournalError(
            f"replay asks for {_named(asked)}, the journal has {_named(record)}; the code, a library or the kind of "
            "processor has changed since: resume with the versions in the journal's first line on the machine of the "
            "run, or start a new one"
        )
    return Scores(
        np.array(record["loss"]),
        np.array(record["metric"]),
        None if record["logits"] is None else _unpacked(record["logits"]),
        record["examples"],
        record["layer_forwards"],
        record["elapsed_s"],
        record["unix_ms"],
        Spent(**record["spent"]),
    )


def _named(record: Record) -> str:
    """What scores are of, for a message."""
    part = "" if record["subset"] is None else f" on {len(record['subset'])} examples"
    return f"{record['split']} scores of z {record['z_sha256'][:12]}{part}"
