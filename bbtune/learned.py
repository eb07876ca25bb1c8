"""What a run has learned, and how texts are put to the model with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from bbtune.plan import Reading
from bbtune.spec import BaseJob

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Learned:
    """Enough to label new texts; the task's data are not needed.

    Attributes:
        labels: C names; none where answers are words.
        metric: of the task.
        learned: what the method found. Of a search ``z`` (L, D), what the optimizer saw, and ``scales`` (L,), its
            calibrated factors; of a baseline its trained weights by name, possibly none.
        reading: template and label words.
    """

    spec: BaseJob
    labels: tuple[str, ...]
    metric: str
    learned: Arrays
    reading: Reading
