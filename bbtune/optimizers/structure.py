"""What an optimizer may know of the loss that it minimises, beside its values."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bbtune.objective import Objective


@dataclass(frozen=True)
class Structure:
    """The loss as a function of label logits, and the layers that z is made of.

    Attributes:
        objective: loss of the train examples' label logits.
        costs: of each layer of z, bottom-up: layers of the model that run for a candidate that differs from it upwards.
        l2: half of it times the mean square of z, in steps of sigma, is part of the losses told.
        probe_examples: train examples that probes are scored on at first; None for all.
        origin: (D,), what the optimizer's 0 stands for; None for 0 itself.
    """

    objective: Objective
    costs: tuple[int, ...] = (1,)
    l2: float = 0.0
    probe_examples: int | None = None
    origin: NDArray[np.float64] | None = None
