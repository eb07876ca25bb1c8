"""Versions, against what bbtune asks for and what a cluster has."""

from __future__ import annotations

import importlib.util
import platform
from importlib import metadata
from typing import Any

from bbtune.doctor.finding import Finding

_LOOKED_AT = ("ray", "mlflow", "torch", "transformers")


def version_findings() -> list[Finding]:
    """Python and the large packages, each against the range that bbtune was built with."""
    from packaging.requirements import Requirement
    from packaging.specifiers import SpecifierSet

    about = metadata.metadata("bbtune")
    wanted = SpecifierSet(",".join(about.get_all("Requires-Python") or []))
    found = [_judged("python", platform.python_version(), wanted, f"make an environment with Python {wanted}")]
    requirements = [Requirement(text) for text in metadata.requires("bbtune") or []]
    ranges = {one.name: one.specifier for one in requirements if one.marker is None}
    for name in _LOOKED_AT:
        wanted = ranges.get(name, SpecifierSet())
        try:
            found.append(_judged(name, metadata.version(name), wanted, f"pip install '{name}{wanted}'"))
        except metadata.PackageNotFoundError:
            found.append(Finding(name, "not installed", f"pip install '{name}{wanted}'"))
    return [*found, job_server_finding()]


def job_server_finding() -> Finding:
    """Whether the parts of Ray that serve jobs are installed."""
    if importlib.util.find_spec("aiohttp_cors") is None:
        return Finding("ray[default]", "not installed: no job server, no submitting", "pip install 'bbtune[cluster]'")
    return Finding("ray[default]", "installed")


def cluster_findings(told: Any) -> list[Finding]:
    """A cluster's versions against those here; ``told`` is its answer to ``GET /api/v0/cluster_metadata``."""
    said = told.get("data") if isinstance(told, dict) else None
    if not isinstance(said, dict) or "rayVersion" not in said:
        return [Finding("cluster", "does not tell its versions")]
    here, python = metadata.version("ray"), platform.python_version()
    ray = Finding("its ray", f"{said['rayVersion']}, here {here}")
    if str(said["rayVersion"]) != here:
        ray = Finding(ray.what, ray.seen, f"pip install 'ray[default]=={said['rayVersion']}' here, or {here} there")
    theirs = str(said.get("pythonVersion", ""))
    its_python = Finding("its python", f"{theirs}, here {python}")
    if theirs.split(".")[:2] != python.split(".")[:2]:
        its_python = Finding(its_python.what, its_python.seen, f"use Python {theirs} here: jobs run on that")
    return [ray, its_python]


def _judged(name: str, version: str, wanted: Any, todo: str) -> Finding:
    if wanted.contains(version, prereleases=True):
        return Finding(name, version)
    return Finding(name, f"{version}, expected {wanted}", todo)
