"""A folder at an address, through fsspec; what goes wrong there is told in words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bbtune.errors import JournalError, hide_credentials

# Packages that read addresses and do not come with fsspec.
_DRIVERS = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs"}
_DRIVERS |= dict.fromkeys(("az", "abfs", "abfss", "adl"), "adlfs")
_FLAT = {*_DRIVERS, "memory"}  # have no folders that must be made first
_FILES = {"file", "local"}


@contextmanager
def _told(url: str) -> Iterator[None]:
    """Give a JournalError for whatever a driver raises, but for a name that is taken."""
    try:
        yield
    except (FileExistsError, JournalError):
        raise
    except Exception as error:  # drivers raise whatever their clients raise
        lines = str(error).strip().splitlines()
        reason = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
        raise JournalError(
            f"{url}: cannot be read or written ({hide_credentials(reason)}); what was written is kept there: see "
            "that the address is right, that its server is up and that the environment has the credentials; go on with "
            "bbtune resume, or submit the job again"
        ) from error


class Remote:
    """Objects below an address, by their names relative to it.

    Args:
        url: without credentials; they come from the environment, as the driver reads it.

    Raises:
        JournalError: if no driver for it is installed; as every method, if it cannot be reached.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._protocol = url.partition("://")[0]
        self._files, self._root = self._opened()

    def names(self) -> set[str]:
        """Of all objects."""
        with _told(self.url):
            self._files.invalidate_cache()
            return {str(path)[len(self._root) :].lstrip("/") for path in self._files.find(self._root)}

    def read(self, names: Iterable[str]) -> dict[str, bytes]:
        """The content of objects."""
        with _told(self.url):
            paths = {self._path(name): name for name in names}
            found = self._files.cat(list(paths)) if paths else {}
            return {paths[path]: content for path, content in found.items()}

    def create(self, name: str, content: bytes) -> None:
        """Make an object, whole or not at all where the store can.

        Raises:
            FileExistsError: if it is there already.
        """
        with _told(self.url):
            if self._protocol in _FILES:  # whose pipe_file looks first and writes then
                with self._files.open(self._path(name), "xb") as file:
                    file.write(content)
            else:
                self._files.pipe_file(self._path(name), content, mode="create")

    def put(self, path: Path, name: str) -> None:
        """Copy a file there, over what there is."""
        with _told(self.url):
            self._files.put_file(str(path), self._path(name))

    def get(self, name: str, path: Path) -> None:
        """Copy an object to a file."""
        with _told(self.url):
            self._files.get_file(self._path(name), str(path))

    def remove(self, names: Sequence[str]) -> None:
        """Remove objects."""
        with _told(self.url):
            if names:
                self._files.rm([self._path(name) for name in names])

    def make_folder(self, name: str) -> None:
        """Make a folder where the store has such."""
        with _told(self.url):
            if self._protocol not in _FLAT:
                self._files.makedirs(self._path(name), exist_ok=True)

    def _opened(self) -> tuple[Any, str]:
        with _told(self.url):
            import fsspec

            try:
                files, root = fsspec.core.url_to_fs(self.url)
            except ImportError as error:
                driver = _DRIVERS.get(self._protocol)
                mend = f"pip install {driver}" if driver else str(error)
                raise JournalError(
                    f"{self.url}: expected a driver for {self._protocol}://, found none; {mend}"
                ) from error
            except ValueError as error:
                raise JournalError(f"{self.url}: expected an address that fsspec knows ({error})") from error
            return files, str(root).rstrip("/")

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"
