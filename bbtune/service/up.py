"""Start a service, or what is missing of one; whole or not at all."""

from __future__ import annotations

import importlib.util
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from bbtune.errors import BbtuneError, ResourcesError
from bbtune.service.down import clear
from bbtune.service.log import last_lines, log_of
from bbtune.service.parts import MLFLOW, RAY, Part, is_ready, mark_of, mlflow_server, ray_head
from bbtune.service.ports import HOST, Wanted, choose_ports
from bbtune.service.processes import below, find, part_of, start, stop
from bbtune.service.state import Recorded, Service, held, read_service, write_service
from bbtune.service.token import make_token

_PARTS = (MLFLOW, RAY)
_PATIENCE_S = 180.0
Say = Callable[[str], None]


def bring_up(folder: Path, wanted: Wanted, cpus: int | None, say: Say) -> tuple[Service, list[str]]:
    """Start what does not run of the service of a state folder; returns it and the parts that were started.

    Args:
        folder: its state folder, made where it is missing.
        wanted: ports that were asked for.
        cpus: CPUs that Ray hands out; None is for all of the machine.
        say: told what is waited for.

    Raises:
        BbtuneError: if a part does not start; whatever was started has been ended then.
    """
    _check_installed()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    with held(folder):
        old = read_service(folder)
        missing = [name for name in _PARTS if old is None or not is_alive(old, name)]
        if old is not None:
            if not missing:
                return old, []
            wanted, old = _same_ports(old, missing), _without(old, missing)
        ports = _ports(wanted, old)
        service = old or _new_service(folder, ports)
        parts = {MLFLOW: mlflow_server(service, ports["mlflow"]), RAY: ray_head(service, ports, cpus)}
        with _all_or_nothing(service, old) as begin:
            for name in missing:
                service = begin(parts[name])
            _wait(service, [parts[name] for name in missing], say)
            service = _with_all_below(service, missing)
            write_service(service)
    return service, missing


def is_alive(service: Service, name: str) -> bool:
    """Whether the process of a part runs."""
    return any(one.name == name and find(one) for one in service.processes)


def _check_installed() -> None:
    if importlib.util.find_spec("aiohttp_cors") is None:  # of ray[default] alone: without it there is no job server
        raise BbtuneError("the job server of Ray is not installed; pip install 'bbtune[cluster]'")


def _new_service(folder: Path, ports: dict[str, int]) -> Service:
    token = folder / "token"
    token.unlink(missing_ok=True)  # of a service that was never stopped
    make_token(token)
    storage = folder / "runs"
    storage.mkdir(mode=0o700, exist_ok=True)
    return Service(
        folder=folder,
        dashboard=f"http://{HOST}:{ports['dashboard']}",
        ray_address=f"{HOST}:{ports['ray']}",
        mlflow=f"http://{HOST}:{ports['mlflow']}",
        token_file=token,
        storage=storage,
        temp=Path(tempfile.mkdtemp(prefix="bbt-", dir="/tmp")),  # short: the path of a unix socket ends at 107
    )


def _ports(wanted: Wanted, old: Service | None) -> dict[str, int]:
    """As :func:`choose_ports`; those of a service on record cannot be asked for anew."""
    try:
        return choose_ports(wanted)
    except ResourcesError as error:
        if old is None:
            raise
        raise ResourcesError(f"{error} (this service has it on record until: bbtune down)") from error


def _same_ports(service: Service, missing: list[str]) -> Wanted:
    """Those on record for what is started anew: running jobs know MLflow by its address, shells the job server."""

    def port(address: str) -> int:
        return int(address.rpartition(":")[2])

    ray = RAY in missing
    return Wanted(
        ray=port(service.ray_address) if ray else None,
        dashboard=port(service.dashboard) if ray else None,
        mlflow=port(service.mlflow) if MLFLOW in missing else None,
    )


def _without(service: Service, missing: list[str]) -> Service:
    """The service without what is left of dead parts, which is ended."""
    dead = [one for one in service.processes if part_of(one) in missing]
    if left := stop(dead, mark_of(service) if RAY in missing else None):
        raise ResourcesError(f"processes {left} of the service that died do not end; end them by hand, then: bbtune up")
    return replace(service, processes=tuple(one for one in service.processes if one not in dead))


@contextmanager
def _all_or_nothing(service: Service, old: Service | None) -> Iterator[Callable[[Part], Service]]:
    """Starts parts and records each at once; ends them again if anything goes wrong, an interruption too."""
    begun: list[Recorded] = []

    def begin(part: Part) -> Service:
        begun.append(start(part.name, part.command, part.environment, log_of(service, part.name)))
        recorded = replace(service, processes=(*service.processes, *begun))
        write_service(recorded)
        return recorded

    try:
        yield begin
    except BaseException:
        left = stop(begun, mark_of(service) if any(one.name == RAY for one in begun) else None)
        if old is not None:
            write_service(old)
        elif not left:
            clear(service)
        raise


def _wait(service: Service, parts: Iterable[Part], say: Say) -> None:
    """Until all parts answer.

    Raises:
        BbtuneError: if one ends, or does not answer in time; with the end of its log.
    """
    waiting, deadline = list(parts), time.monotonic() + _PATIENCE_S
    while waiting:
        say(f"waiting for {' and '.join(part.name for part in waiting)}")
        for name in [part.name for part in waiting if not is_alive(service, part.name)]:
            raise BbtuneError(f"{name} did not start; {last_lines(service, name)}")
        waiting = [part for part in waiting if not is_ready(part, service.token_file)]
        if waiting and time.monotonic() > deadline:
            late = waiting[0].name
            raise BbtuneError(f"{late} gave no answer in {_PATIENCE_S:g} s; {last_lines(service, late)}")
        time.sleep(0.2 if waiting else 0)


def _with_all_below(service: Service, names: list[str]) -> Service:
    """Also the processes that the parts have started: were a part killed, its own would be left without a parent."""
    heads = [one for one in service.processes if one.name in names]
    return replace(service, processes=(*service.processes, *(child for head in heads for child in below(head))))
