"""The job server and its token, and MLflow."""

from __future__ import annotations

import os
from pathlib import Path

from bbtune.doctor.finding import Finding
from bbtune.doctor.packages import cluster_findings
from bbtune.errors import BbtuneError, hide_credentials
from bbtune.service.ask import ask
from bbtune.service.cluster import refusal
from bbtune.service.processes import find, part_of
from bbtune.service.state import Service
from bbtune.service.target import Target, find_target
from bbtune.service.token import loose_mode


def service_finding(service: Service | None, folder: Path) -> Finding:
    """Whether all processes of the service on record run."""
    if service is None:
        return Finding("service", f"none is up in {folder}; `bbtune up` starts one")
    dead = sorted({part_of(one) for one in service.processes if one.name == part_of(one) and not find(one)})
    if dead:
        return Finding("service", f"{' and '.join(dead)} died", f"bbtune up (logs: {service.folder / 'logs'})")
    return Finding("service", f"up, {len(service.processes)} processes on record in {folder}")


def job_server_findings(address: str | None, folder: Path) -> list[Finding]:
    """Whether a job server answers, to this token, and has the versions that are here."""
    try:
        target = find_target(address, folder)
    except BbtuneError as error:
        return [Finding("token", str(error), "correct the file, or name another: RAY_AUTH_TOKEN_PATH=FILE")]
    if target is None:
        return [Finding("job server", "none: no service is up, no address is given, RAY_API_SERVER_ADDRESS is not set")]
    found = [token_finding(target)]
    if said := refusal(target.dashboard, ask(f"{target.dashboard}/api/version", target.token)):
        seen, _, todo = said.partition("; ")
        return [*found, Finding("job server", seen, todo or "look at its logs")]
    found.append(Finding("job server", f"{target.dashboard} answers"))
    if ask(f"{target.dashboard}/api/version").ok:
        seen = f"{target.dashboard} answers without a token, too: whoever reaches it can start jobs"
        found.append(Finding("door", seen, "start that cluster with RAY_AUTH_MODE=token"))
    return found + cluster_findings(ask(f"{target.dashboard}/api/v0/cluster_metadata", target.token).json())


def token_finding(target: Target) -> Finding:
    """Where the token was found, and whether only its owner can read it."""
    if target.token is None:
        return Finding("token", "none found in RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token")
    path = Path(target.token_from)
    mode = loose_mode(path) if path.is_file() else None
    if mode is not None:
        return Finding("token", f"{path} has mode {mode}: others can use it", f"chmod 600 {path}")
    return Finding("token", f"found ({target.token_from})")


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
