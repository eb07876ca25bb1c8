"""Names of places: a path of this machine, or an address that fsspec knows, such as ``s3://bucket/runs``."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from bbtune.combinations import needs_path
from bbtune.errors import BbtuneError, Fault, JobError, hide_credentials
from bbtune.source_names import absolute_path
from bbtune.spec import BaseJob

Place = Path | str  # a str is an address
STORAGE = "BBTUNE_STORAGE"  # environment: for jobs that name no storage


def place_named(text: str) -> Place:
    """A place as users write it.

    Raises:
        BbtuneError: for an address with credentials in it.
    """
    if "://" not in text:
        return Path(text)
    if hide_credentials(text) != text:
        expected = "expected no user, password or key in it, addresses are shown and recorded"
        raise BbtuneError(f"{hide_credentials(text)}: {expected}; set them in the environment")
    return text.rstrip("/")


def storage_of(spec: BaseJob) -> Place:
    """Where the runs of a job go: what it says, else the environment, else ``runs`` in the working folder.

    Raises:
        JobError: for a job that asks an API with an address as its storage.
        BbtuneError: if the environment names a place that cannot be one.
    """
    told = spec.storage or os.environ.get(STORAGE)
    if not told:
        return Path("runs")
    try:
        place = place_named(told if "://" in told else absolute_path(told))
    except ValueError as error:
        raise BbtuneError(f"{STORAGE}: {error}") from error
    if isinstance(place, str) and spec.apis:
        raise JobError([Fault("storage" if spec.storage else STORAGE, needs_path(place))])
    return place


def study_folder(specs: Iterable[BaseJob], name: str) -> Path:
    """Where a study of jobs lies unless told otherwise.

    Raises:
        JobError: if they name several storages, or an address: a study has files that many processes write.
    """
    places = {str(place): place for place in map(storage_of, specs)}
    if len(places) > 1:
        raise JobError([Fault("storage", f"expected one for all jobs of a study, got {', '.join(sorted(places))}")])
    (place,) = places.values()
    if isinstance(place, str):
        expected = f"expected a path for a study, whose files many processes write; got {place}"
        raise JobError(
            [Fault("storage", f"{expected}; name a folder that all machines see, or run its jobs one by one")]
        )
    return place / name


def below(place: Place, name: str) -> Place:
    """A place in another one."""
    return place / name if isinstance(place, Path) else f"{place}/{name}"


def run_place(spec: BaseJob) -> Place:
    """Where a job runs unless told otherwise."""
    return below(storage_of(spec), f"{spec.name}-{spec.spec_hash[:8]}")
