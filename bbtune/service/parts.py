"""The two parts of a service: how each is started, and when it is ready."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bbtune.service.ask import ask
from bbtune.service.ports import HOST
from bbtune.service.processes import MARK
from bbtune.service.state import FOLDER, Service
from bbtune.service.token import service_token

RAY, MLFLOW = "ray", "mlflow"
STORAGE = "BBTUNE_STORAGE"  # environment: where runs of submitted jobs go
_OBJECT_STORE = 400 * 2**20  # bytes, taken as they are used
_A_YEAR_S = 365 * 86400
_NICENESS = "RAY_worker_niceness"
# What would lead Ray or MLflow elsewhere than to this service, were it left in the environment.
_FOREIGN = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_AUTH_TOKEN", "RAY_TMPDIR", "MLFLOW_BACKEND_STORE_URI")


@dataclass(frozen=True)
class Part:
    """A process to be started.

    Args:
        name: what it is to the service.
        command: with its arguments.
        environment: all of it.
        answers: addresses that answer 200 once it is ready.
    """

    name: str
    command: list[str]
    environment: Mapping[str, str]
    answers: tuple[str, ...]


def ray_head(service: Service, ports: Mapping[str, int], cpus: int | None) -> Part:
    """A Ray head with its job server; jobs inherit its environment."""
    options = {
        "port": ports["ray"],
        "dashboard-host": HOST,
        "dashboard-port": ports["dashboard"],
        "dashboard-agent-listen-port": ports["agent"],
        "dashboard-agent-grpc-port": ports["agent_grpc"],
        "runtime-env-agent-port": ports["runtime_env"],
        "object-manager-port": ports["object_manager"],
        "node-manager-port": ports["node_manager"],
        "metrics-export-port": ports["metrics"],
        "min-worker-port": 0,  # any free one; Ray's own ten thousand would be those of a second service, too
        "max-worker-port": 0,
        "object-store-memory": _OBJECT_STORE,
        "include-dashboard": "true",
        "temp-dir": service.temp / "ray",
        **({} if cpus is None else {"num-cpus": cpus}),
    }
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats"]
    command += [f"--{name}={value}" for name, value in options.items()]
    answers = (f"{service.dashboard}/api/version", f"http://{HOST}:{ports['agent']}/api/healthz")
    return Part(RAY, command, _ray_environment(service, ports), answers)


def _ray_environment(service: Service, ports: Mapping[str, int]) -> dict[str, str]:
    return _environment() | {
        # Ray takes 127.0.0.1 for the machine's outer address, unless it believes that it cannot have a second machine.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_START_HOOK": "bbtune.service.ray_hook.loopback_only",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(service.token_file),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        _NICENESS: os.environ.get(_NICENESS, "0"),  # a job is not less urgent than a shell
        "PATH": os.pathsep.join(
            [os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath)]
        ),  # of a job's python
        "RAY_JOB_START_TIMEOUT_SECONDS": str(_A_YEAR_S),  # a job that waits for its turn is no failure
        "AUTOSCALER_METRIC_PORT": str(ports["autoscaler_metrics"]),
        "DASHBOARD_METRIC_PORT": str(ports["dashboard_metrics"]),
        "MLFLOW_TRACKING_URI": service.mlflow,
        FOLDER: str(service.folder),
        MARK: mark_of(service),
        STORAGE: str(service.storage),
    }


def mark_of(service: Service) -> str:
    """What processes of this one service alone have in their environment: no two have the same folder there."""
    return str(service.temp)


def mlflow_server(service: Service, port: int) -> Part:
    """An MLflow server on a database and a folder of the service."""
    options = {
        "backend-store-uri": f"sqlite:///{service.folder / 'mlflow.db'}",
        "artifacts-destination": service.folder / "artifacts",
        "host": HOST,
        "port": port,
        "workers": 1,
        "allowed-hosts": f"{HOST}:{port},localhost:{port}",  # its default takes every private address for its own
    }
    environment = _environment() | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    command = [sys.executable, "-m", "mlflow", "server"]
    command += [f"--{name}={value}" for name, value in options.items()]
    return Part(MLFLOW, command, environment, (f"{service.mlflow}/health",))


def is_ready(part: Part, token_file: Path) -> bool:
    """Whether a part answers; Ray to this service's own token."""
    token = service_token(token_file) if part.name == RAY else None
    return all(ask(address, token, timeout_s=2).ok for address in part.answers)


def _environment() -> dict[str, str]:
    """This process's own, without what leads elsewhere; the machine itself is not asked through a proxy."""
    kept = {name: value for name, value in os.environ.items() if name not in _FOREIGN}
    for name in ("no_proxy", "NO_PROXY"):
        kept[name] = ",".join(filter(None, [kept.get(name), HOST, "localhost"]))
    return kept
