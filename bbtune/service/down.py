"""Stop a service: its processes by their record, never by their name; its data stay."""

from __future__ import annotations

import shutil
from pathlib import Path

from bbtune.errors import ResourcesError
from bbtune.service.parts import mark_of
from bbtune.service.processes import stop
from bbtune.service.state import Service, forget_service, held, read_service


def take_down(folder: Path) -> Service | None:
    """Stop the service of a state folder and take it off the record; None if there is none.

    Raises:
        ResourcesError: if a process does not end; the service stays on record then.
    """
    if not folder.is_dir():
        return None
    with held(folder):
        service = read_service(folder)
        if service is None:
            return None
        if left := stop(service.processes, mark_of(service)):
            raise ResourcesError(f"processes {left} of the service do not end; end them by hand, then: bbtune down")
        clear(service)
    return service


def clear(service: Service) -> None:
    """Remove what is of no use to a service that is stopped: record, token, Ray's own files but its logs."""
    kept = service.folder / "logs" / "ray"
    logs = service.temp / "ray" / "session_latest" / "logs"
    if logs.is_dir():
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(logs.resolve(), kept, dirs_exist_ok=True, ignore_dangling_symlinks=True)
    shutil.rmtree(service.temp, ignore_errors=True)
    service.token_file.unlink(missing_ok=True)
    forget_service(service.folder)
