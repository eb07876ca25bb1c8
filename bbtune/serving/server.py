"""A server from its start to its end."""

from __future__ import annotations

import ipaddress
import os
import shlex
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from bbtune.errors import BbtuneError, ResourcesError
from bbtune.service.ports import by_whom, is_free
from bbtune.serving.book import Book
from bbtune.serving.place import KEY_VARIABLE, key_file, server_folder, told_key
from bbtune.serving.ray_serve import serving
from bbtune.serving.settings import BOOK, KEY, LOG, Front, Settings, Wish

Say = Callable[[str], None]


@dataclass(frozen=True)
class Up:
    """A server that answers.

    Attributes:
        address: of HTTP.
        prompts: names.
        key: file of the key, or the variable that it was taken from; None where none is asked for.
        log: of its replicas.
    """

    address: str
    prompts: tuple[str, ...]
    key: Path | str | None
    log: Path

    @property
    def key_in_shell(self) -> str:
        """What a shell puts in the place of the key."""
        return f"$(cat {shlex.quote(str(self.key))})" if isinstance(self.key, Path) else f"${self.key}"


@contextmanager
def up(wish: Wish, say: Say) -> Iterator[Up]:
    """A server that answers until the context ends; then what is under way is answered, and nothing is left.

    Args:
        say: told what is waited for.

    Raises:
        BbtuneError: if it cannot be, in words, where possible before anything is started.
    """
    key = told_key()  # before anything is started that would inherit it
    front = wish.front
    _check(wish)
    with server_folder(wish.state, front.port) as folder:
        if not is_free(front.port):
            raise ResourcesError(f"--port: {front.port} is taken{by_whom(front.port)}; end that, or take another port")
        say(f"reading {len(wish.runs)} {'run' if len(wish.runs) == 1 else 'runs'}")
        names, book = _filled(folder / BOOK, wish.runs), Book(folder / BOOK)
        where = _key_at(folder, wish.state, key) if wish.with_key else None
        say("starting Ray Serve and reading the model")
        with serving(Settings(folder, wish.with_key, wish.limits, front)):
            try:
                yield Up(_address(front), names, where, folder / LOG)
            finally:
                book.close()


def _filled(folder: Path, runs: Sequence[str]) -> tuple[str, ...]:
    """Write the runs into the book; in a process of its own, for what reads them holds half a gibibyte."""
    with ProcessPoolExecutor(1, get_context("spawn"), signal.signal, (signal.SIGINT, signal.SIG_IGN)) as apart:
        return apart.submit(_fill, folder, runs).result()


def _fill(folder: Path, runs: Sequence[str]) -> tuple[str, ...]:
    from bbtune.serving.runs import fill

    return fill(Book(folder), runs)


def _check(wish: Wish) -> None:
    """Faults that need no run to be read."""
    limits, host = wish.limits, wish.front.host
    if not _is_loopback(host) and not wish.with_key:
        why = "without a key anybody who reaches the server can use it and change its prompts"
        raise BbtuneError(f"--no-key: expected a host of the loopback, such as 127.0.0.1, got {host}; {why}")
    if limits.waiting_texts < limits.texts:
        expected = f"expected room for one request of --max-texts {limits.texts}"
        raise BbtuneError(f"--queue: {expected}, got {limits.waiting_texts}")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError as error:
        raise BbtuneError(f"--host: expected an IP address, such as 127.0.0.1 or 0.0.0.0, got {host!r}") from error


def _address(front: Front) -> str:
    """Of HTTP; from this machine where it listens on all of its addresses."""
    ip = ipaddress.ip_address(front.host)
    host = ("::1" if ip.version == 6 else "127.0.0.1") if ip.is_unspecified else front.host
    return f"http://{f'[{host}]' if ':' in host else host}:{front.port}"


def _key_at(folder: Path, state: Path, told: str | None) -> Path | str:
    """Put the key where replicas read it; returns the file, or the variable, that it comes from."""
    kept = key_file(state) if told is None else None
    key = told or (state / KEY).read_text(encoding="utf-8").strip()
    with open(os.open(folder / KEY, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(key)
    return kept or KEY_VARIABLE
