"""GPUs, memory, disks and ports of this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import psutil

from bbtune.doctor.finding import Finding
from bbtune.service.ports import HABIT, by_whom, is_free

_GIB = 2**30
_LEAST_DISK = 2 * _GIB  # for a run, its logs and a small model
_LEAST_MEMORY = 2 * _GIB  # the service takes about 1.1
_FULL = 0.95  # above this share of a disk Ray refuses to put objects on it


def machine_findings(state: Path, service_is_up: bool) -> list[Finding]:
    """All that the machine itself has or lacks."""
    from bbtune.backbone.fetch import cache_folder

    places = {"state folder": state, "/tmp": Path("/tmp"), "cache": cache_folder()}
    ports = [] if service_is_up else [port_finding(name, port) for name, port in HABIT.items()]
    return [gpu_finding(), memory_finding(), *(disk_finding(name, place) for name, place in places.items()), *ports]


def gpu_finding() -> Finding:
    """GPUs that torch can use; those of the machine that it cannot are a problem."""
    import torch

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        return Finding("gpus", ", ".join(names))
    listed = _listed_by_driver()
    if listed and os.environ.get("CUDA_VISIBLE_DEVICES") is None:
        todo = "install the CUDA build of torch that fits the driver (nvidia-smi shows it)"
        return Finding("gpus", f"{len(listed)} in the machine, none that torch {torch.__version__} can use", todo)
    return Finding("gpus", "none; models run on the CPU")


def _listed_by_driver() -> list[str]:
    try:
        done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [line for line in done.stdout.splitlines() if line.startswith("GPU")] if done.returncode == 0 else []


def memory_finding() -> Finding:
    """Free memory, which a service and a small model need."""
    free = psutil.virtual_memory().available
    todo = f"end what is not needed: a service and a small model take {_LEAST_MEMORY / _GIB:.0f} GiB"
    return Finding("memory", f"{free / _GIB:.1f} GiB free", todo if free < _LEAST_MEMORY else "")


def disk_finding(name: str, place: Path) -> Finding:
    """Free space where a folder is, or will be."""
    there = next(folder for folder in (place, *place.parents) if folder.exists())
    usage = shutil.disk_usage(there)
    seen = f"{usage.free / _GIB:.1f} GiB free ({place})"
    if usage.free < _LEAST_DISK or usage.used > _FULL * usage.total:
        return Finding(name, seen, f"free some: at least {_LEAST_DISK / _GIB:.0f} GiB and {1 - _FULL:.0%} of the disk")
    return Finding(name, seen)


def port_finding(name: str, port: int) -> Finding:
    """Whether a port of habit is free; no problem, because another is taken then."""
    taken = f"taken{by_whom(port)}; `bbtune up` takes another"
    return Finding(f"port {port}", f"free (for {name})" if is_free(port) else taken)
