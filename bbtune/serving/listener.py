"""HTTP in the process of a replica: no proxy stands between a request and the model."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import time
from typing import Any

import uvicorn

from bbtune.serving.settings import Front

_QUIET_S = 1.0  # how long requests that come late are told that the server stops
_LOOK_S = 0.02


class Listener:
    """An app at an address that other replicas listen at, too: the system hands each connection to one of them.

    Args:
        app: ASGI.
        front: where to listen.
    """

    def __init__(self, app: Any, front: Front) -> None:
        config = uvicorn.Config(
            app,
            access_log=False,
            log_config=None,
            lifespan="off",
            timeout_graceful_shutdown=max(1, round(front.grace_s)),
        )
        self._server = uvicorn.Server(config)
        self._serving = asyncio.get_running_loop().create_task(self._serve(_bound(front)))

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self._serving.done()

    async def stop(self) -> None:
        """Answer what is under way, then end; the app refuses what comes meanwhile."""
        deadline = time.monotonic() + _QUIET_S
        while self._server.server_state.connections and time.monotonic() < deadline:
            await asyncio.sleep(_LOOK_S)
        self._server.should_exit = True
        await self._serving

    async def _serve(self, listening: socket.socket) -> None:
        with listening:
            await self._server._serve(sockets=[listening])  # without the signal handlers, which are Ray's


def _bound(front: Front) -> socket.socket:
    """A socket that listens beside those of other replicas, and while connections of a dead one are remembered."""
    version = ipaddress.ip_address(front.host).version
    bound = socket.socket(socket.AF_INET6 if version == 6 else socket.AF_INET)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    bound.bind((front.host, front.port))
    return bound
