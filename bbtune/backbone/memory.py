"""Memory: what is held, what is used, and that a forward uses again what the last one freed."""

from __future__ import annotations

import ctypes
import re
import resource
import sys
from contextlib import suppress
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_LARGEST = 32 * 2**20  # bytes: the largest block that glibc will keep


def keep_freed_memory() -> None:
    """Tell glibc's malloc to keep what is freed, a tenth of the time on tensors of megabytes; elsewhere nothing."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(_M_MMAP_THRESHOLD, _LARGEST)
    mallopt(_M_TRIM_THRESHOLD, 2**30)


def used_memory(device: torch.device) -> int:
    """Bytes that this process uses: of the GPU, or resident."""
    if device.type == "cuda":
        return torch.cuda.memory_reserved(device)
    return int(psutil.Process().memory_info().rss)


def forget_peak() -> None:
    """Let :func:`peak_memory` begin anew; where the system has no such thing, it keeps what it has seen."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory(device: torch.device) -> int:
    """Highest number of bytes that this process has had: of the GPU, or resident."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    with suppress(OSError):
        found = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
        if found:
            return int(found[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def held(value: Any) -> int:
    """Bytes of all tensors in nested lists, tuples, dicts and dataclasses, each counted once."""
    sizes: dict[int, int] = {}

    def walk(item: Any) -> None:
        if isinstance(item, Tensor):
            storage = item.untyped_storage()
            sizes[storage.data_ptr()] = storage.nbytes()
        elif isinstance(item, dict):
            walk(list(item.values()))
        elif isinstance(item, (list, tuple)):
            for part in item:
                walk(part)
        elif is_dataclass(item):
            walk([getattr(item, field.name) for field in fields(item)])

    walk(value)
    return sum(sizes.values())
