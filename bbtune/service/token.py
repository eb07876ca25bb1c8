"""The token that Ray's clients must show: a file that only its owner can read."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from bbtune.errors import BbtuneError

_BYTES = 32
_MODE = 0o600


def make_token(path: Path) -> None:
    """Write a new token, unless there is one; at no moment can others read it."""
    try:
        file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, _MODE)
    except FileExistsError:
        path.chmod(_MODE)
        return
    with os.fdopen(file, "w") as writing:
        os.fchmod(file, _MODE)  # whatever the umask
        writing.write(secrets.token_hex(_BYTES))


def read_token(path: Path) -> str:
    """The token of a file.

    Raises:
        BbtuneError: if there is none, or it is empty.
    """
    try:
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise BbtuneError(f"{path}: the token cannot be read ({error}); start the service anew: bbtune up") from error
    if not token:
        raise BbtuneError(f"{path}: expected a token, got an empty file; remove it, then: bbtune down, bbtune up")
    return token


def loose_mode(path: Path) -> str | None:
    """The mode of a file that others can read or write, ``0644``; None if only its owner can."""
    mode = stat.S_IMODE(path.stat().st_mode)
    return f"{mode:04o}" if mode & 0o077 else None
