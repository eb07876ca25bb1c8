"""A pool of one worker in this process: the reference."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from bbtune.errors import DeadlineReached
from bbtune.evaluation.worker import Worker
from bbtune.search_plan import SearchPlan


class LocalPool:
    """Runs calls one after the other."""

    def __init__(self, plan: SearchPlan) -> None:
        self._worker = Worker(plan)

    def run(
        self, method: str, calls: Sequence[tuple[object, ...]], deadline: float | None = None
    ) -> list[NDArray[Any]]:
        """Results of ``method(*call)`` for each call, in the order of the calls."""
        results = []
        for call in calls:
            if deadline is not None and time.monotonic() > deadline:
                raise DeadlineReached
            results.append(getattr(self._worker, method)(*call))
        return results

    def each(self, method: str) -> list[Any]:
        """The result of ``method()``."""
        return [getattr(self._worker, method)()]

    def close(self) -> None:
        """Nothing to free."""
