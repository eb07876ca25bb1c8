"""Files that one process at a time holds, and files that are there whole or not at all."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

from bbtune.errors import BbtuneError

_ABANDONED_S = 3600.0


def hold(file: IO[Any], refusal: BbtuneError) -> None:
    """Keep other processes from a file until it is closed; the system lets go of it when this process ends.

    Args:
        refusal: what to raise where another process holds it.

    Raises:
        BbtuneError: if the file system has no locks.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise refusal from error
    except OSError as error:
        raise BbtuneError(
            f"{file.name}: cannot be locked ({error.strerror}); choose a folder on another disk"
        ) from error


@contextmanager
def locked(path: Path, refusal: BbtuneError) -> Iterator[None]:
    """Hold a file, made where it is not there.

    Args:
        refusal: what to raise where another process holds it.
    """
    with path.open("a") as file:
        hold(file, refusal)
        yield


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """Where to write a file anew; what was there stays until the new one is whole.

    Others may be at the same: the last wins. What a process that was killed has left is removed after an hour.
    """
    for left in path.parent.glob(f"{escape(path.name)}.*.part"):
        with suppress(OSError):  # gone meanwhile, or somebody else's
            if time.time() - left.stat().st_mtime > _ABANDONED_S:
                left.unlink()
    part = path.with_name(f"{path.name}.{uuid4().hex[:8]}.part")
    part.touch()
    mode = part.stat().st_mode
    try:
        yield part
        with suppress(OSError):  # some file systems have no modes
            part.chmod(mode)  # safetensors leaves files that nobody else can read
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
