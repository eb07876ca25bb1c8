"""Put work into the queue of a cluster, unless it is there already."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

import bbtune
from bbtune.errors import BbtuneError
from bbtune.submission.environment import runtime_env
from bbtune.submission.folder import fill_folder
from bbtune.submission.listing import FOLDER
from bbtune.submission.ray_jobs import JobState, RayJobs
from bbtune.submission.work import Work

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")  # Ray makes a part of a path and of an address of it
_WORK = "bbtune.work"  # in the metadata of a job


def submit(jobs: RayJobs, work: Work, environment: Path | None, asked_id: str | None) -> str:
    """Submit work; returns the id of the job.

    Args:
        environment: YAML file with a runtime environment of Ray.
        asked_id: of the job; by name and hash of the work without it.

    Raises:
        BbtuneError: if the same work is queued or running, or a job has the id already.
    """
    metadata = {_WORK: work.id, FOLDER: work.folder, "bbtune.hash": work.digest, "bbtune.version": bbtune.__version__}
    with tempfile.TemporaryDirectory(prefix="bbtune-") as name:
        folder = Path(name)
        wanted = runtime_env(environment, folder)
        id = free_id(work.id, jobs.all(), asked_id)
        fill_folder(work, folder)
        jobs.submit(id, work.entrypoint, wanted, metadata, work.room)
    return id


def free_id(work: str, known: Sequence[JobState], asked: str | None) -> str:
    """An id that no job has: that of the work, with a number from the second attempt on.

    Raises:
        BbtuneError: if the same work is queued or running, or the id that was asked for is taken, or is none.
    """
    for job in known:
        if job.metadata.get(_WORK) == work and not job.is_over:
            state = "waits in the queue" if job.status == "PENDING" else "is running"
            raise BbtuneError(
                f"the same job {state} as {job.id}; see it with bbtune logs {job.id} --follow, or end it: "
                f"bbtune stop {job.id}"
            )
    taken = {job.id for job in known}
    if asked is not None:
        if not _ID.fullmatch(asked):
            raise BbtuneError(f"--id: expected letters, digits, dots, dashes and underscores, got {asked!r}")
        if asked in taken:
            raise BbtuneError(f"--id: expected one that no job has had, {asked} is taken; see bbtune jobs")
        return asked
    if work not in taken:
        return work
    number = 2
    while f"{work}-{number}" in taken:
        number += 1
    return f"{work}-{number}"
