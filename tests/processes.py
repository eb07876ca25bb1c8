"""The processes that a test has started, by what they call themselves."""

from __future__ import annotations

import psutil


def ids_of(name: str, above: psutil.Process | None = None) -> list[int]:
    """Process ids below a process, this one without any, whose command begins with a name."""
    found = []
    for child in (above or psutil.Process()).children(recursive=True):
        try:
            if (child.cmdline() or [""])[0].startswith(name):
                found.append(child.pid)
        except psutil.NoSuchProcess:  # it has ended meanwhile
            continue
    return sorted(found)


def is_running(number: int) -> bool:
    """Whether a process of this id is there and has not ended; one that nobody has waited for has."""
    try:
        return psutil.Process(number).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
