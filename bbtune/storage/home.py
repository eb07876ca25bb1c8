"""The folder that a run works in: where it is to lie, or on this machine for a run that is kept at an address."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bbtune.backbone.fetch import cache_folder
from bbtune.errors import BbtuneError, JournalError
from bbtune.files import locked
from bbtune.journal import Sink
from bbtune.result import JOURNAL, RESULT, SPEC, TuneResult
from bbtune.storage.place import Place
from bbtune.storage.remote import Remote
from bbtune.storage.segments import Segments

_LOCK = ".lock"


class Home:
    """A run's folder.

    Attributes:
        place: of the run, as its user names it.
        path: folder that the run works in.
        sink: where every line of the journal goes beside its file.
    """

    def __init__(self, place: Place, path: Path, sink: Sink | None = None) -> None:
        self.place = place
        self.path = path
        self.sink = sink

    def keep(self, name: str) -> None:
        """Bring a file to the place of the run."""

    def keep_all(self) -> None:
        """Bring all that a finished run leaves to its place, the result last."""


class AwayHome(Home):
    """A run that is kept at an address: its journal line by line, its other files when they are written."""

    def __init__(self, remote: Remote, path: Path, segments: Segments) -> None:
        super().__init__(remote.url, path, segments)
        self._remote = remote
        self._segments = segments

    def keep(self, name: str) -> None:
        """Bring a file to the place of the run."""
        self._remote.put(self.path / name, name)

    def keep_all(self) -> None:
        """Bring all that a finished run leaves to its place, the result last; the folder here goes.

        Raises:
            JournalError: if another process was quicker.
        """
        if RESULT in self._remote.names():
            self._segments.remove()
            raise JournalError(
                f"{self.place}: another process has finished this run meanwhile; read it with bbtune show {self.place}"
            )
        left = {file.name for file in self.path.iterdir() if file.is_file()} - {_LOCK, RESULT}
        for name in [*sorted(left), RESULT]:
            self.keep(name)
        self._segments.remove()
        shutil.rmtree(self.path)


@contextmanager
def home_of(place: Place) -> Iterator[Home]:
    """The folder for work on a run, filled with what is there of it.

    Raises:
        JournalError: if the place cannot be reached, what it holds is damaged, or another process is at it.
    """
    if isinstance(place, Path):
        yield Home(place, place)
        return
    folder = cache_folder() / "scratch" / hashlib.sha256(place.encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    busy = f"{place}: another process is running this job; wait for it, or end it"
    with locked(folder / _LOCK, JournalError(busy)):
        for old in folder.iterdir():
            if old.is_file() and old.name != _LOCK:
                old.unlink()  # checkpoints of a training stay, they lie nowhere else
        remote = Remote(place)
        segments = _fill(remote, folder)
        if not (folder / RESULT).is_file():
            segments.mend()
        yield AwayHome(remote, folder, segments)


@contextmanager
def fetched(place: Place) -> Iterator[Path]:
    """A folder with all that there is of a run, for reading.

    Raises:
        JournalError: if the place cannot be reached, or what it holds is damaged.
    """
    if isinstance(place, Path):
        yield place
        return
    with tempfile.TemporaryDirectory(prefix="bbtune-") as name:
        _fill(Remote(place), Path(name))
        yield Path(name)


@contextmanager
def finished(place: Place) -> Iterator[tuple[Path, TuneResult]]:
    """A folder with all that a finished run left, for reading, and its result.

    Raises:
        BbtuneError: if the place holds none.
    """
    with fetched(place) as folder:
        if isinstance(place, str) and not (folder / RESULT).is_file():
            unfinished = f"; it has not finished: bbtune resume {place}" if (folder / JOURNAL).is_file() else ""
            raise BbtuneError(f"{place}: expected a finished run with {RESULT}, found none{unfinished}")
        yield folder, TuneResult.load(folder)


def load_result(place: Place) -> TuneResult:
    """The result of a finished run.

    Raises:
        BbtuneError: if the place holds none.
    """
    with finished(place) as (_, result):
        return result


def _fill(remote: Remote, folder: Path) -> Segments:
    """Fetch the files of a run; the journal of one that has not finished is put together from its segments."""
    names = remote.names()
    if names and SPEC not in names:
        raise JournalError(f"{remote.url} holds files that are no run; name another place, or one that is empty")
    finished = RESULT in names
    for name in sorted(names) if finished else names & {SPEC}:
        if "/" not in name:
            remote.get(name, folder / name)
    segments = Segments(remote, set() if finished else names)
    if segments.text:
        (folder / JOURNAL).write_bytes(segments.text)
    return segments
