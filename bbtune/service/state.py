"""What is on record of a running service: addresses, files, and the processes that it is made of."""

from __future__ import annotations

import json
import os
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bbtune.errors import BbtuneError
from bbtune.files import locked, replaced

FOLDER = "BBTUNE_SERVICE"  # environment: the state folder
_FILE = "service.json"
_PATHS = ("folder", "token_file", "storage", "temp")


@dataclass(frozen=True)
class Recorded:
    """A process that was started: an id can be given to another process, an id with its birth cannot.

    Args:
        name: what it is to the service, such as ``mlflow``.
        pid: its process id.
        create_time: when it was born, in seconds since 1970, as psutil tells it.
    """

    name: str
    pid: int
    create_time: float


@dataclass(frozen=True)
class Service:
    """A service that was started and not stopped.

    Args:
        folder: its state folder.
        dashboard: address of Ray's job server, ``http://127.0.0.1:8265``.
        ray_address: ``host:port`` of the Ray head.
        mlflow: address of the MLflow server.
        token_file: what Ray's clients must show.
        storage: folder for the runs of submitted jobs.
        temp: Ray's own files and sockets.
        processes: all that was started.
    """

    folder: Path
    dashboard: str
    ray_address: str
    mlflow: str
    token_file: Path
    storage: Path
    temp: Path
    processes: tuple[Recorded, ...] = ()


def service_folder() -> Path:
    """The state folder: ``$BBTUNE_SERVICE``, else ``~/.bbtune/service``."""
    told = os.environ.get(FOLDER)
    return Path(told).expanduser().absolute() if told else Path.home() / ".bbtune" / "service"


def read_service(folder: Path | None = None) -> Service | None:
    """The service on record in a state folder, None where there is none.

    Raises:
        BbtuneError: if the record is damaged.
    """
    path = (folder or service_folder()) / _FILE
    try:
        raw = json.loads(path.read_bytes())
        return _service(raw)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError) as error:
        raise BbtuneError(
            f"{path}: expected the record of a service, got something else ({type(error).__name__}: {error}); "
            "end its processes by hand (`ps` shows them with this folder in their commands) and remove the file"
        ) from error


def write_service(service: Service) -> None:
    """Put a service on record, in place of what was there; whole or not at all."""
    path = service.folder / _FILE
    raw = {name: str(value) if name in _PATHS else value for name, value in asdict(service).items()}
    with replaced(path) as part:
        part.write_text(json.dumps(raw, indent=1) + "\n", encoding="utf-8")


def forget_service(folder: Path) -> None:
    """Take a service off the record."""
    (folder / _FILE).unlink(missing_ok=True)


def held(folder: Path) -> AbstractContextManager[None]:
    """Keep other commands from the processes of a service meanwhile.

    Raises:
        BbtuneError: on entering, if another command is at them.
    """
    busy = f"{folder}: another `bbtune up` or `bbtune down` is at work here; wait for it"
    return locked(folder / "lock", BbtuneError(busy))


def _service(raw: dict[str, Any]) -> Service:
    """A record as it is read; every value of its kind."""
    return Service(
        folder=Path(raw["folder"]),
        dashboard=str(raw["dashboard"]),
        ray_address=str(raw["ray_address"]),
        mlflow=str(raw["mlflow"]),
        token_file=Path(raw["token_file"]),
        storage=Path(raw["storage"]),
        temp=Path(raw["temp"]),
        processes=tuple(Recorded(str(p["name"]), int(p["pid"]), float(p["create_time"])) for p in raw["processes"]),
    )
