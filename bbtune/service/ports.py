"""Ports of a service: those of habit where they are free, any free ones otherwise."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from dataclasses import dataclass

from bbtune.errors import ResourcesError

HOST = "127.0.0.1"
HABIT = {"ray": 6379, "dashboard": 8265, "mlflow": 5000}
_OTHERS = (
    "agent",
    "agent_grpc",
    "runtime_env",
    "object_manager",
    "node_manager",
    "metrics",
    "dashboard_metrics",
    "autoscaler_metrics",
)


@dataclass(frozen=True)
class Wanted:
    """Ports that were asked for by number; None is for any."""

    ray: int | None = None
    dashboard: int | None = None
    mlflow: int | None = None


def choose_ports(wanted: Wanted) -> dict[str, int]:
    """A port for each part, none twice, all free at this moment.

    Raises:
        ResourcesError: if a port that was asked for is taken, or asked for twice.
    """
    chosen: dict[str, int] = {}
    asked = set(vars(wanted).values())
    with ExitStack() as held:  # a port that is held is not handed out a second time
        for name, habit in HABIT.items():
            told = getattr(wanted, name)
            if told in chosen.values():  # is_free does not see it: what is held does not listen
                raise ResourcesError(f"--port-{name}: {told} is to be that of another part; take another port")
            if told is not None and not is_free(told):
                raise ResourcesError(f"--port-{name}: {told} is taken{by_whom(told)}; end that, or take another port")
            chosen[name] = _hold(held, told or (habit if habit not in asked and is_free(habit) else 0))
        for name in _OTHERS:
            chosen[name] = _hold(held, 0)
    return chosen


def _hold(held: ExitStack, port: int) -> int:
    bound = held.enter_context(socket.socket())
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind((HOST, port))
    return int(bound.getsockname()[1])


def is_free(port: int) -> bool:
    """Whether nothing listens on a port of this machine."""
    with socket.socket() as knocking:
        knocking.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            knocking.bind((HOST, port))
            knocking.listen()
        except OSError:
            return False
    return True


def by_whom(port: int) -> str:
    """`` by process 71 (nginx)``, empty where that is not to be known."""
    import psutil

    try:
        for one in psutil.net_connections("tcp"):
            if one.status == psutil.CONN_LISTEN and one.laddr and one.laddr[1] == port and one.pid:
                return f" by process {one.pid} ({psutil.Process(one.pid).name()})"
    except psutil.Error:  # of other people, or over by now
        pass
    return ""
