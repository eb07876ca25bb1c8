"""One command at a time at the processes of a service."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bbtune.errors import BbtuneError


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a state folder; the system lets go of it when this process ends.

    Raises:
        BbtuneError: if another command holds it.
    """
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BbtuneError(f"{folder}: another `bbtune up` or `bbtune down` is at work here; wait for it") from error
        yield
