"""The workers that train together, seen from one of them; where there is one only, it is the reference."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from torch import nn

from bbtune.baselines.learner import Learner
from bbtune.loop import Generation

Save = Callable[[Path], None]  # writes a checkpoint into a folder


class Crew(ABC):
    """The workers that train together, seen from one of them."""

    rank: int
    size: int

    @abstractmethod
    def wrap(self, learner: Learner) -> nn.Module:
        """The learner, its gradients averaged over the crew."""

    @abstractmethod
    def gathered(self, value: Any) -> list[Any]:
        """The values of all workers, in the order of their ranks."""

    @abstractmethod
    def checkpoint(self) -> AbstractContextManager[Path | None]:
        """Folder of the last checkpoint of this training, there inside the context; None at its beginning."""

    @abstractmethod
    def report(self, step: Generation, save: Save | None) -> None:
        """Tell of a step, and keep a checkpoint of it where ``save`` is given."""


class Alone(Crew):
    """One worker, in this process: the reference.

    Args:
        folder: for checkpoints.
    """

    rank, size = 0, 1

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def wrap(self, learner: Learner) -> nn.Module:
        """The learner itself."""
        return learner

    def gathered(self, value: Any) -> list[Any]:
        """One value."""
        return [value]

    def checkpoint(self) -> AbstractContextManager[Path | None]:
        """The newest that is whole."""
        return nullcontext(self._whole()[-1] if self._whole() else None)

    def report(self, step: Generation, save: Save | None) -> None:
        """Keep the newest checkpoint."""
        if save is None:
            return
        before = self._whole()
        whole = self._folder / f"checkpoint-{_number(before[-1]) + 1 if before else 0}"
        part = whole.with_suffix(".part")
        _removed(part)
        part.mkdir(parents=True)
        save(part)
        part.rename(whole)
        for older in before:
            _removed(older)

    def _whole(self) -> list[Path]:
        """All that are there, the newest last: what is being written has another name."""
        return sorted(self._folder.glob("checkpoint-*[0-9]"), key=_number)


def _number(folder: Path) -> int:
    return int(folder.name.rpartition("-")[2])


def _removed(folder: Path) -> None:
    """Take away a checkpoint of ours, if it is there."""
    for path in folder.glob("*"):
        path.unlink()
    if folder.is_dir():
        folder.rmdir()
