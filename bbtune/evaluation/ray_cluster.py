"""Start or join a Ray cluster: quietly, with a token that only its owner can read, and faults in words."""

from __future__ import annotations

import os
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bbtune.errors import ResourcesError
from bbtune.run_spec import EvaluatorsSpec

_PROBE_S = 5.0
_LONGEST_TEMP = 30  # characters: Ray's unix sockets lie 75 deeper, and their paths end at 107
FEWER = "lower evaluators.count (of a begun run: bbtune resume DIR --evaluators N)"
_QUIET = {"log_to_driver": False, "logging_level": "ERROR"}


def import_ray() -> Any:
    """Ray, with telemetry off and quiet; the machine's own settings win."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Every run of a study has a process of its own, which Ray wonders at; other warnings of it are shown.
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", "worker processes have been started")
    import ray
    import ray.exceptions

    return ray


def start_cluster(ray: Any) -> bool:
    """Join the cluster that RAY_ADDRESS names (a submitted job has it set), else start one in this process.

    Returns:
        Whether it was started here.

    Raises:
        ResourcesError: if no cluster answers at that address.
    """
    if address := os.environ.get("RAY_ADDRESS"):
        with _own_signals():
            _join(ray, address)
        return False
    start_here(ray)
    return True


def start_here(ray: Any, **options: Any) -> None:
    """Start a cluster in this process, which ends with it.

    Args:
        options: of ``ray.init``.
    """
    if len(tempfile.gettempdir()) > _LONGEST_TEMP:
        os.environ.setdefault("RAY_TMPDIR", "/tmp")
    os.environ.setdefault("RAY_worker_niceness", "0")  # not less urgent than a run without actors; Ray's own is 15
    told = {"include_dashboard": False, "object_store_memory": 200 * 2**20, **_QUIET, **options}
    with _own_signals():
        ray.init(address="local", **told)
    token = Path.home() / ".ray" / "auth_token"  # Ray writes it for all to read
    if token.is_file() and token.stat().st_uid == os.getuid():
        token.chmod(0o600)


def _join(ray: Any, address: str) -> None:
    try:
        _probe(address)
        ray.init(**_QUIET)
    except (OSError, RuntimeError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ResourcesError(
            f"no Ray cluster answers at RAY_ADDRESS={address} ({reason}); "
            "start it, correct the address, or unset it for a cluster of this process"
        ) from error


def _probe(address: str) -> None:
    """Knock at host:port, because Ray itself waits five minutes for a cluster that is not there."""
    host, colon, port = address.rpartition(":")
    if colon and port.isdigit() and "/" not in host:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_PROBE_S).close()


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keep the handler of SIGTERM, which Ray replaces by one that ends the process without a word."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    kept = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, kept)


@contextmanager
def joined_cluster(ray: Any) -> Iterator[bool]:
    """The cluster that is there, or one that lasts as long as the context; yields whether it is such a one."""
    connected = not ray.is_initialized()
    owned = connected and start_cluster(ray)
    try:
        yield owned
    finally:
        if connected:
            ray.shutdown()


def on_this_machine(ray: Any, only: bool) -> Any:
    """A strategy that puts an actor where this process runs; unless ``only``, elsewhere where there it cannot be."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=not only)


def check_cluster(ray: Any, spec: EvaluatorsSpec) -> None:
    """Refuse at once what the whole cluster, were it idle, could not hold.

    Raises:
        ResourcesError: if it could not.
    """
    total = ray.cluster_resources()
    for name, each in (("CPU", spec.cpus), ("GPU", spec.gpus)):
        need, have = each * spec.count, total.get(name, 0.0)
        if need > have:
            raise ResourcesError(
                f"evaluators: {spec.count} of {amounts(spec)} each need {need:g} {name}s, the cluster has {have:g}; "
                f"{FEWER} or evaluators.{name.lower()}s, or add machines"
            )


def room(ray: Any, spec: EvaluatorsSpec) -> int:
    """How many evaluators the machines that are there could hold, were they idle."""
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    needs = {"CPU": spec.cpus, "GPU": spec.gpus}
    return sum(min(int(of.get(name, 0.0) / each) for name, each in needs.items() if each) for of in machines)


def amounts(spec: EvaluatorsSpec) -> str:
    """What one evaluator takes, in words."""
    return f"{spec.cpus:g} CPUs" + (f" and {spec.gpus:g} GPUs" if spec.gpus else "")


def last_line(error: Any) -> str:
    """Of an error's text, which for one of another process is the error itself."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]
