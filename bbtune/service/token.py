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


def read_token(path: Path, source: str, todo: str) -> str:
    """The token of a file.

    Args:
        source: how the file was named, for messages.
        todo: what to do where it holds none.

    Raises:
        BbtuneError: if it cannot be read, or holds no token.
    """
    try:
        told = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BbtuneError(f"{source}: the token cannot be read ({error}); {todo}") from error
    return sound_token(told, source, todo)


def service_token(path: Path) -> str:
    """The token of a service that was started here.

    Raises:
        BbtuneError: if it cannot be read, or holds no token.
    """
    return read_token(path, str(path), "bbtune down, then bbtune up make a new one")


def sound_token(told: str, source: str, todo: str) -> str:
    """A token as it can be sent.

    Raises:
        BbtuneError: if it cannot be.
    """
    token = told.strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise BbtuneError(f"{source}: expected a token of visible ASCII characters; {todo}")
    return token


def loose_mode(path: Path) -> str | None:
    """The mode of a file that others can read or write, ``0644``; None if only its owner can."""
    mode = stat.S_IMODE(path.stat().st_mode)
    return f"{mode:04o}" if mode & 0o077 else None
