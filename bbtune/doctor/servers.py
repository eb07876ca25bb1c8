"""The job server and its token, and MLflow."""

from __future__ import annotations

import os
from pathlib import Path

from bbtune.doctor.finding import Finding
from bbtune.doctor.packages import cluster_findings
from bbtune.errors import BbtuneError, hide_credentials
from bbtune.service.ask import ask
from bbtune.service.processes import find, part_of
from bbtune.service.state import Service, read_service
from bbtune.service.token import loose_mode
from bbtune.submission.server import ADDRESS, find_server


def service_finding(service: Service | None, folder: Path) -> Finding:
    """Whether all processes of the service on record run."""
    if service is None:
        return Finding("service", f"none is up in {folder}; `bbtune up` starts one")
    dead = sorted({part_of(one) for one in service.processes if one.name == part_of(one) and not find(one)})
    if dead:
        return Finding("service", f"{' and '.join(dead)} died", f"bbtune up (logs: {service.folder / 'logs'})")
    return Finding("service", f"up, {len(service.processes)} processes on record in {folder}")


def job_server_findings(address: str | None, folder: Path) -> list[Finding]:
    """Whether the job server that `bbtune submit` would take answers, to its token, with the versions that are here."""
    if address is None and not os.environ.get(ADDRESS) and read_service(folder) is None:
        return [Finding("job server", f"none: no service is up, no address is given, {ADDRESS} is not set")]
    try:
        server = find_server(address, folder)
    except BbtuneError as error:
        seen, _, todo = str(error).partition("; ")
        return [Finding("job server", seen, todo or "look at its logs")]
    found = [Finding("job server", f"{server.address} answers"), token_finding(server.source)]
    if ask(f"{server.address}/api/version").ok:
        seen = f"{server.address} answers without a token, too: whoever reaches it can start jobs"
        found[-1] = Finding("token", seen, "start that cluster with RAY_AUTH_MODE=token")
    return found + cluster_findings(ask(f"{server.address}/api/v0/cluster_metadata", server.token).json())


def token_finding(source: str) -> Finding:
    """Whether only its owner can read the token that was found; ``source`` as `bbtune submit` names it."""
    path = Path(source.partition("=")[2] or source)
    mode = loose_mode(path) if path.is_file() else None
    if mode is not None:
        return Finding("token", f"{path} has mode {mode}: others can use it", f"chmod 600 {path}")
    return Finding("token", f"that of {source} is accepted")


def mlflow_finding(service: Service | None) -> Finding:
    """Whether the MLflow that runs would be recorded in answers."""
    uri = os.environ.get("MLFLOW_TRACKING_URI") or (service.mlflow if service else "")
    shown = hide_credentials(uri)
    if not uri:
        return Finding("mlflow at", "a database in the working folder of each run (MLFLOW_TRACKING_URI is not set)")
    if not uri.startswith(("http://", "https://")):
        return Finding("mlflow at", f"{shown}, not a server")
    answer = ask(f"{uri.rstrip('/')}/health")
    if answer.ok:
        return Finding("mlflow at", f"{shown} answers")
    seen = f"{shown} does not answer ({answer.reason or f'HTTP {answer.status}'})"
    return Finding("mlflow at", seen, "start it (bbtune up), or correct MLFLOW_TRACKING_URI; runs go on without it")
