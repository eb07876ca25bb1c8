"""Folders that only their owner can write: what is read from them is trusted."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from bbtune.errors import BbtuneError


def private_folder(folder: Path) -> None:
    """Tune's state is pickles, which do what they like when they are read: a folder that only its owner can write.

    Raises:
        BbtuneError: if it is somebody else's, or others may write there.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.stat(follow_symlinks=False)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise BbtuneError(
            f"{folder}: expected a folder of your own that no one else can write (mode 0700), because Ray Tune reads "
            "pickles from it; delete it, the same command goes on without"
        )
    folder.chmod(0o700)
