"""What a run was made with."""

from __future__ import annotations

import platform
import subprocess
from importlib import metadata

_PACKAGES = ("bbtune", "torch", "transformers", "numpy", "cma", "nevergrad", "ray", "mlflow")


def versions() -> dict[str, str]:
    """Python's version and those of the packages that shape a run; only installed ones."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def git_commit() -> str | None:
    """Commit of the working folder, None outside a repository."""
    command = ["git", "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
