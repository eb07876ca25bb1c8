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
from bbtune.service.ports import HOST
from bbtune.service.token import make_token
from bbtune.serving.replica import Replica
from bbtune.serving.settings import RAY_TOKEN, Front, Settings

_OBJECT_STORE = 80 * 2**20  # bytes, about Ray's smallest: nothing large goes through it
_APP = "bbtune"
_LATE_S = 5.0  # beyond the grace, until a replica is killed
# What Ray and Ray Serve read when they are imported, here and in their processes.
_ENVIRONMENT = {
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",  # one event loop: the model has a thread of its own
    "RAY_SERVE_LOG_TO_STDERR": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # as of a service: all of Ray on the loopback
    "RAY_AUTH_MODE": "token",
}


@contextmanager
def serving(settings: Settings) -> Iterator[None]:
    """Replicas that answer, until the context ends; requests under way are answered first.

    Raises:
        EvaluationError: if they cannot be started.
    """
    token = settings.folder / RAY_TOKEN
    make_token(token)
    os.environ.update(_ENVIRONMENT | {"RAY_AUTH_TOKEN_PATH": str(token)})
    os.environ.pop("RAY_AUTH_TOKEN", None)
    ray = import_ray()
    temp = tempfile.mkdtemp(prefix="bbs-", dir="/tmp")  # short: the path of a unix socket ends at 107
    front = settings.front
    size = {"object_store_memory": _OBJECT_STORE, "num_cpus": front.replicas * front.threads}
    try:
        start_here(ray, **size, _node_ip_address=HOST, _temp_dir=temp)
        from ray import serve

        logging.getLogger("ray.serve").setLevel(logging.ERROR)
        _deploy(serve, settings)
        try:
            yield
        finally:
            serve.delete(_APP)  # as long as requests are under way, and the grace lasts
    finally:
        ray.shutdown()
        shutil.rmtree(temp, ignore_errors=True)


def _deploy(serve: Any, settings: Settings) -> None:
    """Start the replicas; Ray Serve keeps their number, they listen by themselves."""
    from ray.serve.exceptions import RayServeException
    from ray.serve.schema import LoggingConfig

    quiet = LoggingConfig(enable_access_log=False, log_level="ERROR")
    serve.start(proxy_location="Disabled", logging_config=quiet)
    front: Front = settings.front
    deployment = serve.deployment(
        name="replica",
        num_replicas=front.replicas,
        ray_actor_options={"num_cpus": front.threads},
        graceful_shutdown_timeout_s=front.grace_s + _LATE_S,
        graceful_shutdown_wait_loop_s=0.1,
        health_check_period_s=1,
        logging_config=quiet,
    )
    try:
        serve.run(deployment(Replica).bind(settings), name=_APP, route_prefix=None, logging_config=quiet)
    except (RayServeException, RuntimeError) as error:
        raise EvaluationError(f"the server did not start: {_why(serve) or last_line(error)}") from error


def _why(serve: Any) -> str:
    """What kept replicas from starting: the error of the last one, whose traceback ends with it."""
    told = [of.message for app in serve.status().applications.values() for of in app.deployments.values()]
    return last_line("\n".join(told))
