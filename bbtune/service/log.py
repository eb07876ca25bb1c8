"""What the parts of a service write about themselves."""

from __future__ import annotations

from pathlib import Path

from bbtune.service.state import Service

_SHOWN_LINES = 15


def log_of(service: Service, name: str) -> Path:
    """The log of a part."""
    return service.folder / "logs" / f"{name}.log"


def last_lines(service: Service, name: str) -> str:
    """The end of a part's log, in words."""
    log = log_of(service, name)
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-_SHOWN_LINES:]
    except OSError:
        lines = []
    return "\n  ".join([f"the end of {log}:" if lines else f"{log} is empty", *lines])
