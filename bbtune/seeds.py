"""One seed per job; every other seed is a named child of it."""

from __future__ import annotations

from zlib import crc32

import numpy as np


def generator(seed: int, *names: str | int) -> np.random.Generator:
    """A private random generator for one purpose.

    Args:
        seed: the job's (or the few-shot draw's) seed.
        names: what the numbers are for, e.g. ``"projection", 3``. Other names give independent numbers.
    """
    keys = [name if isinstance(name, int) else crc32(name.encode()) for name in names]
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy=seed, spawn_key=keys)))
