"""Which prompts are served: a folder that all replicas read, so that they agree, and begin anew with the same."""

from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from uuid import uuid4

from bbtune.files import replaced

Version = tuple[int, int]  # inode and time of the list: it is replaced whole

_LIST, _LOCK = "prompts.json", "lock"


@dataclass
class Page:
    """What the list says.

    Attributes:
        entries: folder names by prompt; a prompt that is replaced gets another folder.
        closed: whether the server is about to stop, and takes no more requests.
    """

    entries: dict[str, str] = field(default_factory=dict)
    closed: bool = False


class Book:
    """Prompts by name, with a copy of each run's result: what becomes of the run itself does not matter.

    Args:
        folder: private, made where it is missing; of one machine.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, exist_ok=True)
        self._folder = folder

    def version(self) -> Version:
        """Another value after every change; cheap enough to look at for each request."""
        found = (self._folder / _LIST).stat()
        return found.st_ino, found.st_mtime_ns

    def page(self) -> Page:
        """All that is on record."""
        return Page(**json.loads((self._folder / _LIST).read_text(encoding="utf-8")))

    def folder(self, entry: str) -> Path:
        """Of one of :attr:`Page.entries`."""
        return self._folder / entry

    def put(self, name: str, run: Path) -> None:
        """Add a prompt, or replace it.

        Args:
            run: folder of a finished run, or of an exported prompt.
        """
        self.enter(name, self.copy(run))

    def copy(self, run: Path) -> str:
        """Copy what is served of a run; returns the entry, which is in no list yet.

        Args:
            run: folder of a finished run, or of an exported prompt.
        """
        from bbtune.exporting.card import CARD
        from bbtune.exporting.prompt_folder import PROMPT, is_prompt_folder
        from bbtune.result import LEARNED, PREDICTED, RESULT, SPEC

        made = uuid4().hex
        (self._folder / made).mkdir(mode=0o700)
        try:
            for file in (SPEC, CARD, PROMPT) if is_prompt_folder(run) else (SPEC, LEARNED, PREDICTED, RESULT):
                shutil.copyfile(run / file, self._folder / made / file)
        except OSError:
            self.drop(made)
            raise
        return made

    def enter(self, name: str, entry: str) -> None:
        """Add the prompt of an entry, or let it replace another."""
        with self._changed() as page:
            page.entries[name] = entry

    def drop(self, entry: str) -> None:
        """Remove an entry that is in no list."""
        shutil.rmtree(self.folder(entry), ignore_errors=True)

    def remove(self, name: str) -> bool:
        """Take a prompt out; whether it was there."""
        with self._changed() as page:
            return page.entries.pop(name, None) is not None

    def close(self) -> None:
        """Let replicas take no more requests."""
        with self._changed() as page:
            page.closed = True

    @contextmanager
    def _changed(self) -> Iterator[Page]:
        """The list, to be changed by one at a time."""
        with (self._folder / _LOCK).open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            page = self.page() if (self._folder / _LIST).exists() else Page()
            before = set(page.entries.values())
            yield page
            with replaced(self._folder / _LIST) as part:
                part.write_text(json.dumps(asdict(page), ensure_ascii=False), encoding="utf-8")
            for left in before - set(page.entries.values()):
                self.drop(left)
