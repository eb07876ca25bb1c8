"""The working folder of a submitted job: the job as YAML, and its local data beside it.

Only the last part of a local path counts in the hash of a job, so that it is the same job there as here.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from bbtune.errors import BbtuneError
from bbtune.source_names import local_path
from bbtune.spec import BaseJob
from bbtune.submission.work import Work

_MOST = 100 * 2**20 - 2**16  # bytes that a job server takes, less what the archive itself needs
_OF_A_TASK = ("task.json", "*.jsonl", "seed*/*.jsonl")  # what a task folder is read from


def fill_folder(work: Work, folder: Path) -> None:
    """Write the job or suite file and copy the data that it names.

    Raises:
        BbtuneError: if they are more than a job server takes.
    """
    data = _Data(folder)
    if work.suite is None:
        (spec,) = work.jobs.values()
        (folder / work.file).write_text(data.moved(spec).to_yaml(), encoding="utf-8")
    else:
        (folder / "jobs").mkdir()
        for name, spec in work.jobs.items():
            (folder / "jobs" / f"{name}.yaml").write_text(data.moved(spec).to_yaml(), encoding="utf-8")
        said = {**work.suite, "jobs": [f"jobs/{name}.yaml" for name in work.jobs]}
        (folder / work.file).write_text(yaml.safe_dump(said, sort_keys=False), encoding="utf-8")
    sizes = {path: path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    if sum(sizes.values()) > _MOST:
        largest = max(sizes, key=lambda path: sizes[path])
        raise BbtuneError(
            f"expected at most {_MOST >> 20} MiB of job and data, which travel with it, got "
            f"{sum(sizes.values()) / 2**20:.0f} MiB (most of it {largest.relative_to(folder)}); give fewer rows, or a "
            "data set of the hub (hf:NAME)"
        )


class _Data:
    """Local data, each copied once, under ``data/`` and its own name."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._copies: dict[str, str] = {}

    def moved(self, spec: BaseJob) -> BaseJob:
        """The job with its data where they are copied to."""
        task = spec.task
        said: dict[str, Any] = {"source": self._copied(task.source), "test": self._copied(task.test)}
        return spec.model_copy(update={"task": task.model_copy(update=said)})

    def _copied(self, source: str | None) -> str | None:
        path = local_path(source)
        if source is None or path is None:
            return source
        if source not in self._copies:
            name = Path(path).name
            taken = {place.partition(":")[2] for place in self._copies.values()}
            place = next(place for place in _places(name) if place not in taken)
            _copy(Path(path), self._folder / place)
            self._copies[source] = f"{source.partition(':')[0]}:{place}"
        return self._copies[source]


def _places(name: str) -> Iterator[str]:
    """Where data of a name may lie: the name itself is part of the job's hash."""
    yield f"data/{name}"
    number = 2
    while True:
        yield f"data/{number}/{name}"
        number += 1


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_file():
        shutil.copyfile(source, target)
        return
    for pattern in _OF_A_TASK:
        for file in source.glob(pattern):
            copy = target / file.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
