"""The processes that a test has started, by what they call themselves, and waiting for them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import psutil


def until(true: Callable[[], Any], timeout_s: float) -> Any:
    """Wait until something is true; returns what it was at last."""
    deadline = time.monotonic() + timeout_s
    while not (found := true()) and time.monotonic() < deadline:
        time.sleep(0.01)
    return found


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
