"""What a job server tells of its cluster."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from bbtune.service.ask import Answer, ask


@dataclass(frozen=True)
class Cluster:
    """A cluster at one moment.

    Args:
        nodes: how many run.
        resources: name -> in use, in all; CPU, and GPU where there is one.
        jobs: state in Ray's words, ``RUNNING`` -> how many.
    """

    nodes: int = 0
    resources: dict[str, tuple[float, float]] = field(default_factory=dict)
    jobs: dict[str, int] = field(default_factory=dict)


def look_at(dashboard: str, token: str) -> Cluster | None:
    """Ask a job server for nodes, resources and jobs; None if it does not say."""
    status = ask(f"{dashboard}/api/cluster_status?format=0", token)
    jobs = ask(f"{dashboard}/api/jobs/", token)
    if not (status.ok and jobs.ok):
        return None
    try:
        return read_cluster(status.json(), jobs.json())
    except (KeyError, TypeError, AttributeError, ValueError):  # another version's
        return None


def read_cluster(status: Any, jobs: Any) -> Cluster:
    """Of the two answers what is shown; a head that has just started has no report yet."""
    report = (status["data"]["clusterStatus"] or {}).get("loadMetricsReport") or {}
    usage = report.get("usage") or {}
    resources = {name: (float(used), float(total)) for name, (used, total) in usage.items() if name in ("CPU", "GPU")}
    states = Counter(str(job["status"]) for job in jobs if job["type"] == "SUBMISSION")
    return Cluster(len(report.get("usageByNode") or {}), resources, dict(states))


def refusal(dashboard: str, answer: Answer) -> str:
    """Why a job server did not answer ``GET /api/version``, and what to do; empty if it did."""
    if answer.ok:
        return ""
    if answer.status == 0:
        return f"nothing answers at {dashboard} ({answer.reason}); start it (bbtune up), or correct the address"
    if answer.status == 401:
        return f"{dashboard} wants a token; set RAY_AUTH_TOKEN_PATH to the file that holds it"
    if answer.status == 403:
        return f"{dashboard} refuses the token; take the one of that cluster: RAY_AUTH_TOKEN_PATH=FILE"
    return f"{dashboard} is no job server of Ray, or a sick one (HTTP {answer.status} to /api/version)"
