"""What any library says, down to its debugging, in a file."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def everything_logged(path: Path) -> Iterator[None]:
    """Of all loggers, as long as it lasts."""
    log, root = logging.FileHandler(path), logging.getLogger()
    level = root.level
    root.addHandler(log)
    root.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        root.setLevel(level)
        root.removeHandler(log)
        log.close()
