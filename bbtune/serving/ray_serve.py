"""Replicas on Ray Serve, on a cluster of this machine alone that ends with this process."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bbtune.errors import EvaluationError
from bbtune.evaluation.ray_cluster import import_ray, last_line, start_here
from bbtune.service.ports import HOST, free_port
from bbtune.service.token import make_token
from bbtune.serving.replica import Replica
from bbtune.serving.settings import Front, Settings

_OBJECT_STORE = 80 * 2**20  # bytes, Ray's smallest: nothing large goes through it
_APP = "bbtune"
_ONGOING = 10_000  # requests at a replica: its own queue, in texts, is the one that is full first


@contextmanager
def serving(settings: Settings, front: Front) -> Iterator[None]:
    """Replicas that answer, until the context ends; requests under way are answered first.

    Raises:
        EvaluationError: if they cannot be started.
    """
    token = settings.folder / "ray_token"
    make_token(token)
    os.environ.update(_environment(front) | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)})
    os.environ.pop("RAY_AUTH_TOKEN", None)
    ray = import_ray()
    temp = tempfile.mkdtemp(prefix="bbs-", dir="/tmp")  # short: the path of a unix socket ends at 107
    try:
        start_here(
            ray,
            object_store_memory=_OBJECT_STORE,
            num_cpus=front.replicas * front.threads,
            _node_ip_address=HOST,
            _temp_dir=temp,
        )
        from ray import serve

        logging.getLogger("ray.serve").setLevel(logging.ERROR)
        try:
            _deploy(serve, settings, front)
            yield
        finally:
            serve.delete(_APP)  # as long as requests are under way, and the grace lasts
    finally:
        ray.shutdown()
        shutil.rmtree(temp, ignore_errors=True)


def _environment(front: Front) -> dict[str, str]:
    """What Ray Serve reads when it is imported, here and in its processes."""
    found = {
        # One event loop for HTTP and app: the model has a thread of its own.
        "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
        "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",
        "RAY_SERVE_LOG_TO_STDERR": "0",
        # As of a service: all of Ray on the loopback.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    }
    if front.replicas == 1:  # it listens itself: a hop less, which costs more than the model
        found |= {
            "RAY_SERVE_ENABLE_DIRECT_INGRESS": "1",
            "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(front.port),
            "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(front.port + 1),  # the first that is not taken any more
            "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "0",
            "RAY_SERVE_PORT_QUARANTINE_S": "0",  # whoever replaces a replica that died has its port
        }
    return found


def _deploy(serve: Any, settings: Settings, front: Front) -> None:
    from ray.serve.config import HTTPOptions
    from ray.serve.exceptions import RayServeException
    from ray.serve.schema import LoggingConfig

    class Replicas(Replica):
        """Knows what Ray Serve calls an app."""

        def __serve_build_asgi_app__(self) -> Any:
            return self.app()

    quiet = LoggingConfig(enable_access_log=False)
    # A replica that listens itself leaves Ray's proxy a port that nobody asks.
    port = free_port() if front.replicas == 1 else front.port
    serve.start(http_options=HTTPOptions(host=front.host, port=port), logging_config=quiet)
    deployment = serve.deployment(
        name="replica",
        num_replicas=front.replicas,
        ray_actor_options={"num_cpus": front.threads},
        max_ongoing_requests=_ONGOING,
        graceful_shutdown_timeout_s=front.grace_s,
        graceful_shutdown_wait_loop_s=0.1,
        health_check_period_s=1,
        logging_config=quiet,
    )
    try:
        serve.run(deployment(serve.ingress()(Replicas)).bind(settings), name=_APP, logging_config=quiet)
    except (RayServeException, RuntimeError) as error:
        raise EvaluationError(f"the server did not start: {_why(serve) or last_line(error)}") from error


def _why(serve: Any) -> str:
    """What kept replicas from starting: the error of the last one, whose traceback ends with it."""
    told = [of.message for app in serve.status().applications.values() for of in app.deployments.values()]
    return last_line("\n".join(told))
