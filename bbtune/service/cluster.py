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
    paths = ("/api/v0/nodes?detail=1", "/api/cluster_status?format=0", "/api/jobs/")
    answers = [ask(f"{dashboard}{path}", token) for path in paths]
    if not all(answer.ok for answer in answers):
        return None
    try:
        return read_cluster(*(answer.json() for answer in answers))
    except (KeyError, TypeError, AttributeError, ValueError):  # another version's
        return None


def read_cluster(nodes: Any, status: Any, jobs: Any) -> Cluster:
    """Of the three answers what is shown; what is in use is reported every few seconds, and not from the first on."""
    alive = [node for node in nodes["data"]["result"]["result"] if node["state"] == "ALIVE"]
    report = (status["data"]["clusterStatus"] or {}).get("loadMetricsReport") or {}
    resources = {}
    for name in ("CPU", "GPU"):
        total = sum(float(node["resources_total"].get(name, 0)) for node in alive)
        if total:
            used, _ = (report.get("usage") or {}).get(name, (0.0, total))
            resources[name] = (float(used), total)
    states = Counter(str(job["status"]) for job in jobs if job["type"] == "SUBMISSION")
    return Cluster(len(alive), resources, dict(states))


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
