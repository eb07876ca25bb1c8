"""A journal at an address: one object for each line, a hundred of them folded into one.

Object stores cannot append. A line is an object of its own, made only if its number is free: of two writers one loses.
Blocks begin at multiples of their length, so that whoever folds makes the same ones.
"""

from __future__ import annotations

import re
from contextlib import suppress

from bbtune.errors import JournalError
from bbtune.journal import is_whole
from bbtune.storage.remote import Remote

FOLDER = "journal"
_BLOCK = 100  # lines
_NAME = re.compile(rf"{FOLDER}/(\d{{8}})(?:-(\d{{8}}))?\.jsonl")
Span = tuple[int, int]  # lines from 0 on, the second beyond the last


class Segments:
    """The lines of one journal.

    Args:
        remote: folder of the run.
        names: of all that is there.

    Attributes:
        place: of the run, for messages.
        text: the whole lines that are there; of a last one that a crash tore nothing.

    Raises:
        JournalError: if a segment is missing, or one before the last is damaged.
    """

    def __init__(self, remote: Remote, names: set[str]) -> None:
        self._remote = remote
        self.place = remote.url
        there = {span: name for name in names if (span := _span(name)) is not None}
        content = remote.read(there.values())
        sound = {span: content[name] for span, name in there.items() if _is_sound(content[name], span)}
        kept, self._count = _in_order(sound)
        lost = sorted(span for span in there if span[0] >= self._count)
        if lost and lost != [(self._count, self._count + 1)]:
            raise JournalError(self._damage(lost[0], there))
        self._idle = [there[span] for span in there if span not in kept]
        self._unfolded = [sound[span] for span in kept if span[1] - span[0] == 1]
        self.text = b"".join(sound[span] for span in kept)

    def mend(self) -> None:
        """Remove what a crash has left, and fold what it kept from being folded."""
        self._remote.make_folder(FOLDER)
        self._remote.remove(self._idle)
        self._idle = []
        self._fold()

    def append(self, line: bytes) -> None:
        """Write one line through to the store.

        Raises:
            JournalError: if another process writes this journal, too, or the store cannot be reached.
        """
        self._create((self._count, self._count + 1), line)
        self._count += 1
        self._unfolded.append(line)
        self._fold()

    def remove(self) -> None:
        """Remove all segments, once the whole journal lies elsewhere."""
        self._remote.remove([name for name in self._remote.names() if _span(name) is not None])

    def _fold(self) -> None:
        while len(self._unfolded) >= _BLOCK:
            first = self._count - len(self._unfolded)
            self._create((first, first + _BLOCK), b"".join(self._unfolded[:_BLOCK]))
            self._unfolded = self._unfolded[_BLOCK:]
            with suppress(JournalError):  # the next session does it
                self._remote.remove([_name((line, line + 1)) for line in range(first, first + _BLOCK)])

    def _create(self, span: Span, content: bytes) -> None:
        name = _name(span)
        try:
            self._remote.create(name, content)
        except FileExistsError:
            if self._remote.read([name])[name] == content:  # ours: the client tried again after a lost answer
                return
            raise JournalError(
                f"{self.place}: another process goes on with this run and has written line {span[0] + 1} of its "
                "journal; this one ends, nothing is lost"
            ) from None

    def _damage(self, lost: Span, there: dict[Span, str]) -> str:
        if lost[0] > self._count:
            what = f"{self.place}: line {self._count + 1} of the journal is missing, there is line {lost[0] + 1}"
        else:
            what = f"{self.place}/{there[lost]}: damaged segment"
        return f"{what}; restore it from a copy, or start a new run"


def _in_order(sound: dict[Span, bytes]) -> tuple[list[Span], int]:
    """Segments that follow each other from the first line on, blocks before single lines, and the lines in them."""
    kept: list[Span] = []
    line = 0
    while span := next((s for s in ((line, line + _BLOCK), (line, line + 1)) if s in sound), None):
        kept.append(span)
        line = span[1]
    return kept, line


def _is_sound(content: bytes, span: Span) -> bool:
    lines = content.splitlines(keepends=True)
    return len(lines) == span[1] - span[0] and all(map(is_whole, lines))


def _name(span: Span) -> str:
    first, end = span
    last = "" if end == first + 1 else f"-{end - 1:08d}"
    return f"{FOLDER}/{first:08d}{last}.jsonl"


def _span(name: str) -> Span | None:
    found = _NAME.fullmatch(name)
    return (int(found[1]), int(found[2] or found[1]) + 1) if found else None
