"""What a server counts, for Prometheus; replicas count in files of one folder, and each tells the sum of all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Meters:
    """Counters of one process.

    Args:
        folder: shared by the replicas of a server; what those that have ended counted stays.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, exist_ok=True)
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)  # read when the library is imported, and never again
        from prometheus_client import CollectorRegistry, Counter, Histogram
        from prometheus_client.multiprocess import MultiProcessCollector

        own: dict[str, Any] = {"registry": CollectorRegistry()}
        self._all = CollectorRegistry()
        MultiProcessCollector(self._all)  # type: ignore[no-untyped-call]
        self._requests = Counter(
            "bbtune_requests",
            "Requests to classify, by prompt (none if unknown) and status.",
            ["prompt", "status"],
            **own,
        )
        self._texts = Counter("bbtune_texts", "Texts that were classified, by prompt.", ["prompt"], **own)
        self._latency = Histogram(
            "bbtune_request_seconds", "From a request's arrival to its answer.", buckets=_SECONDS, **own
        )
        self._batches = Histogram("bbtune_batch_texts", "Texts that shared a forward.", buckets=_SIZES, **own)

    def request(self, prompt: str, status: int, seconds: float, texts: int) -> None:
        """A request to classify, answered.

        Args:
            prompt: empty where it is not known, so that strangers cannot make names.
            texts: that were classified.
        """
        self._requests.labels(prompt, str(status)).inc()
        self._latency.observe(seconds)
        if texts:
            self._texts.labels(prompt).inc(texts)

    def batch(self, texts: int) -> None:
        """A forward of so many texts."""
        self._batches.observe(texts)

    def text(self, prompts: int) -> bytes:
        """All that all replicas have counted, as Prometheus reads it.

        Args:
            prompts: that are served now.
        """
        from prometheus_client import generate_latest

        told = (
            f"# HELP bbtune_prompts Prompts that are served.\n# TYPE bbtune_prompts gauge\nbbtune_prompts {prompts}\n"
        )
        return generate_latest(self._all) + told.encode()
