"""What a replica answers: prompts by name, kept in step with the book, and texts put to the model in batches."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from bbtune.errors import BbtuneError, did_you_mean
from bbtune.serving.batcher import Batcher
from bbtune.serving.book import Book, Page, Version
from bbtune.serving.engine import Engine, Served, Shares
from bbtune.serving.offered import Offered, offered, offers
from bbtune.serving.runs import check_name, shortened
from bbtune.serving.settings import Limits
from bbtune.task.task import Example

Found = Shares | BbtuneError


class UnknownPrompt(BbtuneError):
    """No prompt of that name is served."""


class TextError(BbtuneError):
    """A text of a request cannot be classified under its prompt."""


class Closed(BbtuneError):
    """The server is about to stop."""


class Desk:
    """Prompts of a book on one model.

    Args:
        book: with a prompt in it.
        limits: of batches and of what waits for them.
        threads: of a forward.
        batched: told the size of every batch.
    """

    def __init__(self, book: Book, limits: Limits, threads: int, batched: Callable[[int], None]) -> None:
        self._book = book
        self.engine = Engine(_offered(book, next(iter(book.page().entries.values()))), threads)
        self._prompts: dict[str, Served] = {}
        self._page = Page()
        self._version: Version | None = None
        self._lock = asyncio.Lock()
        self._batcher: Batcher[tuple[Served, Example], Found] = Batcher(
            self.engine.shares, limits.batch_texts, limits.waiting_texts, batched
        )
        self._load()

    async def prompts(self) -> dict[str, Served]:
        """All prompts by name, as they are on record at this moment.

        Raises:
            Closed: if the server is about to stop.
        """
        if self._book.version() != self._version:
            async with self._lock:
                if self._book.version() != self._version:
                    await self._batcher.alone(self._load)
        if self._page.closed:
            raise Closed("the server is stopping; ask again when it is back")
        return self._prompts

    async def prompt(self, name: str | None) -> tuple[str, Served]:
        """A prompt and its name; the only one where none is named.

        Raises:
            UnknownPrompt: if it is not served.
            TextError: if none is named and several are served.
        """
        prompts = await self.prompts()
        if name is None:
            if len(prompts) != 1:
                raise TextError(
                    f"prompt: expected a name, {len(prompts)} prompts are served; GET /v1/prompts lists them"
                )
            name = next(iter(prompts))
        if name not in prompts:
            raise UnknownPrompt(_unknown(name, prompts))
        return name, prompts[name]

    async def shares(self, served: Served, examples: Sequence[Example]) -> list[Shares]:
        """Probabilities (C,) of a prompt's labels for each text.

        Raises:
            QueueFull: if too much waits already.
            TextError: if a text leaves no room for the prompt.
        """
        found = await self._batcher.ask([(served, example) for example in examples])
        for i, one in enumerate(found):
            if isinstance(one, BbtuneError):
                raise TextError(f"texts[{i}]: {one}")
        return [one for one in found if not isinstance(one, BbtuneError)]

    async def put(self, name: str, run: str) -> tuple[Served, bool]:
        """Add a prompt, or replace it; returns it, and whether it is new.

        Raises:
            BbtuneError: if the run cannot be served here.
        """
        check_name(name)
        new = name not in await self.prompts()
        entry = await asyncio.to_thread(self._copy, run)
        try:
            served = await self._batcher.alone(lambda: self.engine.serve(_offered(self._book, entry)))
        except BaseException:
            self._book.drop(entry)
            raise
        self._book.enter(name, entry)
        await self.prompts()
        return served, new

    async def remove(self, name: str) -> None:
        """Take a prompt out; texts under it that wait are answered.

        Raises:
            UnknownPrompt: if it is not served.
        """
        if not self._book.remove(name):
            raise UnknownPrompt(_unknown(name, await self.prompts()))

    def _copy(self, run: str) -> str:
        """Copy a run of this model into the book; returns the entry, in no list before it has been on the model."""
        try:
            with offers(run) as (folder, offer):
                self.engine.check(offer, run)
                return self._book.copy(folder)
        except OSError as error:
            raise BbtuneError(f"{shortened(run)}: cannot be read ({error.strerror}); name another run") from error

    def _load(self) -> None:
        """Read what has changed in the book; begun anew where another replica changes it meanwhile."""
        while (version := self._book.version()) != self._version:
            page = self._book.page()
            same = {name for name, entry in page.entries.items() if self._page.entries.get(name) == entry}
            try:
                fresh = {
                    name: self.engine.serve(_offered(self._book, entry))
                    for name, entry in page.entries.items()
                    if name not in same
                }
            except BbtuneError:
                if self._book.version() != version:
                    continue
                raise
            self._prompts = {name: self._prompts[name] if name in same else fresh[name] for name in page.entries}
            self._page, self._version = page, version


def _offered(book: Book, entry: str) -> Offered:
    return offered(book.folder(entry), entry)


def _unknown(name: str, prompts: dict[str, Served]) -> str:
    some = ", ".join(list(prompts)[:10]) + (" ..." if len(prompts) > 10 else "")
    got = shortened(name)
    return f"expected a prompt that is served ({some or 'none is'}), got {got!r}{did_you_mean(got, list(prompts))}"
