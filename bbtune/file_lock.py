"""A file that one process at a time holds."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bbtune.errors import BbtuneError


@contextmanager
def locked(path: Path, refusal: BbtuneError) -> Iterator[None]:
    """Hold a file, made where it is not there; the system lets go of it when this process ends.

    Args:
        refusal: what to raise where another process holds it.
    """
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise refusal from error
        yield
