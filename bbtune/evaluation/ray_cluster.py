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

_PROBE_S = 5.0
_LONGEST_TEMP = 30  # characters: Ray's unix sockets lie 75 deeper, and their paths end at 107
_QUIET = {"log_to_driver": False, "logging_level": "ERROR"}


def import_ray() -> Any:
    """Ray, with telemetry off; the machine's own settings win."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray
    import ray.exceptions

    return ray


def start_cluster(ray: Any) -> None:
    """Join the cluster that RAY_ADDRESS names (a submitted job has it set), else start one in this process.

    Raises:
        ResourcesError: if no cluster answers at that address.
    """
    with _own_signals():
        if address := os.environ.get("RAY_ADDRESS"):
            _join(ray, address)
            return
        if len(tempfile.gettempdir()) > _LONGEST_TEMP:
            os.environ.setdefault("RAY_TMPDIR", "/tmp")
        ray.init(address="local", include_dashboard=False, object_store_memory=200 * 2**20, **_QUIET)
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
