"""Processes of a service: started apart from whoever started them, ended by what is on record of them."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import psutil

from bbtune.service.state import Recorded

MARK = "BBTUNE_SERVICE_MARK"  # environment of all that a Ray head starts, jobs too
_SAME_BIRTH_S = 1.0  # a clock that is set moves all births a little
_POLITE_S, _BEHIND_S, _FORCED_S = 8.0, 1.0, 5.0


def start(name: str, command: Sequence[str], environment: Mapping[str, str], log: Path) -> Recorded:
    """Start a process in a session of its own, what it says in a log; the log of the last time is kept as ``.old``."""
    log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if log.exists():
        log.replace(log.with_suffix(".old"))
    with open(os.open(log, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "wb") as writing:
        process = subprocess.Popen(
            command,
            env=environment,
            cwd=log.parent.parent,
            stdin=subprocess.DEVNULL,
            stdout=writing,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            umask=0o077,
        )
    return Recorded(name, process.pid, psutil.Process(process.pid).create_time())


def find(recorded: Recorded) -> psutil.Process | None:
    """The process on record; None if it has ended, even if its id is another's by now."""
    try:
        process = psutil.Process(recorded.pid)
        born_then = abs(process.create_time() - recorded.create_time) < _SAME_BIRTH_S
        return process if born_then and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.NoSuchProcess:
        return None


def below(recorded: Recorded) -> list[Recorded]:
    """All that a process has started and they in turn, named after it, ``ray/raylet``."""
    process = find(recorded)
    found = []
    for child in _children(process) if process else []:
        try:
            found.append(Recorded(f"{part_of(recorded)}/{child.name()}", child.pid, child.create_time()))
        except psutil.NoSuchProcess:
            continue
    return found


def part_of(recorded: Recorded) -> str:
    """``ray`` for ``ray/raylet``."""
    return recorded.name.partition("/")[0]


def stop(processes: Iterable[Recorded], mark: str | None = None) -> list[int]:
    """End processes and all below them: asked first, then made to; returns the ids that would not end.

    Args:
        processes: on record.
        mark: also those whose environment has it: a job whose parents were killed is below none of ours any more.
    """
    known = list(processes)
    heads = [process for one in known if "/" not in one.name and (process := find(one))]
    everyone = _with_children(known, mark)
    _send(heads, "terminate")
    psutil.wait_procs(heads, timeout=_POLITE_S)  # they end what they have started
    psutil.wait_procs(everyone, timeout=_BEHIND_S if heads else 0)
    deadline = time.monotonic() + _FORCED_S
    while everyone := [process for process in {*everyone, *_with_children(known, mark)} if _runs(process)]:
        everyone = list({*everyone, *(child for process in everyone for child in _children(process))})
        _send(everyone, "kill")
        psutil.wait_procs(everyone, timeout=1.0)
        if time.monotonic() > deadline:
            break
    return sorted(process.pid for process in everyone if _runs(process))


def _with_children(known: Iterable[Recorded], mark: str | None) -> list[psutil.Process]:
    """The processes on record that run, those that have the mark, and all below them, each once."""
    alive = [process for one in known if (process := find(one))] + (_marked(mark) if mark else [])
    return list({*alive, *(child for process in alive for child in _children(process))})


def _marked(mark: str) -> list[psutil.Process]:
    """Processes that have inherited the mark, this one left out."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get(MARK) == mark:
                found.append(process)
        except (psutil.Error, OSError):  # ended, or another user's
            continue
    return found


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _send(processes: Iterable[psutil.Process], how: str) -> None:
    """Signal processes; psutil looks at the birth once more before it does."""
    for process in processes:
        try:
            getattr(process, how)()
        except psutil.NoSuchProcess:
            continue
