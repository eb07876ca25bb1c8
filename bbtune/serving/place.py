"""The files of servers: a key that lasts, and for each server a folder that begins anew."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from bbtune.errors import BbtuneError
from bbtune.files import locked
from bbtune.service.token import make_token, read_token, sound_token
from bbtune.serving.settings import BOOK, KEY, METERS, RAY_TOKEN

KEY_VARIABLE = "BBTUNE_SERVE_KEY"
_LOCK = "lock"


def check_installed() -> None:
    """Say what is missing before anything is read.

    Raises:
        BbtuneError: if the extra is not installed.
    """
    if missing := [name for name in ("fastapi", "fastapi_offline", "uvicorn") if find_spec(name) is None]:
        raise BbtuneError(f"expected {', '.join(missing)} to be installed; pip install 'bbtune[serve]'")


def state_folder() -> Path:
    """Where the files of servers lie unless told otherwise."""
    return Path.home() / ".bbtune" / "serve"


def key_file(state: Path) -> Path:
    """The file with the key, made where there is none; only its owner can read it.

    Raises:
        BbtuneError: if it holds no key.
    """
    path = state / KEY
    make_token(path)
    read_token(path, str(path), "remove the file, and a new key is made")
    return path


def told_key() -> str | None:
    """The key that the environment names, taken out of it: what is started later must not inherit it.

    Raises:
        BbtuneError: if it is none that can be sent.
    """
    told = os.environ.pop(KEY_VARIABLE, None)
    return None if told is None else sound_token(told, KEY_VARIABLE, "set another, or leave it out and a key is made")


@contextmanager
def server_folder(state: Path, port: int) -> Iterator[Path]:
    """A private folder for the server of a port, without what an earlier one left but its log.

    Raises:
        BbtuneError: if another server has it.
    """
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = state / str(port)
    folder.mkdir(mode=0o700, exist_ok=True)
    folder.chmod(0o700)
    busy = f"{folder}: another bbtune serve has this port; take another one: --port"
    with locked(folder / _LOCK, BbtuneError(busy)):
        for left in (BOOK, METERS):
            shutil.rmtree(folder / left, ignore_errors=True)
        for left in (KEY, RAY_TOKEN):
            (folder / left).unlink(missing_ok=True)
        yield folder
