"""All that is looked at, in order; what is quick first."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from bbtune.doctor.finding import Finding
from bbtune.doctor.machine import machine_findings
from bbtune.doctor.packages import version_findings
from bbtune.doctor.servers import job_server_findings, mlflow_finding, service_finding
from bbtune.errors import BbtuneError
from bbtune.service.state import read_service


def findings(folder: Path, address: str | None, job: Path | None) -> Iterator[Finding]:
    """Look at versions, machine, service, servers, and a job if one is given.

    Args:
        folder: state folder of the service.
        address: of another job server.
        job: a job file.
    """
    yield from version_findings()
    try:
        service = read_service(folder)
    except BbtuneError as error:
        seen, _, todo = str(error).partition("; ")
        yield Finding("service", seen, todo)
        return
    yield from machine_findings(folder, service is not None)
    yield service_finding(service, folder)
    yield from job_server_findings(address, folder)
    yield mlflow_finding(service)
    if job is not None:
        from bbtune.doctor.job import job_findings

        yield from job_findings(job)
