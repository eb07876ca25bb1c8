"""SQLite files: written through before the work goes on, whole after a kill."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

from bbtune.errors import EndpointError

BUSY_S = 30.0


class Database:
    """One file, for all threads of a process.

    Args:
        path: of the file; it and its folder are made when they are not there.
        schema: statements that make the tables, with semicolons between.
        advice: what to do when the file is damaged.
        alone: whether other processes are kept out as long as it is open.

    Raises:
        EndpointError: if the file is damaged, in use, or cannot be written.
    """

    def __init__(self, path: Path, schema: str, advice: str, alone: bool = False) -> None:
        self.path = path
        self._advice = advice
        self._lock = Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._explained():
            self._link = sqlite3.connect(
                path, timeout=0 if alone else BUSY_S, isolation_level=None, check_same_thread=False
            )
        try:
            with self.open() as link:
                link.execute(f"PRAGMA locking_mode={'EXCLUSIVE' if alone else 'NORMAL'}")
                link.execute("PRAGMA journal_mode=WAL")
                link.execute("PRAGMA synchronous=FULL")
                link.execute("BEGIN IMMEDIATE")
                for statement in schema.split(";"):
                    link.execute(statement)
                link.execute("COMMIT")
        except EndpointError:
            self._link.close()
            raise

    @contextmanager
    def open(self) -> Iterator[sqlite3.Connection]:
        """The connection, to one thread at a time.

        Raises:
            EndpointError: if the file cannot be read or written.
        """
        with self._lock, self._explained():
            yield self._link

    def close(self) -> None:
        """Close the file; it can be opened again."""
        with self._lock:
            self._link.close()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.ProgrammingError as error:
            raise EndpointError(f"{self.path}: it has been closed; make a new one") from error
        except sqlite3.OperationalError as error:
            advice = (
                "end the other process" if "locked" in str(error) else "free the disk, check the folder, and resume"
            )
            raise EndpointError(f"{self.path}: cannot be used ({error}); {advice}") from error
        except sqlite3.DatabaseError as error:
            raise EndpointError(f"{self.path}: it is damaged ({error}); {self._advice}") from error
